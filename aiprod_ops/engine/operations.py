"""What people ask for: apply an approved plan, resume a run, roll one back, drill."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from aiprod_ops.domain.plans import Action, Draft, Plan
from aiprod_ops.domain.runs import State, replay
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal, runs, unfinished
from aiprod_ops.engine.planning import draft as make_draft
from aiprod_ops.engine.planning import holds, keep, kept_draft, recompute, typed_params
from aiprod_ops.engine.proving import Proven, abandon, opening, proof_of, prove, require
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.run import Run
from aiprod_ops.engine.runbook import Lab, Measured
from aiprod_ops.engine.world import World
from aiprod_ops.errors import Exit, Refused
from aiprod_ops.ports import Clock
from aiprod_ops.units import Seconds, seconds

_UNNOTICED = 60  # seconds that a drill waits for the runbook to see what was provoked


@dataclass(frozen=True)
class Outcome:
    """How an operation ended: the exit code, the run (empty when none was needed), and why, in words. `kind` is that of
    its journal: what a proof said is no change."""

    exit: Exit
    run: str
    reason: str = ""
    kind: str = "run"


def new_run(clock: Clock, runbook: str) -> str:
    """An id that sorts by time, to the millisecond: `20261121-235901-042-add-missing-index-3f2a`."""
    now = clock.now()
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{runbook}-{secrets.token_hex(2)}"


def apply(world: World, entry: Entry, draft: Draft, approval: str) -> Outcome:
    """Apply exactly the plan that was approved, after proving it where no fresh proof is there.

    Raises Refused, Held, NotApproved before anything is changed; OutcomeUnknown when contact was lost while acting.
    """
    params = typed_params(entry, draft.plan.parameters)
    if not is_wanted(world, entry, params, draft):
        return Outcome(Exit.DONE, "", "nothing to do: everything the plan wants is there already")
    if world.delivery is not None and "files" in entry.book.phases:
        world.delivery.check()
    ensure_proven(world, entry, params, draft)
    journal = Journal(world.store, world.context.clock, new_run(world.context.clock, entry.id))
    journal.write("opened", **opening(world, entry, draft, "run", approval=approval, proof=_proof_number(world, draft)))
    return finish(Run(world, entry, params, draft, journal))


def is_wanted(world: World, entry: Entry, params: Any, draft: Draft) -> bool:
    """Whether exactly this plan follows from the facts as they are now; False when all of it is done. Only reads.

    Raises Refused when it is stale or meant for another instance, Held when a run at work is what changes the facts.
    """
    now = recompute(entry, world.context, params, draft)
    if now.identity != draft.plan.identity:
        raise Refused(f"the plan is for {_words(draft.plan)}, but this is {_words(now)}", hint="plan again, here")
    if now.digest != draft.digest:
        # A run at work changes the facts: then it is not the plan that is stale, the instance is held.
        with world.store.lock(now.identity.system_identifier, world.by):
            now = recompute(entry, world.context, params, draft)
    if not now.actions and _is_all_done(world, entry, draft.plan):
        return False
    if now.digest != draft.digest and (_was_applied(world, draft) or not holds(entry, params, draft.plan, now)):
        raise _stale(world, entry, draft, now)
    return True


def _was_applied(world: World, draft: Draft) -> bool:
    """Whether a run of this plan has begun: what it has done is no reason to bear what has moved."""
    waiting = unfinished(world.store, world.context.clock, draft.plan.identity.system_identifier)
    return any(each.opening.get("digest") == draft.digest for each in waiting if each.opening["kind"] == "run") or bool(
        Archive(world.store).bodies(kind="run", digest=draft.digest)
    )


def _stale(world: World, entry: Entry, draft: Draft, now: Plan) -> Refused:
    """A run of the very plan makes it stale: one that was interrupted is to be finished, not planned again, and one
    that is done is named."""
    said = f"the plan {draft.digest[:12]} is stale: {_difference(draft.plan, now)}"
    waiting = unfinished(world.store, world.context.clock, now.identity.system_identifier)
    mine = [each.run for each in waiting if each.opening["kind"] == "run" and each.opening["digest"] == draft.digest]
    if mine:
        return Refused(f"{said}; its run {mine[0]} was interrupted", hint=f"aiprod-ops resume {mine[0]}")
    hint = f"plan again: aiprod-ops plan {entry.id}{entry.options(draft.plan.parameters, world.context.promises)}"
    done = Archive(world.store).bodies(kind="run", digest=draft.digest, exit=int(Exit.DONE))
    if done:
        ended = datetime.fromisoformat(done[0].body["ended"])
        name = f"the plan {draft.digest[:12]} was applied already, at {ended:%Y-%m-%d %H:%M:%S} UTC by the run"
        return Refused(f"{name} {done[0].body['run']}; by now something else would be planned", hint=hint)
    return Refused(said, hint=hint)


def _is_all_done(world: World, entry: Entry, plan: Plan) -> bool:
    """Whether each action's effect is to be seen, by the probe. Facts that ask for nothing do not tell: a table that
    was dropped misses no index."""
    kinds = ((entry.book.kinds[action.kind], action) for action in plan.actions)
    return all(kind.done(world.context, kind.subject(action)) for kind, action in kinds)


def ensure_proven(world: World, entry: Entry, params: Any, draft: Draft) -> Proven | None:
    """Prove the draft unless a fresh proof is there; raises Refused when a copy says no."""
    if "prove" not in entry.book.phases:
        return None
    require(world, entry, draft)
    if proof_of(world, draft.digest) is not None:
        return None
    proven = prove(world, entry, params, draft, new_run(world.context.clock, entry.id))
    require(world, entry, draft)
    return proven


def finish(run: Run) -> Outcome:
    """Drive a run to its end."""
    code = run.drive()
    progress = replay(run.journal.records, len(run.plan.actions))
    return Outcome(code, run.journal.run, progress.abandoned)


def resume(world: World, entry: Entry, journal: Journal) -> Outcome:
    """Go on with a run from its journal. One that has ended answers how it ended."""
    draft = kept_draft(world.store, journal.opening["digest"])
    params = typed_params(entry, draft.plan.parameters)
    kind = journal.opening["kind"]
    if journal.ended is not None:
        return Outcome(Exit(journal.ended), journal.run, "the run has ended already", kind)
    _same_source(entry, draft)
    if kind == "prove":
        proven = prove(world, entry, params, draft, journal.run)
        refused = "; ".join(f"{name}: {why}" for name, why in proven.proof.refused.items())
        return Outcome(Exit.REFUSED if refused else Exit.DONE, journal.run, refused, kind)
    return finish(Run(world, entry, params, draft, journal))


def undo_draft(world: World, entry: Entry, journal: Journal) -> Draft:
    """The plan that takes a finished run back: the undo of what it changed, last first. What nothing can take back is
    left out and told. Raises Refused where nothing else is left."""
    _refuse_twice(world, journal.run)
    original = kept_draft(world.store, journal.opening["digest"])
    progress = replay(journal.records, len(original.plan.actions))
    changed = [a for a, state in zip(original.plan.actions, progress.steps, strict=True) if state is State.CHANGED]
    if not changed or journal.ended != Exit.DONE:
        raise Refused(f"run {journal.run} has left nothing to roll back")
    final = {action.name: f"cannot be taken back: {action.irreversible}" for action in changed if action.undo is None}
    undo: tuple[Action, ...] = tuple(a.undo for a in reversed(changed) if a.undo is not None)
    if not undo:
        raise Refused("; ".join(f"{name} {why}" for name, why in final.items()))
    plan = replace(original.plan, actions=undo, source=entry.source, without=())
    now = world.context.clock.now()
    valid_for = timedelta(seconds=seconds(world.context.promises.get("approval.valid_for")))
    return Draft(plan, plan.digest, now, now + valid_for, world.by, original.moving, omitted=final)


def _refuse_twice(world: World, run: str) -> None:
    """What is there after a run was rolled back is somebody else's. Raises Refused."""
    for name in runs(world.store):
        other = Journal(world.store, world.context.clock, name)
        if other.records and other.opening.get("of") == run and other.ended == Exit.DONE:
            raise Refused(f"run {run} was rolled back already, by {name}: nothing of it is left")


