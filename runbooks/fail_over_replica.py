"""Move the primary to one of its replicas: planned, or because it is lost.

Planned (the default): the roles are exchanged, and nothing that was acknowledged is lost. The old primary is
checkpointed while all can write, the other replicas follow the candidate; then the old one is stopped with all its
processes, the candidate waits until it has its last record, and is promoted. If it does not come as far within
`--patience` the old one serves again: nothing has changed. Then the old one comes back as a replica.

Unplanned (`--mode unplanned`): the primary does not answer, and no replica streams from it any more. The replica that
has received most is promoted; what it has not received is lost, and the plan says since when. The old primary is killed
with all its processes first: one that was only frozen would wake up and take writes that nobody keeps. Where that is
not possible nothing is promoted: two that take writes are worse than none.

A candidate streams from this primary now, is on its timeline, has its settings and is not behind: measured on clusters
that were switched to a replica that did not stream, every row was lost.

Where Patroni runs the cluster it is asked to do these steps, and looked at until it has: writes stop for two to three
seconds then. It is not asked to replace a primary before it is sure that nothing of that one takes writes.

Where the platform keeps a standby in another zone that one is the first resort: it loses nothing (`fail-over-zone`).

Source: PostgreSQL manual, "Failover", pg_rewind; Patroni's issues on forced switchovers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import (
    Bytes,
    Context,
    FailoverCandidate,
    Finding,
    Lab,
    Loss,
    Measured,
    Moving,
    OpsError,
    Plan,
    Refused,
    Seconds,
    SwitchMove,
    Topology,
    UsageError,
)


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    to: str = ""  #: the replica to promote; the best one by default
    mode: str = ""  #: planned, or unplanned: the primary is lost, with what no replica has received; '' as it is found
    lag: Bytes = Bytes(16 * 1024**2)  #: a candidate may be so far behind when it begins
    patience: Seconds = Seconds(20)  #: for the old primary to stop, and for the new one to have all of it
    silence: Seconds = Seconds(5)  #: so long a primary is asked again before it is called lost
    oldest: Seconds = Seconds(60)  #: a transaction that is open for longer is named before the move ends it

    def __post_init__(self) -> None:
        if self.mode not in ("", "planned", "unplanned"):
            raise ValueError(f"mode is {self.mode!r}, expected planned or unplanned")


@dataclass(frozen=True)
class Facts:
    """Who is what: `primary` is '' where none answers; `lost` the one that is gone, `chosen` who takes its place: under
    load that may be another one a moment later, and the guards look at who was. `stop` is how long nobody can write."""

    primary: str
    lost: str
    chosen: Moving[str]
    others: tuple[str, ...]
    has_endpoint: bool
    stop: Moving[str]
    archives: Moving[bool]
    leads: Moving[str]
    loss: Moving[Loss | None]
    topology: Moving[Topology]

    def candidates(self, params: Params) -> list[FailoverCandidate]:
        """The replicas, the best first, each with what speaks against it."""
        is_lost = params.mode == "unplanned" or (params.mode == "" and not self.primary)
        return _candidates(self.topology, params, is_lost=is_lost)


def _candidates(seen: Topology, params: Params, *, is_lost: bool) -> list[FailoverCandidate]:
    return api.failover_candidates(seen) if is_lost else api.switchover_candidates(seen, params.lag)


book = api.Runbook(
    params=Params,
    symptom="The primary has to be moved, or is lost",
    risk="severe",
    owner="database",
    drill_every="30 d",
    actions=(api.switch_over, api.fail_over, api.repoint, api.rejoin, api.rejoin_first, api.switch_back),
    without_primary=True,
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs pg_monitor on every node."""
    seen = api.barred(ctx, api.topology(ctx))
    primary = seen.primary.name if seen.primary else ""
    known = {primary, *(each.name for each in seen.standbys)}
    silent = [name for name in ctx.platform.cluster.names if name not in known]
    lost = "" if primary or seen.living else ctx.platform.cluster.lost(silent)
    is_lost = params.mode == "unplanned" or (params.mode == "" and not primary)
    candidates = _candidates(seen, params, is_lost=is_lost)
    fit = [each.node.name for each in candidates if not each.against and params.to in ("", each.node.name)]
    chosen = fit[0] if fit else ""
    loss = None
    if lost and chosen:
        node = next(each.node for each in candidates if each.node.name == chosen)
        loss = api.failover_loss(node, ctx.platform.cluster.written(lost))
    return Facts(
        primary,
        lost,
        chosen,
        tuple(sorted(each.name for each in seen.standbys)),
        ctx.endpoint is not None,
        "two to three seconds: Patroni's own steps" if ctx.target.patroni else "about half a second",
        ctx.target.platform != "local" or not seen.primary or not seen.primary.archives or _archives(seen, chosen),
        _leads(ctx),
        loss,
        seen,
    )


