"""Bring a replica back that does not follow its primary: as it is, rewound, or copied anew.

A replica stops for good when its timeline forked off (it has what the primary lacks: another was promoted), when the
WAL that it needs is gone (its slot is `lost`, or it never had one), or when its files are damaged. Each is tried from
the gentlest on, and nothing is tried twice: pointed at the primary; `pg_rewind`; a new base backup, with the old files
kept beside as `NAME.before-PRIMARY` for whoever wants to look at them.

One that is declared and was never made is left to `add-read-replica`.

Production loses no more than the reads that this replica served, and a base backup reads the primary once.

Source: PostgreSQL manual, pg_rewind, pg_basebackup, "Replication Slots".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Bytes, Context, Finding, Moving, Plan, Refused, Seconds, SwitchMove, Topology, UsageError

_WRITES = "it takes writes of its own"
_TO_SAY = "which of two histories is the right one, a person has to say: stop the wrong one, then look again"


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    replica: str = ""  #: the one to bring back; all that do not follow by default
    patience: Seconds = Seconds(60)  #: for each way, until it streams


@dataclass(frozen=True)
class Facts:
    """The primary, and the members that do not follow it, each with the reason."""

    primary: str
    left: dict[str, str]
    gone: tuple[str, ...]  #: without any files
    names: tuple[str, ...]
    topology: Moving[Topology]


book = api.Runbook(
    params=Params,
    symptom="A replica does not follow its primary any more",
    risk="moderate",
    owner="database",
    actions=(api.rejoin,),
    without_primary=True,
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs pg_monitor on every node."""
    seen = api.topology(ctx)
    cluster = ctx.platform.cluster
    if seen.primary is None:
        return Facts("", {}, (), cluster.names, seen)
    primary = seen.primary
    silent = [name for name in cluster.names if name in seen.silent]
    left = {name: "it does not answer" for name in silent if cluster.maker(name) is not None}
    for each in seen.others:
        if not each.is_standby:
            left[each.name] = _WRITES
        elif each.timeline != primary.timeline:
            left[each.name] = f"it is on timeline {each.timeline}, the primary on {primary.timeline}"
        elif each.name in seen.forked:
            left[each.name] = seen.forked[each.name]
        elif not each.sender:
            left[each.name] = "it does not stream"
    gone = tuple(name for name in silent if cluster.maker(name) is None)
    return Facts(primary.name, dict(sorted(left.items())), gone, cluster.names, seen)


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """Each member that does not follow."""
    if not facts.primary:
        note = "; ".join(facts.topology.silent.values())
        yield Finding("primary", None, note=f"none answers: {note}: check fail-over-replica", id="primary")
        return
    if params.replica and params.replica not in facts.names:
        note = f"there are: {', '.join(facts.names)}"
        yield Finding(f"no replica {params.replica}", 1.0, "", crit=1, note=note, id="replica")
    note = "; ".join(f"{name}: {why}" for name, why in facts.left.items())
    yield Finding("replicas that do not follow", float(len(facts.left)), "", crit=1, note=note, id="left")
    note = f"{', '.join(facts.gone)}: aiprod-ops plan add-read-replica" if facts.gone else ""
    yield Finding("replicas without files", float(len(facts.gone)), "", warn=1, note=note, id="gone")
    keeps = Bytes(sum(each.retained for each in facts.topology.slots if not each.is_active))
    yield Finding("WAL kept for them on the primary", float(keeps), "B", id="kept")


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """Each that does not follow and does not take writes itself: which of two histories is the right one, a person
    has to say (`fail-over-replica`)."""
    if params.replica and params.replica not in facts.names:
        raise UsageError(f"there is no replica {params.replica}", hint=f"there are: {', '.join(facts.names)}")
    if facts.left.get(params.replica) == _WRITES or set(facts.left.values()) == {_WRITES}:
        raise Refused(f"{params.replica or ', '.join(facts.left)} takes writes of its own", hint=_TO_SAY)
    for name, why in facts.left.items():
        if params.replica in ("", name) and why != _WRITES:
            move = SwitchMove(name, facts.primary, params.patience)
            yield api.rejoin(move, name=name, irreversible="its files are replaced; the old ones stay beside them")


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """The primary is who it was, and none of them takes writes."""
    seen = api.topology(ctx)
    now = seen.primary.name if seen.primary else "none"
    moves = [api.rejoin.subject(action) for action in plan.actions]
    yield Finding("another primary than planned", float(any(now != each.new for each in moves)), "", crit=1, note=now)
    writes = [each.name for each in seen.others if not each.is_standby]
    bad = sorted({each.old for each in moves} & {*writes, now})
    yield Finding("members that take writes", float(len(bad)), "", crit=1, note=", ".join(bad), id="writes")


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """All of them stream."""
    moves = [api.rejoin.subject(action) for action in plan.actions]
    left = [each.old for each in moves if not ctx.platform.cluster.streams(each.old, each.new)]
    yield Finding("replicas that do not follow", float(len(left)), "", crit=1, note=", ".join(left))
