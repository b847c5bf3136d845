"""Moving the primary: exchanging roles, taking over from one that is lost, bringing the old one back; or to a standby
in another zone that the platform keeps by itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from aiprod_ops.domain.failover import Loss
from aiprod_ops.domain.replication import Node, Topology
from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.errors import ConfigurationError, Refused
from aiprod_ops.ports import Cluster, Endpoint, Zoned, Zones
from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Move:
    """From the old primary to the new one; each wait takes no longer than `patience`."""

    old: str
    new: str
    patience: Seconds

    def __str__(self) -> str:
        return f"{self.old} to {self.new}"


@dataclass(frozen=True, slots=True)
class Takeover(Move):
    """A move from a primary that is lost; no more than this may be lost with it."""

    loss: Loss

    def __str__(self) -> str:
        return f"{self.old} to {self.new}"


switch_over = Kind("switch-over", Move)
fail_over = Kind("fail-over", Takeover)
rejoin = Kind("rejoin", Move)
rejoin_first = Kind("rejoin-first", Move)
repoint = Kind("repoint", Move)
switch_back = Kind("switch-back", Move)


@switch_over.does
def _switch(ctx: Context, move: Move) -> None:
    ctx.platform.cluster.switch_over(move.old, move.new, move.patience, ctx.report)


@switch_over.is_done
def _is_switched(ctx: Context, move: Move) -> bool | None:
    """None where the new primary does not answer, or where both would take writes."""
    cluster = ctx.platform.cluster
    is_standby = cluster.is_standby(move.new)
    if is_standby is None:
        # Fenced, and not replaced yet: whoever looks for it finds it stopped. One that died is started again.
        is_open = cluster.is_standby(move.old) is True or (cluster.is_fenced(move.old) and cluster.is_down(move.new))
        return False if is_open else None
    if is_standby:
        return False
    return True if cluster.is_fenced(move.old) else None


@switch_over.shows
def _show_switch(move: Move) -> str:
    return (
        f"let the others follow {move.new}, stop {move.old} with all its processes, wait until {move.new} has its last "
        "record, promote it"
    )


@switch_back.does
def _switch_back(ctx: Context, move: Move) -> None:
    """All of it: nothing comes after an undo that could bring the other one back."""
    _switch(ctx, move)
    _rejoin(ctx, move)


@switch_back.is_done
def _is_switched_back(ctx: Context, move: Move) -> bool | None:
    return _is_switched(ctx, move) and _is_back(ctx, move)


@switch_back.shows
def _show_switch_back(move: Move) -> str:
    return f"{_show_switch(move)}; {_show_rejoin(move)}"


@fail_over.does
def _fail(ctx: Context, move: Takeover) -> None:
    ctx.platform.cluster.fail_over(move.old, move.new, move.patience, ctx.report)


@fail_over.is_done
def _is_failed(ctx: Context, move: Takeover) -> bool | None:
    return _is_switched(ctx, move)


@fail_over.shows
def _show_fail(move: Takeover) -> str:
    return f"make sure that nothing of {move.old} is alive, promote {move.new}; lost: {move.loss}"


@rejoin.does
def _rejoin(ctx: Context, move: Move) -> None:
    ctx.platform.cluster.rejoin(move.old, move.new, move.patience, ctx.report)


@rejoin.is_done
def _is_back(ctx: Context, move: Move) -> bool:
    return ctx.platform.cluster.streams(move.old, move.new)


@rejoin.shows
def _show_rejoin(move: Move) -> str:
    return f"bring {move.old} back as a standby of {move.new}, rewound or copied where that is needed"


@rejoin_first.does
def _rejoin_first(ctx: Context, move: Move) -> None:
    _rejoin(ctx, move)


@rejoin_first.is_done
def _was_back(ctx: Context, move: Move) -> bool:
    """Also when the role went back to it: then it had come back before."""
    cluster = ctx.platform.cluster
    return _is_back(ctx, move) or (cluster.is_standby(move.old) is False and cluster.is_fenced(move.new))


@rejoin_first.shows
def _show_rejoin_first(move: Move) -> str:
    return f"see that {move.old} follows {move.new}, before it takes its place again"


def barred(ctx: Context, seen: Topology) -> Topology:
    """With what the platform has against promoting each standby. Where none can be moved at all nothing is known
    against one: it is refused later, with what the configuration lacks."""
    try:
        cluster = ctx.platform.cluster
    except ConfigurationError:
        return seen
    return replace(seen, barred={each.name: tuple(_against(cluster, seen, each)) for each in seen.standbys})


def _against(cluster: Cluster, seen: Topology, standby: Node) -> Iterator[str]:
    yield from cluster.against(standby.name)
    if seen.primary is None:  # which would tell it itself
        for name, least in cluster.needs(standby.name).items():
            if standby.settings.get(name, least) < least:
                yield f"it has a lower setting: {name} {standby.settings[name]} < {least}: raise it there, restart it"


def _zones(ctx: Context) -> Zones:
    if ctx.platform.zones is None:
        raise Refused("the platform keeps no standby in another zone")
    return ctx.platform.zones


fail_over_zone = Kind("fail-over-zone", Zoned)


@fail_over_zone.does
def _fail_zone(ctx: Context, zoned: Zoned) -> None:
    _zones(ctx).fail_over(zoned, ctx.report)


@fail_over_zone.is_done
def _is_in_zone(ctx: Context, zoned: Zoned) -> bool | None:
    """None where it is in neither zone."""
    return {zoned: False, zoned.swapped: True}.get(_zones(ctx).where(zoned.instance) or Zoned("", "", ""))


@fail_over_zone.shows
def _show_zone(zoned: Zoned) -> str:
    return f"end all sessions of {zoned.instance} in {zoned.zone}, and start it in {zoned.standby} on the same disk"


def _endpoint(ctx: Context) -> Endpoint:
    if ctx.endpoint is None:
        raise Refused("the configuration names no write endpoint any more", hint="[targets.NAME.writes]")
    return ctx.endpoint


@repoint.does
def _repoint(ctx: Context, move: Move) -> None:
    _endpoint(ctx).lead(move.new, ctx.platform.cluster.place(move.new))


@repoint.is_done
def _is_repointed(ctx: Context, move: Move) -> bool:
    return _endpoint(ctx).shown() == str(ctx.platform.cluster.place(move.new))


@repoint.shows
def _show_repoint(move: Move) -> str:
    return f"let the application's way to the primary lead to {move.new}"