def roll_back(world: World, entry: Entry, journal: Journal, draft: Draft | None, approval: str) -> Outcome:
    """Take a run back: an unfinished one by undoing it in its own journal, a finished one by a run of its own."""
    if journal.opening["kind"] == "prove":
        abandon(world, journal.run)
        return Outcome(Exit.DONE, journal.run, "the proof was ended, its copy is gone; production was only read")
    if draft is None and "of" in journal.opening:
        raise Refused(
            f"{journal.run} takes another run back: it is finished, not taken back",
            hint=f"aiprod-ops resume {journal.run}",
        )
    if draft is None:
        unfinished = kept_draft(world.store, journal.opening["digest"])
        params = typed_params(entry, unfinished.plan.parameters)
        outcome = finish(Run(world, entry, params, unfinished, journal, backward=True))
        return replace(outcome, exit=Exit.DONE) if outcome.exit in (Exit.UNDONE, Exit.REFUSED) else outcome
    keep(world.store, draft)
    params = typed_params(entry, draft.plan.parameters)
    reverse = Journal(world.store, world.context.clock, new_run(world.context.clock, entry.id))
    reverse.write("opened", **opening(world, entry, draft, "rollback", approval=approval, of=journal.run))
    return finish(Run(world, entry, params, draft, reverse))


@dataclass(frozen=True)
class Drilled:
    """A drill: the run it made, and its figures. `rto_s` is the time from the fault to the verified end; what a drill
    does not measure is None. `phases` are seconds of each action, in their order."""

    outcome: Outcome
    figures: dict[str, float | None]
    phases: dict[str, float] = field(default_factory=dict)