def _archives(seen: Topology, chosen: str) -> bool:
    return all(each.archives for each in seen.standbys if each.name == chosen)


def _leads(ctx: Context) -> str:
    """Where the application's way to the primary leads; that it cannot be read stops no failover."""
    try:
        return ctx.endpoint.shown() if ctx.endpoint else ""
    except OpsError as error:
        return f"unknown: {error.told}"


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """Which replica may be promoted, and why each other may not."""
    seen = facts.topology
    yield Finding(
        "the primary does not answer", None if seen.living and not facts.primary else float(not facts.primary), "",
        crit=1, note="; ".join(seen.silent.values()) if not facts.primary else facts.primary, id="primary",
    )  # fmt: skip
    if not facts.primary and not facts.lost:
        yield Finding("who was the primary", None, note=_nobody_knows(seen), id="who")
    both = seen.others_that_write if seen.primary else seen.others_that_write[1:]
    yield Finding("others that take writes", float(len(both)), "", crit=1, note=_both_write(seen), id="split")
    if facts.loss:
        yield Finding("time that would be lost", facts.loss.seconds, "s", note=f"with {facts.lost}", id="lost-time")
        yield Finding("WAL that would be lost", facts.loss.size, "B", note=str(facts.loss), id="lost-wal")
    for each in facts.candidates(params):
        fit = ("chosen" if each.node.name == facts.chosen else "may be promoted") + _waited_for(seen, each.node.name)
        note = "; ".join(each.against) or fit
        name = each.node.name
        yield Finding(f"reasons against {name}", float(len(each.against)), "", note=note, id=f"against:{name}")
    is_open = bool(seen.living) and not facts.primary  # nobody knows whether one has to be
    yield Finding("no replica may be promoted", None if is_open else float(not facts.chosen), "", crit=1, id="none")
    if not facts.archives:
        note = "its archive_mode or archive_command: no moment after the move could be restored to"
        yield Finding(f"{facts.chosen} would archive no WAL", 1.0, "", warn=1, note=note, id="archives")
    if seen.primary is not None:
        yield from api.move_ends(seen.primary, params.oldest)
    if facts.has_endpoint:
        unknown = facts.leads.startswith("unknown")
        yield Finding("ways to the primary", None if unknown else 1.0, "", note=facts.leads, id="endpoint")
    if params.to and params.to not in facts.others:
        note = f"there are: {', '.join(facts.others) or 'none'}"
        yield Finding(f"no replica {params.to}", 1.0, "", crit=1, note=note, id="to")


def _nobody_knows(seen: Topology) -> str:
    if seen.living:
        return f"{', '.join(seen.living)} answers, and does not let us in: it lives, and may be the primary"
    return f"which of {', '.join(seen.silent) or 'the servers'} it was, nobody can tell"


def _both_write(seen: Topology) -> str:
    names = [*([seen.primary.name] if seen.primary else []), *seen.others_that_write]
    return f"{', '.join(names)} take writes: fence all but one" if len(names) > 1 else ""


def _waited_for(seen: Topology, name: str) -> str:
    sync = next((each.sync for each in seen.senders if each.name == name), "")
    return f"; commits wait for it ({sync})" if sync in ("sync", "quorum") else ""


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """Exchange, and bring the old one back. Raises Refused with what stands against it, and UsageError."""
    if why := _refused(facts, params):
        raise Refused(why, hint="check fail-over-replica")
    if facts.primary:
        there = SwitchMove(facts.primary, facts.chosen, params.patience)
        back = SwitchMove(facts.chosen, facts.primary, params.patience)
        yield api.switch_over(there, undo=api.switch_back(back), lock=f"no writes for {facts.stop}")
        if facts.has_endpoint:
            yield api.repoint(there, undo=api.repoint(back))
        yield api.rejoin(there, undo=api.rejoin_first(there))  # before it can be switched back it has to stream
    else:
        there = SwitchMove(facts.lost, facts.chosen, params.patience)
        loss = facts.loss or api.Loss(None, None)
        yield api.fail_over(
            api.Takeover(facts.lost, facts.chosen, params.patience, loss),
            irreversible=f"what {facts.lost} had acknowledged and {facts.chosen} has not is lost: {loss}; commits that "
            "did not wait for its disk (synchronous_commit = off) come on top",
        )
        if facts.has_endpoint:
            yield api.repoint(there, irreversible=f"nobody takes writes but {facts.chosen}")
        yield api.rejoin(there, irreversible=f"a standby of {facts.chosen} is all that {facts.lost} can be now")


