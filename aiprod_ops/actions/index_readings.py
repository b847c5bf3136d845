"""What a check of indexes reads beyond the catalogue: scans on every node and their history, pages of b-trees."""

from dataclasses import replace
from datetime import timedelta

import msgspec

from aiprod_ops.actions.index_builds import LONGEST, index_size
from aiprod_ops.domain.catalogue import bloat, damage
from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.catalogue.inspections import Inspection, within
from aiprod_ops.domain.catalogue.usage import NodeUsage, UsageSnapshot
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed, OpsError
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, Ratio, Seconds, seconds

USAGE = "index-usage"  #: the name of the snapshots in the target's history
_BLOAT, _DAMAGE = "bloat-on-copy", "damage-on-copy"
_ALL = Bytes(1 << 62)


def index_usage(ctx: Context, window: Seconds) -> tuple[UsageSnapshot, ...]:
    """The stored snapshots that the window needs, oldest first, and the one of now. A replica that cannot be read is
    named in it, with the reason."""
    now = ctx.clock.now()
    nodes: dict[str, NodeUsage] = {ctx.target.name: ctx.db.index_usage()}
    unread: dict[str, str] = {}
    for name, replica in ctx.replicas.items():
        try:
            nodes[name] = replica.index_usage()
        except OpsError as error:
            unread[name] = error.told
    stored = ctx.history.all(USAGE, since=now - timedelta(seconds=window))
    former = (msgspec.convert(snapshot.value, UsageSnapshot) for snapshot in stored)
    return (*former, UsageSnapshot(now, nodes, unread))


def index_bloat(ctx: Context, catalogue: Catalogue, least: Bytes, budget: Bytes) -> Inspection:
    """What pgstatindex counts in the larger b-trees, the most suspicious first, within a budget of bytes."""
    if catalogue.pgstattuple.missing:
        return Inspection()
    chosen, left_out = within(bloat.order(catalogue.indexes, least), budget)
    ctx.report(f"reading {len(chosen)} indexes for bloat")
    read = replace(ctx.db.bloat([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))
    known = _of_copy(ctx, _BLOAT)
    return bloat.known_from_copy(_with_copy(read, known), known) if known else read


def index_damage(ctx: Context, catalogue: Catalogue, budget: Bytes) -> Inspection:
    """What amcheck finds in the b-trees, small ones first, within a budget of bytes."""
    if catalogue.amcheck.missing:
        return Inspection()
    chosen, left_out = within(damage.order(catalogue.indexes), budget)
    ctx.report(f"looking for damage in {len(chosen)} indexes")
    read = replace(ctx.db.damage([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))
    known = _of_copy(ctx, _DAMAGE) if read.left_out else None
    return _with_copy(read, known) if known else read


def read_copy(ctx: Context, least: Bytes, share: Ratio) -> None:
    """Read all indexes of a copy, whatever their size, and keep what was seen for the checks that may not read so much.

    A copy is made page by page: what is bloated or damaged there is so on the target. Where the count of bloat is only
    a lower bound of `share`, a rebuild tells, and is taken back.
    """
    catalogue, now = ctx.db.catalogue(), ctx.clock.now()
    read = index_bloat(ctx, catalogue, least, _ALL)
    tried = {}
    for index in bloat.doubtful(catalogue.indexes, read, share):
        ctx.report(f"rebuilding {index.name} to see what that gives back")
        tried[str(index.name)] = replace(read.trees[str(index.name)], rebuilt=_rebuilt(ctx.db, index.name))
    ctx.history.keep(_BLOAT, now, replace(read, trees=read.trees | tried))
    ctx.history.keep(_DAMAGE, now, index_damage(ctx, catalogue, _ALL))


def _rebuilt(database: Database, name: Name) -> Bytes | None:
    """The size of an index after a rebuild, which is rolled back; None where it fails."""
    database.query("begin")
    try:
        database.execute("reindex index {index}", names={"index": name}, timeout=LONGEST)
        return index_size(database, name)
    except Failed:
        return None
    finally:
        database.query("rollback")


def _of_copy(ctx: Context, name: str) -> Inspection | None:
    """What a copy told, where that is not older than a proof may be."""
    last = ctx.history.last(name)
    if last is None or ctx.clock.now() - last.taken > timedelta(seconds=seconds(ctx.promises.get("evidence.max_age"))):
        return None
    return msgspec.convert(last.value, Inspection)


def _with_copy(read: Inspection, known: Inspection) -> Inspection:
    """With what a copy told of the indexes that were left out."""
    unknown = {*known.left_out, *(trouble.index for trouble in known.troubles if not trouble.is_damage)}
    left = {name for name in read.left_out if name not in unknown}
    return replace(
        read,
        trees={**{key: tree for key, tree in known.trees.items() if key in {str(name) for name in left}}, **read.trees},
        troubles=(*read.troubles, *(each for each in known.troubles if each.index in left)),
        left_out=tuple(name for name in read.left_out if name not in left),
    )