def drill(world: World, entry: Entry, params: Any, lab: Lab) -> Drilled:
    """Provoke the problem in the lab, then plan, prove and apply as an engineer would, with the stopwatch running."""
    if "inject" not in entry.book.phases:
        raise Refused(f"{entry.id} has no drill: it registers no @book.inject")
    if "plan" not in entry.book.phases:
        return _examination(world, entry, params, lab)
    clock = world.context.clock
    with entry.book.phases["inject"](lab, params) as measured:
        began, started = clock.now(), clock.monotonic()
        made = noticed(world, entry, params)
        outcome = apply(world, entry, made, "drill")
        rto_s = round(clock.monotonic() - started, 2)
        more = measured() if measured else Measured({})
    for name, content in more.files.items():
        world.store.put(f"runs/{outcome.run}/files/{name}", content)
    return _drilled(world, entry, made, outcome, began, {"rto_s": rto_s, **more.figures}, tuple(more.files))


def _drilled(
    world: World, entry: Entry, made: Draft, outcome: Outcome, began: datetime, measured: Mapping[str, float | None],
    files: tuple[str, ...] = (),
) -> Drilled:  # fmt: skip
    figures = {**dict.fromkeys(("rto_s", "rpo_s", "write_stop_ms", "lost_writes")), **measured}
    phases = _phases(world, made, outcome)
    body = {
        **opening(world, entry, made, "drill"),
        "run": outcome.run,
        "environment": world.context.target.environment,
        "version": world.version,
        "started": began.isoformat(),
        "ended": world.context.clock.now().isoformat(),
        "exit": int(outcome.exit),
        "drill": figures,
        "phases": phases,
        "files": {name: f"runs/{outcome.run}/files/{name}" for name in files},
    }
    Archive(world.store).seal(body)
    return Drilled(outcome, figures, phases)


def _phases(world: World, made: Draft, outcome: Outcome) -> dict[str, float]:
    """How long each action took, as its journal has it; one that was settled by a look has no time."""
    if not outcome.run:
        return {}
    records = Journal.of(world.store, world.context.clock, outcome.run).records
    took = {each.data["step"]: each.data["seconds"] for each in records if "seconds" in each.data}
    names = {step: f"{action.kind} {action.name}" for step, action in enumerate(made.plan.actions)}
    return {names[step]: round(seconds, 3) for step, seconds in sorted(took.items()) if step in names}


def _examination(world: World, entry: Entry, params: Any, lab: Lab) -> Drilled:
    """The drill of a runbook that examines copies: its findings `rto` and `rpo`, in seconds, are the figures."""
    began = world.context.clock.now()
    with entry.book.phases["inject"](lab, params):
        made = make_draft(entry, world.context, params, by=world.by)
        keep(world.store, made)
        proven = prove(world, entry, params, made, new_run(world.context.clock, entry.id))
    reason = "; ".join(f"{name}: {why}" for name, why in proven.proof.refused.items())
    outcome = Outcome(Exit(int(proven.evidence.body["exit"])), str(proven.evidence.body["run"]), reason)
    figures = {f"{each.id}_s": each.value for each in proven.proof.findings if each.id in ("rto", "rpo")}
    return _drilled(world, entry, made, outcome, began, figures)


def noticed(world: World, entry: Entry, params: Any) -> Draft:
    """The first plan against a provoked problem, kept; an age takes its time to come over its limit.

    Raises Refused when the runbook still plans nothing after a minute.
    """
    clock = world.context.clock
    until = clock.monotonic() + _UNNOTICED
    while not (made := make_draft(entry, world.context, params, by=world.by)).plan.actions:
        if clock.monotonic() > until:
            raise Refused(
                f"the problem was provoked {_UNNOTICED} s ago, but {entry.id} still plans nothing against it",
                hint=f"a limit is too high for a drill? aiprod-ops explain {entry.id} lists its options",
            )
        clock.sleep(Seconds(0.25))
    keep(world.store, made)
    return made


def _same_source(entry: Entry, draft: Draft) -> None:
    if entry.source != draft.plan.source:
        raise Refused(
            f"{entry.path} was changed since the run was planned: it may not finish what another version began",
            hint="put the old version back, then resume",
        )


def _proof_number(world: World, draft: Draft) -> int:
    proof = proof_of(world, draft.digest)
    return proof.n if proof else 0


def _words(plan: Plan) -> str:
    return f"{plan.identity.target}/{plan.identity.database} (system {plan.identity.system_identifier})"


def _difference(then: Plan, now: Plan) -> str:
    if then.source != now.source:
        return "the runbook's file has changed since"
    before, after = {a.name for a in then.actions}, {a.name for a in now.actions}
    gone, new = sorted(before - after), sorted(after - before)
    parts = [f"no longer planned: {', '.join(gone)}"] if gone else []
    parts += [f"planned now: {', '.join(new)}"] if new else []
    return "; ".join(parts) or "the definition of a table it rests on has changed"
