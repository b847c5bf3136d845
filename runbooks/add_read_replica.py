"""Make one more read replica.

On one's own machine it is a server that the configuration declares (`[targets.TARGET.servers.NAME]`) and whose data
directory is empty, or not there yet: its slot is made, a base backup is taken with what its `upstream` names, it gets
its own port, sockets and log, and is started. The copy grows beside its place and is moved there when it is whole.

On Cloud SQL it is an instance: as large as its primary and in its region, unless `--tier`, `--region` or `--zone` say
otherwise. It bears the run as a label, and is not protected from deletion.

Nothing is begun where something would make it fail: a directory that is not empty, a port that is taken, too little
room on its disk, too few `max_wal_senders` or `max_replication_slots` on the primary, settings that would be lower than
those that the primary runs with. In the end it has to stream, with its lag under what is promised; where it does not it
is removed again, as `rollback` does it: only what the run made, and never one that takes writes by now, or that others
follow. The server's log stays.

The base backup reads the primary once.

Source: PostgreSQL manual, pg_basebackup, "Hot Standby"; Cloud SQL, "Create read replicas".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Context, Finding, Moving, NewReplica, Plan, Refused, Seconds, UsageError


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    name: str = ""  #: of the new replica; by default the one that is declared and not made yet
    tier: str = ""  #: its machine (Cloud SQL); the primary's by default
    region: str = ""  #: of Cloud SQL; the primary's by default
    zone: str = ""  #: of Cloud SQL; Google chooses by default
    patience: Seconds = Seconds(300)  #: for it to stream, when it is made
    lag: Seconds = api.promise("replication.lag")  #: it may be so far behind in the end


@dataclass(frozen=True)
class Facts:
    """The primary, the replica that is wanted, whether one of that name is there; `against` is what hinders it.
    `unmade` are declared and have no files; where members are not declared, each has to be named."""

    primary: str
    name: str
    is_there: bool
    unmade: tuple[str, ...]
    is_declared: bool
    against: Moving[tuple[str, ...]]
    replicas: Moving[tuple[str, ...]]


book = api.Runbook(
    params=Params,
    symptom="The replicas are too few for the reads, or for the loss of one",
    risk="moderate",
    owner="database",
    actions=(api.add_replica, api.remove_replica),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs pg_monitor on every node."""
    seen, cluster = api.topology(ctx), ctx.platform.cluster
    primary = seen.primary.name if seen.primary else ""
    known = {primary, *(each.name for each in seen.others)}
    unmade = [name for name in cluster.names if name in seen.silent and cluster.maker(name) is None]
    name = params.name or (unmade[0] if len(unmade) == 1 else "")
    is_there = bool(name) and (name in known or cluster.maker(name) is not None)
    against = cluster.hinders(_wanted(primary, name, params)) if primary and name and name not in known else ()
    is_declared = ctx.target.platform != "cloudsql"
    return Facts(
        primary, name, is_there, tuple(unmade), is_declared, against, tuple(each.name for each in seen.standbys)
    )


def _wanted(primary: str, name: str, params: Params) -> NewReplica:
    return NewReplica(name, primary, params.patience, params.tier, params.region, params.zone)


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """Who is there, and what hinders one more."""
    if not facts.primary:
        yield Finding("primary", None, note="none answers: check fail-over-replica", id="primary")
        return
    yield Finding("replicas", float(len(facts.replicas)), "", note=", ".join(facts.replicas), id="replicas")
    if facts.against:
        note = "; ".join(facts.against)
        yield Finding(f"against {facts.name}", float(len(facts.against)), "", crit=1, note=note, id="against")
    elif not facts.name:
        yield Finding("replicas wanted", 0.0, "", note="none is named: --name NAME", id="wanted")
    else:
        note = f"{facts.name} is there" if facts.is_there else f"{facts.name} can be made"
        yield Finding("replicas wanted", float(not facts.is_there), "", note=note, id="wanted")


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """One replica. Raises Refused with what hinders it, and UsageError where none is named."""
    if not facts.primary:
        raise Refused("no primary answers", hint="aiprod-ops check fail-over-replica")
    if not facts.name and len(facts.unmade) != 0:
        raise UsageError(f"which replica? There are: {', '.join(facts.unmade)}", hint="--name NAME")
    if not facts.name and not facts.is_declared:
        raise UsageError("which replica? Its instance has to be named", hint="--name NAME")
    if facts.against:
        raise Refused(f"{facts.name} cannot be made: {'; '.join(facts.against)}")
    if facts.name and not facts.is_there:
        new = _wanted(facts.primary, facts.name, params)
        yield api.add_replica(new, undo=api.remove_replica(new), timeout=api.LONGEST)


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """Read again: the primary is who it was, and nothing hinders."""
    new, seen = api.add_replica.subject(plan.actions[0]), api.topology(ctx)
    now = seen.primary.name if seen.primary else "none"
    yield Finding("another primary than planned", float(now != new.primary), "", crit=1, note=now, id="moved")
    if now == new.primary:
        told = ctx.platform.cluster.hinders(new)
        yield Finding(f"against {new}", float(len(told)), "", crit=1, note="; ".join(told), id="against")


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """It streams, its lag is under the limit, and no setting of it is lower."""
    new = api.add_replica.subject(plan.actions[0])
    is_known = new.name in ctx.nodes  # before all are asked: it is new
    seen = api.topology(ctx)
    streams = ctx.platform.cluster.streams(new.name, new.primary)
    yield Finding(f"{new} does not stream from {new.primary}", float(not streams), "", crit=1)
    node = next((each for each in seen.standbys if each.name == new.name), None)
    if node is None or seen.primary is None:
        told = seen.silent.get(new.name, "it does not answer") if is_known else "the platform does not name it"
        yield Finding(f"lag of {new}", None, "s", note=told)
        return
    lag = node.silent if seen.behind(node) else Seconds(0)
    yield Finding(f"lag of {new}", lag, "s", crit=params.lag)
    lower = api.lower_settings(seen.primary, node)
    yield Finding(f"settings of {new} lower than the primary's", float(len(lower)), "", crit=1, note=", ".join(lower))
