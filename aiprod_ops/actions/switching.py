"""Moving the primary: exchanging roles, taking over from one that is lost, bringing the old one back."""

from dataclasses import dataclass

from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Move:
    """From the old primary to the new one; each wait takes no longer than `patience`. `engine` moves it when asked to,
    such as Patroni; '' where we do it ourselves."""

    old: str
    new: str
    patience: Seconds
    engine: str = ""

    def __str__(self) -> str:
        return f"{self.old} to {self.new}"


switch_over = Kind("switch-over", Move)
fail_over = Kind("fail-over", Move)
rejoin = Kind("rejoin", Move)


@switch_over.does
def _switch(ctx: Context, move: Move) -> None:
    ctx.platform.cluster.switch_over(move.old, move.new, move.patience, ctx.report)


@switch_over.is_done
def _is_switched(ctx: Context, move: Move) -> bool | None:
    """None where the new primary does not answer, where both would take writes, or where it may still come."""
    cluster = ctx.platform.cluster
    is_standby = cluster.is_standby(move.new)
    if is_standby is False:
        return True if cluster.is_fenced(move.old) else None
    if not cluster.is_settled(move.old):
        return None
    if is_standby is None:
        # Fenced, and not replaced yet: whoever looks for it finds it stopped.
        return False if cluster.is_standby(move.old) is True else None
    return False


@switch_over.shows
def _show_switch(move: Move) -> str:
    if move.engine:
        return f"ask {move.engine} to switch over from {move.old} to {move.new}, and look until it has"
    return (
        f"checkpoint {move.old}, let the others follow {move.new}, stop {move.old} with all its processes, wait until "
        f"{move.new} has its last record, promote it"
    )


@fail_over.does
def _fail(ctx: Context, move: Move) -> None:
    ctx.platform.cluster.fail_over(move.old, move.new, move.patience, ctx.report)


@fail_over.is_done
def _is_failed(ctx: Context, move: Move) -> bool | None:
    return _is_switched(ctx, move)


@fail_over.shows
def _show_fail(move: Move) -> str:
    if move.engine:
        return f"ask {move.engine} to fail over to {move.new}, once {move.old} surely takes no writes any more"
    return f"kill {move.old} with all its processes, promote {move.new}"


@rejoin.does
def _rejoin(ctx: Context, move: Move) -> None:
    ctx.platform.cluster.rejoin(move.old, move.new, move.patience, ctx.report)


@rejoin.is_done
def _is_back(ctx: Context, move: Move) -> bool:
    return ctx.platform.cluster.streams(move.old, move.new)


@rejoin.shows
def _show_rejoin(move: Move) -> str:
    if move.engine:
        return f"wait until {move.engine} has brought {move.old} back; made anew where it does not start"
    return f"start {move.old} as a standby of {move.new}, rewound or copied where that is needed"
