"""Move the primary to the standby that its platform keeps in another zone.

On Cloud SQL an instance of the availability type REGIONAL: its disk is written in two zones, and a failover ends its
sessions and starts it in the other zone on the same disk. Nothing that was acknowledged is lost, the address stays, and
so do its replicas. Writes stop for about a minute at Google. Google does that by itself when a zone is lost; do it by
hand to see that the service survives it, or to leave a zone that is ill.

A region that is lost takes both zones with it: then a replica elsewhere has to take over (`fail-over-replica`).

Source: Cloud SQL, "Overview of high availability", "Initiate failover".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Context, Finding, Moving, Plan, Unreachable, Zoned


@dataclass(frozen=True)
class Facts:
    """Where it runs; `silence` is why it does not answer."""

    zoned: Zoned | None
    silence: Moving[str]


book = api.Runbook(
    symptom="The zone of the primary is ill, or is to be left",
    risk="severe",
    owner="database",
    actions=(api.fail_over_zone,),
    without_primary=True,
)


@book.facts
def facts(ctx: Context, params: api.NoParams) -> Facts:  # noqa: ARG001
    """Needs to see instances at the platform."""
    zones = ctx.platform.zones
    if zones is None:
        return Facts(None, "")
    zoned = zones.where()
    return Facts(zoned, _silence(ctx, zoned.instance) if zoned else "")


def _silence(ctx: Context, instance: str) -> str:
    try:
        ctx.nodes[instance].server()
    except Unreachable as error:
        return error.message
    return ""


@book.judge
def judge(facts: Facts, params: api.NoParams) -> Iterator[Finding]:  # noqa: ARG001
    """Whether there is another zone, and whether it is needed."""
    zoned = facts.zoned
    note = f"{zoned.instance} runs in {zoned.zone}, its standby is in {zoned.standby}" if zoned else "none is kept"
    yield Finding("standbys in another zone", float(zoned is not None), "", note=note, id="standby")
    if zoned:
        yield Finding("the primary does not answer", float(bool(facts.silence)), "", crit=1, note=facts.silence)


@book.plan
def plan(facts: Facts, params: api.NoParams) -> Iterator[api.Action]:  # noqa: ARG001
    """There; taken back, it is another failover."""
    if facts.zoned:
        back = api.fail_over_zone(facts.zoned.swapped)
        yield api.fail_over_zone(facts.zoned, undo=back, lock="all sessions end; no writes for about a minute")


@book.verify
def verify(ctx: Context, plan: Plan, params: api.NoParams) -> Iterator[Finding]:  # noqa: ARG001
    """It runs there, answers, and takes writes."""
    (action,) = plan.actions
    zoned = api.fail_over_zone.subject(action)
    now = ctx.platform.zones.where(zoned.instance) if ctx.platform.zones else None
    where = now.zone if now else "nobody tells where"
    yield Finding(f"{zoned.instance} is not in {zoned.standby}", float(now != zoned.swapped), "", crit=1, note=where)
    server = ctx.nodes[zoned.instance].server()
    yield Finding("it takes no writes", float(server.is_standby), "", crit=1, note="it is in recovery")