def _refused(facts: Facts, params: Params) -> str:
    seen = facts.topology
    if params.to and params.to not in facts.others:
        raise UsageError(f"there is no replica {params.to}", hint=f"there are: {', '.join(facts.others) or 'none'}")
    if params.mode == "planned" and not facts.primary:
        return f"no primary answers ({'; '.join(seen.silent.values())}): that is no planned move"
    if params.mode == "unplanned" and facts.primary:
        return f"the primary {facts.primary} answers us: it is not lost"
    if not facts.primary and not facts.lost:
        return _nobody_knows(seen)
    if len([*([facts.primary] if facts.primary else []), *seen.others_that_write]) > 1:
        return _both_write(seen)
    told = (f"{each.node.name}: {'; '.join(each.against)}" for each in facts.candidates(params) if each.against)
    return "" if facts.chosen else f"no replica may be promoted: {' · '.join(told) or 'none answers'}"


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again right before each action; one that was begun is finished whatever is seen."""
    if any(each.kind == "rejoin" for each in plan.actions[:1]):
        return
    is_lost = _is_lost(plan)
    move = (api.fail_over if is_lost else api.switch_over).subject(plan.actions[0])
    cluster = ctx.platform.cluster
    if cluster.is_standby(move.new) is False and cluster.is_fenced(move.old):
        return
    now = facts(ctx, params)
    if is_lost:
        alive = _alive(ctx, now.topology, move.old, params.silence)
        yield Finding("the lost primary lives", float(bool(alive)), "", crit=1, note=alive, id="alive")
        approved = api.fail_over.subject(plan.actions[0]).loss
        more = now.loss is not None and now.chosen == move.new and now.loss.exceeds(approved)
        yield Finding("more is lost than was told", float(more), "", crit=1, note=str(now.loss), id="more")
    elif now.leads.startswith("unknown"):
        yield Finding("the way to the primary cannot be read", 1.0, "", crit=1, note=now.leads, id="endpoint")
    elif now.primary != move.old:
        yield Finding("another primary than planned", 1.0, "", crit=1, note=now.primary or "none", id="moved")
    both = _both_write(now.topology)
    yield Finding("others that take writes", float(bool(both)), "", crit=1, note=both, id="split")
    against = {each.node.name: each.against for each in _candidates(now.topology, params, is_lost=is_lost)}
    told = against.get(move.new, ("it does not answer",))
    yield Finding(f"against {move.new}", float(len(told)), "", crit=1, note="; ".join(told), id="against")


def _is_lost(plan: Plan) -> bool:
    return any(each.kind == "fail-over" for each in plan.actions)


def _alive(ctx: Context, seen: Topology, name: str, silence: Seconds) -> str:
    """How one sees that a primary lives, by more than one way; '' where nothing tells so for as long as it is asked. A
    time-out of ours alone is no death: a replica that streams from it has contact."""
    until = ctx.clock.monotonic() + silence
    while True:
        others = {str(ctx.platform.cluster.place(each.name)) for each in seen.standbys}  # a cascade hears from these
        contact = [
            f"{each.name} heard from it {each.heard or 0:.0f} s ago"
            for each in seen.standbys
            if each.has_contact and each.sender not in others
        ]
        if seen.primary is not None and seen.primary.name == name:
            return "it answers us"
        if name in seen.living:
            return f"it answers us, and does not let us in: {seen.silent[name]}"
        if ctx.clock.monotonic() > until:
            return f"{', '.join(contact)}: the cut is between us and it, or it is frozen" if contact else ""
        ctx.clock.sleep(Seconds(0.5))
        seen = api.topology(ctx)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """One takes writes, all others follow it."""
    move = api.rejoin.subject(plan.actions[-1])
    seen = api.topology(ctx)
    now = seen.primary.name if seen.primary else ""
    yield Finding(f"{move.new} is not the primary", float(now != move.new), "", crit=1, note=now or "none answers")
    writes = [each.name for each in seen.others if not each.is_standby]
    yield Finding("others that take writes", float(len(writes)), "", crit=1, note=", ".join(writes))
    left = [each.name for each in seen.standbys if not ctx.platform.cluster.streams(each.name, move.new)]
    note = f"{', '.join(left)}: check replication" if left else ""
    # A primary that was lost cannot be had back because of a replica that has what the new one lacks.
    warn, crit = (1.0, None) if _is_lost(plan) else (None, 1.0)
    yield Finding("replicas that do not follow it", float(len(left)), "", warn, crit, note)


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[Callable[[], Measured]]:
    """Others write; for an unplanned one the primary dies."""
    with lab.under_writes() as measured:
        if params.mode == "unplanned":
            lab.lose_primary()
        yield measured
