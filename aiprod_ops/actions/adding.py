"""One more replica, and taking it back: only what the same run made."""

from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.errors import Refused
from aiprod_ops.ports import NewReplica

add_replica = Kind("add-replica", NewReplica)
remove_replica = Kind("remove-replica", NewReplica)


@add_replica.does
def _add(ctx: Context, new: NewReplica) -> None:
    ctx.platform.cluster.add(new, ctx.run, ctx.report)


@add_replica.is_done
def _is_added(ctx: Context, new: NewReplica) -> bool:
    """Raises Refused where somebody else made one of that name meanwhile."""
    cluster = ctx.platform.cluster
    maker = cluster.maker(new.name)
    if ctx.run and maker not in (None, ctx.run):
        raise Refused(f"{new.name} is there, and was made by {maker or 'somebody else'}")
    return maker is not None and cluster.streams(new.name, new.primary)


@add_replica.shows
def _show_add(new: NewReplica) -> str:
    told = ", ".join(f"{what} {value}" for what in ("tier", "region", "zone") if (value := getattr(new, what)))
    return f"make {new.name} of {new.primary}{f' ({told})' if told else ''}, and wait until it streams"


@remove_replica.needs
def _refuse_needed(ctx: Context, new: NewReplica) -> None:
    cluster = ctx.platform.cluster
    if cluster.maker(new.name) == ctx.run and (needed := cluster.needed(new.name)):
        raise Refused(f"{new.name} is not removed: {needed}")


@remove_replica.does
def _remove(ctx: Context, new: NewReplica) -> None:
    ctx.platform.cluster.remove(new.name, ctx.run, ctx.report)


@remove_replica.is_done
def _is_removed(ctx: Context, new: NewReplica) -> bool:
    return ctx.platform.cluster.maker(new.name) != ctx.run


@remove_replica.shows
def _show_removing(new: NewReplica) -> str:
    return f"remove {new.name} with its slot, if this run made it, it takes no writes and nobody follows it"
