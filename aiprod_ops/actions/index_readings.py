"""What a check of indexes reads beyond the catalogue: scans on every node and their history, pages of b-trees."""

from dataclasses import replace
from datetime import timedelta

import msgspec

from aiprod_ops.domain.catalogue import bloat, damage
from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.catalogue.inspections import Inspection, within
from aiprod_ops.domain.catalogue.usage import NodeUsage, UsageSnapshot
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import OpsError
from aiprod_ops.units import Bytes, Seconds, seconds

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
            unread[name] = f"{error.message} {error.hint}".strip()
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
    return _with_copy(ctx, read, _BLOAT)


def index_damage(ctx: Context, catalogue: Catalogue, budget: Bytes) -> Inspection:
    """What amcheck finds in the b-trees, small ones first, within a budget of bytes."""
    if catalogue.amcheck.missing:
        return Inspection()
    chosen, left_out = within(damage.order(catalogue.indexes), budget)
    ctx.report(f"looking for damage in {len(chosen)} indexes")
    read = replace(ctx.db.damage([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))
    return _with_copy(ctx, read, _DAMAGE)


def read_copy(ctx: Context, least: Bytes) -> None:
    """Read all indexes of a copy, whatever their size, and keep what was seen for the checks that may not read so much.

    A copy is made page by page: what is bloated or damaged there is so on the target.
    """
    catalogue, now = ctx.db.catalogue(), ctx.clock.now()
    for name, read in (
        (_BLOAT, index_bloat(ctx, catalogue, least, _ALL)),
        (_DAMAGE, index_damage(ctx, catalogue, _ALL)),
    ):
        ctx.history.keep(name, now, read)


def _with_copy(ctx: Context, read: Inspection, name: str) -> Inspection:
    """With what a copy told of the indexes that were left out, where that is not older than a proof may be."""
    last = ctx.history.last(name) if read.left_out else None
    if last is None or ctx.clock.now() - last.taken > timedelta(seconds=seconds(ctx.promises.get("evidence.max_age"))):
        return read
    known: Inspection = msgspec.convert(last.value, Inspection)
    unknown = {*known.left_out, *(trouble.index for trouble in known.troubles if not trouble.is_damage)}
    left = {name for name in read.left_out if name not in unknown}
    return replace(
        read,
        trees={**{key: tree for key, tree in known.trees.items() if key in {str(name) for name in left}}, **read.trees},
        troubles=(*read.troubles, *(each for each in known.troubles if each.index in left)),
        left_out=tuple(name for name in read.left_out if name not in left),
    )
