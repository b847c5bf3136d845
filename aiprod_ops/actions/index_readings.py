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
from aiprod_ops.units import Bytes, Seconds

USAGE = "index-usage"  #: the name of the snapshots in the target's history


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
    return replace(ctx.db.bloat([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))


def index_damage(ctx: Context, catalogue: Catalogue, budget: Bytes) -> Inspection:
    """What amcheck finds in the b-trees, small ones first, within a budget of bytes."""
    if catalogue.amcheck.missing:
        return Inspection()
    chosen, left_out = within(damage.order(catalogue.indexes), budget)
    ctx.report(f"looking for damage in {len(chosen)} indexes")
    return replace(ctx.db.damage([index.name for index in chosen]), left_out=tuple(index.name for index in left_out))
