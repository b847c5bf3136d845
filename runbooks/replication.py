"""Do the replicas follow, and can the primary bear them?

This asks the target and each of its `replicas`: how far behind each one is in bytes and in seconds, whether it streams,
whether its replay is paused, whether it has a setting lower than the primary's (then it stops one day); timelines and
systems that went two ways; a second server that takes writes; WAL that a slot keeps against the room on the primary's
disk; queries that the replay cancelled since the last check.

A replica that does not answer from here but that the primary still streams to is UNKNOWN, not missing: the cut may be
between us and it. Nothing here asks for more than `pg_monitor`.

Source: PostgreSQL manual, "Hot Standby", "Monitoring Replication", "Replication Slots".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import Bytes, Context, Finding, Moving, Seconds, Topology


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    lag: Seconds = api.promise("replication.lag")  #: a replica may be so far behind; ten times that is critical
    retained: Bytes = api.promise("replication.retained")  #: a slot may keep so much WAL; twice that is critical


@dataclass(frozen=True)
class Facts:
    """What there is now, and the cancelled queries that the last check saw."""

    topology: Moving[Topology]
    conflicts: Moving[Mapping[str, int] | None]


book = api.Runbook(
    params=Params,
    symptom="Reads are stale, or the disk of the primary fills with WAL",
    risk="low",
    owner="database",
    check_every="5 min",
    alerts=("ReplicationNotAsPromised",),
)

_KEPT = "replication-conflicts"


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs pg_monitor on every node."""
    last = ctx.history.last(_KEPT)
    return Facts(api.topology(ctx), dict(last.value) if last else None)


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """Each node, then each slot."""
    yield from api.judge_replication(
        facts.topology, api.ReplicationLimits(params.lag, params.retained), facts.conflicts
    )


@book.keep
def keep(facts: Facts, params: Params) -> Mapping[str, Any]:  # noqa: ARG001
    """Cancelled queries so far, by node."""
    return {_KEPT: {each.name: each.conflicts for each in facts.topology.standbys}}
