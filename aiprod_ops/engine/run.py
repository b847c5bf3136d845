"""The heart: one loop that reads the journal, makes the one next move, and writes what came of it.

A fresh run and a resumed one are the same loop; a fresh one has a shorter journal. Whatever moment the process dies
at, what it leaves is a journal, and `domain.runs.next_move` says what follows from it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.plans import Action, Draft, Plan
from aiprod_ops.domain.runs import Move, State, next_move, replay
from aiprod_ops.engine.actor import Actor
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal
from aiprod_ops.engine.planning import holds, kept_draft, recompute
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.runbook import Context
from aiprod_ops.engine.sealing import Sealing
from aiprod_ops.engine.watch import Watch
from aiprod_ops.engine.world import World
from aiprod_ops.errors import (
    Exit,
    Failed,
    Held,
    OpsError,
    OutcomeUnknown,
    PartlyApplied,
    Refused,
    TimedOut,
    Unreachable,
    before_acting,
)
from aiprod_ops.units import Seconds

_ATTEMPTS = 5  # looks at an outcome, a second apart, before it is called unknown


class Run:
    """One approved plan on its way through the journal, under the lease of its instance."""

    def __init__(
        self, world: World, entry: Entry, params: Any, draft: Draft, journal: Journal, *, backward: bool = False
    ) -> None:
        self.world, self.entry, self.params, self.draft, self.journal = world, entry, params, draft, journal
        self._backward = backward
        self.book = entry.book
        self.plan: Plan = draft.plan
        self._actor = Actor(world, draft.plan.identity, journal, without_primary=entry.book.without_primary)
        self._moves: dict[Move, Callable[[int], None]] = {
            Move.ACT: self._act,
            Move.SETTLE: self._settle,
            Move.UNDO: self._undo,
            Move.COMPARE: self._compare,
            Move.VERIFY: self._verify,
            Move.SEAL: self._seal,
        }

    def drive(self) -> Exit:
        """Move until the journal ends. Raises OutcomeUnknown, or Held; then the journal stays open for `resume`."""
        try:
            with self._lease(), self._operations():
                if self._backward and not self._progress.abandoned:
                    self._abandon("rollback was asked for")
                while True:
                    move, step = next_move(self._progress)
                    if move is Move.END:
                        return Exit(self._progress.ended or 0)
                    self._moves[move](step)
        except Held:
            if len(self.journal.records) == 1:  # ours alone until now: nobody will ever resume it
                self.journal.write("ended", exit=int(Exit.HELD))
            raise
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._actor.close()

    @property
    def _progress(self) -> Any:
        return replay(self.journal.records, len(self.plan.actions))

    @contextmanager
    def _lease(self) -> Iterator[None]:
        name = self.plan.identity.system_identifier
        with self.world.store.lock(name, f"{self.world.by}, run {self.journal.run}") as token:
            self.journal.recover()
            self.world.stop.is_acting = True
            self.journal.write("leased", resource=name, token=token)
            yield

    @contextmanager
    def _operations(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self.world.journalled(self.journal))
            except OpsError as error:
                step = next((n for n, state in enumerate(self._progress.steps) if state is State.INTENDED), 0)
                raise self._unknown(step, error.message) from error
            yield

    # Forward

    def _act(self, step: int) -> None:
        action = self.plan.actions[step]
        kind, subject = self.book.kinds[action.kind], self._subject(action)
        if self.world.stop.signal:
            return self._abandon(f"asked to stop (signal {self.world.stop.signal})")
        try:
            if refusal := self._refusal():
                return self._abandon(refusal)
            done = kind.done(self._acting, subject)
            if done:
                return self.journal.write("outcome", step=step, state=State.UNCHANGED)
            if done is None:
                return self._abandon(f"whether {action.name} is done cannot be seen with the actor's role")
            self._check_needs(action)
        except Held as error:
            return self._abandon(error.message, Exit.HELD)
        except OpsError as error:
            # Nothing was intended yet, so nothing failed and nothing is unknown: this step was not begun.
            return self._abandon(f"{error.message}. {error.hint}".strip(". "), before_acting(error))
        self.journal.write("intended", step=step, action=action.name, token=self._token)
        return self._do(step)

    def _check_needs(self, action: Action) -> None:
        """Before the first action, the needs of all: a privilege that the last one lacks must not undo the others."""
        for each in (action,) if self._progress.touched else self.plan.actions:
            self.book.kinds[each.kind].check(self._acting, self._subject(each))

    def _refusal(self) -> str:
        """Why acting is refused right now: a plan that is stale, or a guard; empty when nothing speaks against it."""
        context = self.world.context
        if not self._progress.touched and not self._is_reversal:
            now = recompute(self.entry, context, self.params, self.draft)
            if not holds(self.entry, self.params, self.plan, now):
                return f"the plan is stale: what it rests on has changed (now {now.digest[:12]})"
        if "guard" not in self.book.phases or self._is_reversal:
            return ""
        findings = list(self.book.phases["guard"](context, self.plan, self.params))
        return _against(findings)

    def _do(self, step: int) -> None:
        action = self.plan.actions[step]
        kind, subject = self.book.kinds[action.kind], self._subject(action)
        clock = self.world.context.clock
        started = clock.monotonic()
        error = ""
        with Watch(self.world, self.book, self.plan, self.params, action, self._acting.db) as watch:
            try:
                kind.do(self._acting, subject)
            except (Unreachable, TimedOut) as lost:
                error = lost.message
            except OpsError as failure:
                error = failure.message
            except Exception as bug:  # noqa: BLE001 whatever a runbook's code raises: what it did must be undone
                error = f"{type(bug).__name__}: {bug}"
        self._settled(step, error, watch.reason, seconds=clock.monotonic() - started, worst=watch.worst)

    def _settle(self, step: int) -> None:
        """An intent without an outcome, from a process that died: look; act again only when it did not happen."""
        if self._look(step) is False:
            if self.world.stop.signal:
                return self._abandon(f"asked to stop (signal {self.world.stop.signal})")
            return self._do(step)
        return self._settled(step, "")

    def _settled(self, step: int, error: str, breach: str = "", **figures: Any) -> None:
        """Write the outcome that is to be seen, whatever was said. Raises OutcomeUnknown when nothing is to be seen."""
        seen = self._look(step)
        if seen is None:
            raise self._unknown(step, breach or error)
        if seen and not breach:
            # Done, though contact was lost on the way: a broken connection is no reason to undo what was asked for.
            figures |= self._reported(step)
            return self.journal.write("outcome", step=step, state=State.CHANGED, note=error, **figures)
        reason = breach or error or f"{self.plan.actions[step].name} went without an error, but it is not to be seen"
        if self._is_reversal:
            raise self._unfinished(reason)
        self.journal.write("outcome", step=step, state=State.FAILED, error=reason, **figures)
        return self._abandon(reason)

    def _look(self, step: int) -> bool | None:
        """Whether a step is done, asked until there is an answer; None when nobody can tell, raises OutcomeUnknown
        when there is none."""
        action = self.plan.actions[step]
        kind, subject = self.book.kinds[action.kind], self._subject(action)
        for attempt in range(_ATTEMPTS):
            with self._patience(step, attempt):
                if (done := kind.done(self._acting, subject)) is not None:
                    return done
                self.world.context.clock.sleep(Seconds(1))
        return None

    @contextmanager
    def _patience(self, step: int, attempt: int) -> Iterator[None]:
        """One of several readings after something was begun; the last one that fails raises OutcomeUnknown.

        Whatever speaks against it (no contact, a lock of somebody, a role that may not any more): what was done is not
        known until a reading succeeds.
        """
        try:
            yield
        except Held as held:
            raise self._unknown(step, held.message) from held
        except OpsError as error:
            self._actor.close()
            if attempt + 1 == _ATTEMPTS:
                raise self._unknown(step, error.message) from error
            self.world.context.clock.sleep(Seconds(1))

    def _verify(self, _step: int) -> None:
        context, clock = self.world.context, self.world.context.clock
        if self._is_reversal:
            return self._verify_reversal(self.journal.opening["of"])
        until = clock.monotonic() + self.book.settle
        while True:
            findings = self._verified_findings()
            if against := _against(findings):
                return self._abandon(f"verification failed: {against}")
            if clock.monotonic() >= until:
                break
            context.report("verified; it has to hold")
            clock.sleep(Seconds(min(1.0, self.book.settle)))
        return self.journal.write("verified", findings=[asdict(finding) for finding in findings])

    def _verify_reversal(self, of: str) -> None:
        """A rollback is verified when all that it took back is to be seen. Others may have changed the rest since:
        whether the first plan follows from the facts again is told, and no more."""
        opening = Journal.of(self.world.store, self.world.context.clock, of).opening
        original = kept_draft(self.world.store, opening["digest"])
        gone = [self._look(step) is True for step in range(len(self.plan.actions))]
        findings = [
            Finding(f"{action.kind} {action.name}", float(not is_gone), "", crit=1)
            for action, is_gone in zip(self.plan.actions, gone, strict=True)
        ]
        if against := _against(findings):
            return self._abandon(f"verification failed: {against}")
        is_same = replace(self._recomputed(original), source=original.plan.source).digest == original.digest
        note = "" if is_same else f"the schema has changed since the run {of}, by others"
        findings.append(Finding("facts that are not those from before the run", float(not is_same), "", note=note))
        return self.journal.write("verified", findings=[asdict(finding) for finding in findings])

    def _verified_findings(self) -> list[Finding]:
        for attempt in range(_ATTEMPTS):
            with self._patience(len(self.plan.actions) - 1, attempt):
                return list(self.book.phases["verify"](self.world.context, self.plan, self.params))
        raise AssertionError("unreachable")

    def _recomputed(self, draft: Draft) -> Plan:
        """The plan that follows from the facts after something was done."""
        for attempt in range(_ATTEMPTS):
            with self._patience(0, attempt):
                return recompute(self.entry, self.world.context, self.params, draft)
        raise AssertionError("unreachable")

    # Backward

    @property
    def _is_reversal(self) -> bool:
        return "of" in self.journal.opening

    def _unfinished(self, reason: str) -> PartlyApplied:
        """A rollback that was begun only goes forward: its journal stays open, and `resume` tries again."""
        return PartlyApplied(
            f"the rollback is not finished: {reason}",
            hint=f"page the owner ({self.book.owner}); then: aiprod-ops resume {self.journal.run}",
        )

    def _abandon(self, reason: str, exit_code: Exit = Exit.REFUSED) -> None:
        """Stop, and undo what was done; a rollback, which nothing undoes, is left to be gone on with."""
        if self._is_reversal and self._progress.touched:
            raise self._unfinished(reason)
        self.world.context.report(f"stopping: {reason}")
        self.journal.write("abandoned", reason=reason, signal=self.world.stop.signal, exit=int(exit_code))

    def _undo(self, step: int) -> None:
        action = self.plan.actions[step]
        self.journal.write("undoing", step=step, action=action.name)
        self.world.context.report(f"undoing {action.name}")
        try:
            error = self._undone(action)
        except (Unreachable, TimedOut, Held) as lost:
            self._actor.close()
            raise self._unknown(step, lost.message) from lost
        except OpsError as failure:
            raise PartlyApplied(
                f"{action.name} could not be taken back: {failure.message}",
                hint=f"page the owner ({self.book.owner}); then: aiprod-ops resume {self.journal.run}",
            ) from failure
        # Only what is irreversible ends as undo-failed: trying again would not help.
        state = State.UNDO_FAILED if error else State.UNDONE
        self.journal.write("outcome", step=step, state=state, error=error, **self._reported(step))

    def _undone(self, action: Action) -> str:
        """Take an action back; answers why nothing can, or nothing. Raises OpsError when it did not work this time."""
        if action.undo is None:
            happened = self.book.kinds[action.kind].done(self._acting, self._subject(action))
            return f"irreversible: {action.irreversible}" if happened is not False else ""
        kind, subject = self.book.kinds[action.undo.kind], self._subject(action.undo)
        if kind.done(self._acting, subject) is not True:
            kind.do(self._acting, subject)
        if kind.done(self._acting, subject) is not True:
            raise Failed(f"{action.undo.kind} went without an error, but its effect is not to be seen")
        return ""

    def _compare(self, _step: int) -> None:
        """After undoing, the same plan must follow from the facts: then they equal those from before."""
        now = self._recomputed(self.draft)
        return self.journal.write("compared", equal=now.digest == self.draft.digest, digest=now.digest)

    # The end

    def _seal(self, _step: int) -> None:
        progress = self._progress
        if not progress.sealed:
            told = Sealing(self.world, self.entry, self.params, self.plan, self.journal)
            record = Archive(self.world.store).seal(told.body(progress))
            self.journal.write("sealed", evidence=record.n, seal=record.seal)
        self.journal.write("ended", exit=int(progress.exit_code))

    # Details

    def _reported(self, step: int) -> dict[str, str]:
        """What came of an action, in words. It decides nothing: where it cannot be read, it is not told."""
        action = self.plan.actions[step]
        try:
            words = self.book.kinds[action.kind].report(self._acting, self._subject(action))
        except OpsError:
            words = ""
        return {"became": words} if words else {}

    def _subject(self, action: Action) -> Any:
        return self.book.kinds[action.kind].subject(action)

    @property
    def _token(self) -> int:
        return int(next(r.data["token"] for r in reversed(self.journal.records) if r.kind == "leased"))

    @property
    def _acting(self) -> Context:
        return self._actor.context

    def _unknown(self, step: int, error: str) -> OutcomeUnknown:
        action = self.plan.actions[step].name if self.plan.actions else "the run"
        return OutcomeUnknown(
            f"the outcome of {action} is unknown: {error or 'nobody can tell whether it happened'}",
            hint=f"when the server answers again: aiprod-ops resume {self.journal.run}",
        )

    def _unwritable(self, error: OSError) -> OpsError:
        where = self.world.store.where(self.journal.name)
        if not self._progress.touched:
            return Refused(
                f"the journal cannot be written ({error.strerror}: {where}); nothing was changed",
                hint=f"make room there, then: aiprod-ops resume {self.journal.run}",
            )
        return OutcomeUnknown(
            f"the journal cannot be written ({error.strerror}: {where})",
            hint=f"make room there, then: aiprod-ops resume {self.journal.run}",
        )


def _against(findings: list[Finding]) -> str:
    """What speaks against going on, in words; empty when nothing does."""
    bad = [finding for finding in findings if finding.status in (Status.CRITICAL, Status.UNKNOWN)]
    return "; ".join(f"{f.metric}: {f.note or f.shown}" for f in bad)
