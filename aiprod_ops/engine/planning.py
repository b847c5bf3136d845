"""From facts to findings, and from facts to a plan that can be approved. Nothing here changes anything."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from aiprod_ops.domain.backups import whole
from aiprod_ops.domain.findings import Finding, Status, waived, worst
from aiprod_ops.domain.plans import Draft, Identity, Plan, canonical, digest
from aiprod_ops.engine.last_proofs import said_last
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Broken, Failed, NotApproved, OpsError, Refused, TimedOut, Unreachable, UsageError
from aiprod_ops.ports import Database, Server, Store
from aiprod_ops.units import seconds


@dataclass(frozen=True)
class Checked:
    """The result of a check. `new` and `gone` are ids of findings that were not there, or not any more, `since` the
    last check of this target; `were` is what the findings that are gone measured, by id."""

    runbook: str
    findings: tuple[Finding, ...]
    since: datetime | None = None
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    were: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        return worst(finding.status for finding in self.findings)


def check(entry: Entry, context: Context, params: Any) -> Checked:
    """Read the facts and judge them. A check that finds nothing to say is UNKNOWN: silence is not OK.

    What the next check needs is kept; where it cannot be (a full disk) that is said, and the check goes on.
    """
    book = entry.book
    facts = book.phases["facts"](context, params)
    now = context.clock.now()  # not before: a window of the history begins with a snapshot as old as its file says
    findings = waived(book.phases["judge"](facts, params), context.waivers, context.target.name, now.date())
    # Who looks, and at what, decides what can be seen: only checks that are alike tell what is new and what is gone.
    alike = digest([context.target.probe, msgspec.to_builtins(params)])[:8]
    name = f"findings.{entry.id}.{alike}"
    before = context.history.last(name)
    # Of a table each row measures the same: there the id tells more.
    faults = {each.id: "" if each.columns else each.metric for each in findings if each.judged is not Status.OK}
    try:
        for what, value in book.phases["keep"](facts, params).items() if "keep" in book.phases else ():
            context.history.keep(what, now, value)
        context.history.keep(name, now, faults)
    except OSError as error:
        context.report(f"this check is not kept for the next one to compare with: {error.strerror}")
    if before is None:
        return Checked(entry.id, tuple(findings))
    known = dict(before.value)
    blind = {_kind(finding.id) for finding in findings if finding.judged is Status.UNKNOWN}
    new = sorted(faults.keys() - known.keys())
    gone = sorted(each for each in known.keys() - faults.keys() if _kind(each) not in blind)
    were = {each: str(known[each]) for each in gone if known[each]}
    return Checked(entry.id, tuple(findings), before.taken, tuple(new), tuple(gone), were)


def _kind(finding: str) -> str:
    """What an id is of: `unused` of `unused:public.idx`. Where that is UNKNOWN now, nothing of it is gone."""
    return finding.partition(":")[0]


def draft(entry: Entry, context: Context, params: Any, *, by: str, without: Iterable[str] = ()) -> Draft:
    """Read the facts and plan. The draft is not stored; raises UsageError for a runbook that only checks."""
    book = entry.book
    if not {"plan", "prove"} & book.phases.keys():
        raise UsageError(f"{entry.id} only checks; it plans no change")
    facts = _facts(entry, context, params)
    _, moving = book.split(facts)
    now = context.clock.now()
    plan = _plan(entry, context, params, facts, without)
    findings = waived(book.phases["judge"](facts, params), context.waivers, context.target.name, now.date())
    accepted = {finding.id for finding in findings if finding.waived}
    left = [action.name for action in plan.actions if action.answers in accepted]
    if left:
        plan = plan.excluding(left)
    valid_for = timedelta(seconds=seconds(context.promises.get("approval.valid_for")))
    omitted = dict(book.phases["omits"](facts, params)) if "omits" in book.phases else {}
    return Draft(plan, plan.digest, now, now + valid_for, by, moving, tuple(left), omitted)


def recompute(entry: Entry, context: Context, params: Any, original: Draft) -> Plan:
    """The plan that follows from the stable facts as they are now and the moving facts as they were then.

    It has the original's digest if and only if nothing that the plan rests on has changed. Where nothing can be planned
    any more that is reported, and the plan is empty.
    """
    book = entry.book
    stable, _ = book.split(_facts(entry, replace(context, wants_moving=False), params))
    try:
        return _plan(entry, context, params, book.join(stable, original.moving), original.plan.without)
    except (Refused, UsageError) as error:
        context.report(error.message)
        return Plan(entry.id, entry.source, _identity(entry, context), msgspec.to_builtins(params), ())


def holds(entry: Entry, params: Any, planned: Plan, now: Plan) -> bool:
    """Whether an approved plan may be applied: it still follows from the facts, or its runbook bears what has moved.
    Where more differs than the actions (the code, the instance, the parameters) it never may."""
    if now.digest == planned.digest:
        return True
    if "bears" not in entry.book.phases or not now.actions:
        return False
    is_same = replace(now, actions=planned.actions).digest == planned.digest
    return is_same and bool(entry.book.phases["bears"](planned, now, params))


def _facts(entry: Entry, context: Context, params: Any) -> Any:
    """The facts; what the server answers to the reading is no reason to call anything failed or unknown."""
    try:
        return entry.book.phases["facts"](context, params)
    except (Failed, TimedOut) as error:
        raise Refused(f"the facts cannot be read: {error.message}", hint=error.hint) from error


def _plan(entry: Entry, context: Context, params: Any, facts: Any, without: Iterable[str]) -> Plan:
    identity = _identity(entry, context)
    actions = tuple(entry.book.phases["plan"](facts, params)) if "plan" in entry.book.phases else ()
    for action in actions:
        if action.kind not in entry.book.kinds:
            raise Refused(f"{entry.id} plans an action of the unknown kind {action.kind!r}")
    plan = Plan(
        runbook=entry.id,
        source=entry.source,
        identity=identity,
        parameters=msgspec.to_builtins(params),
        actions=actions,
    )
    without = tuple(without)
    if unknown := sorted(set(without) - {action.name for action in actions}):
        names = ", ".join(action.name for action in actions) or "none"
        if not _left_out_before(plan, without):
            raise UsageError(f"the plan has no action named {', '.join(unknown)}; it has: {names}")
    return plan.excluding(without) if without else plan


def _identity(entry: Entry, context: Context) -> Identity:
    """Whom the plan is for. A stored backup can be restored when its source is lost: then who that was is known from
    the last time that one was."""
    if entry.book.without_primary and (other := _any(context.nodes)) is not None:
        return Identity(context.target.name, other.system_identifier, other.database)
    try:
        server = context.db.server()
    except Unreachable:
        lost = _lost_identity(entry, context) if "origin" in entry.book.phases else None
        if lost is None:
            raise
        return lost
    return Identity(context.target.name, server.system_identifier, server.database)


def _lost_identity(entry: Entry, context: Context) -> Identity | None:
    last = said_last(context, entry.id)
    if last is not None and last.target.get("target") == context.target.name:
        context.report("the target does not answer; who it is, is known from its last proof")
        return Identity(**last.target)
    newest = next(reversed(whole(context.platform.backups.listed())), None)
    if newest is None or not (newest.instance and context.platform.database):
        return None
    context.report(f"the target does not answer; it is taken for the one that {newest.id} is of")
    return Identity(context.target.name, newest.instance, context.platform.database)


def _any(nodes: Mapping[str, Database]) -> Server | None:
    """What the first of several nodes that answers says."""
    for node in nodes.values():
        with suppress(OpsError):
            return node.server()
    return None


def _left_out_before(plan: Plan, without: tuple[str, ...]) -> bool:
    """When everything planned is gone because it is done, names that were left out are gone with it: not an error."""
    return not set(without) & {action.name for action in plan.actions} and not plan.actions


def keep(store: Store, made: Draft) -> None:
    """Store a draft under its digest, for the approval that will name it."""
    store.put(f"plans/{made.digest}.json", canonical(made) + b"\n")


def approved(store: Store, context: Context, named: str) -> Draft:
    """The stored draft that an approval names, by digest or by at least 8 digits of it.

    Raises NotApproved when there is none or it has expired, Broken when the file was edited.
    """
    named = named.lower()
    if len(named) < 8 or not all(c in "0123456789abcdef" for c in named):
        raise UsageError(
            f"{named!r} is not a plan's digest: expected at least 8 hexadecimal digits",
            hint="expected is what a plan prints as its digest",
        )
    names = [name for name in store.names("plans/") if name.removeprefix("plans/").startswith(named)]
    if len(names) != 1:
        raise NotApproved(
            f"{len(names) or 'no'} plan{'s' if len(names) > 1 else ''} of digest {named}…",
            hint="plan again: aiprod-ops plan ID, and approve the digest that it prints",
        )
    kept = _read(store, names[0])
    if context.clock.now() > kept.expires:
        raise NotApproved(
            f"the plan {named[:12]} expired at {kept.expires:%Y-%m-%d %H:%M} UTC",
            hint=f"plan again: aiprod-ops plan {kept.plan.runbook}",
        )
    return kept


def _read(store: Store, name: str) -> Draft:
    content = store.get(name) or b""
    try:
        kept = msgspec.convert(json.loads(content), Draft, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise Broken(f"{store.where(name)} is not a plan: {error}", hint="plan again") from error
    expected = name.removeprefix("plans/").removesuffix(".json")
    if not kept.plan.digest == kept.digest == expected:
        raise Broken(
            f"{store.where(name)} was edited: its content has the digest {kept.plan.digest[:12]}, not {expected[:12]}",
            hint=f"plan again: aiprod-ops plan {kept.plan.runbook}",
        )
    return kept


def kept_draft(store: Store, digest: str) -> Draft:
    """The stored draft of exactly this digest, expired or not: for a run that was approved in time."""
    return _read(store, f"plans/{digest}.json")


def typed_params(entry: Entry, plain: Mapping[str, Any]) -> Any:
    """Parameters again, from a plan."""
    return msgspec.convert(dict(plain), entry.book.params)
