"""All that is wrong with a database's indexes, sequences and constraints, from what was read of them."""

from collections.abc import Collection, Iterable, Sequence

from aiprod_ops.domain.catalogue import (
    bloat,
    collations,
    constraints,
    damage,
    duplicates,
    foreign_keys,
    nulls,
    remains,
    sequences,
    usage,
)
from aiprod_ops.domain.catalogue.faults import Fault, Level
from aiprod_ops.domain.catalogue.indexes import Catalogue, Thresholds
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.usage import UsageSnapshot
from aiprod_ops.domain.schema import Name

_ORDER = {Level.CRITICAL: 0, Level.WARNING: 1, Level.UNKNOWN: 2}


def faults(
    catalogue: Catalogue,
    snapshots: Sequence[UsageSnapshot],
    read: Inspection,
    checked: Inspection,
    thresholds: Thresholds,
    declared: Collection[Name] = (),
) -> list[Fault]:
    """In order. `snapshots` are oldest first, the last one of now; `read` is what pgstatindex told, `checked` what
    amcheck did; `declared` are the indexes that the migrations know."""
    found = [
        *remains.faults(catalogue),
        *duplicates.faults(catalogue.indexes, declared),
        *usage.faults(catalogue, snapshots, thresholds.window),
        *foreign_keys.faults(catalogue.foreign_keys, catalogue.indexes),
        *nulls.faults(catalogue, thresholds.nulls, thresholds.least),
        *bloat.faults(catalogue, read, thresholds.bloat, thresholds.least),
        *damage.faults(catalogue, checked, read),
        *collations.faults(catalogue),
        *sequences.faults(catalogue, thresholds.sequence_warning, thresholds.sequence_critical),
        *constraints.faults(catalogue.unvalidated),
        *_blind(catalogue),
    ]
    return ordered(found)


def ordered(found: Iterable[Fault]) -> list[Fault]:
    """The worst first, then by kind and subject: the same faults always stand in the same order."""
    return sorted(found, key=lambda fault: (_ORDER[fault.level], fault.kind, fault.subject))


def _blind(catalogue: Catalogue) -> list[Fault]:
    """Without the statistics of others' sessions builds in progress and standbys cannot be seen."""
    if catalogue.reads_statistics:
        return []
    note = f"this role sees neither builds in progress nor standbys: `GRANT pg_monitor TO {catalogue.role}`"
    return [Fault("statistics", "privilege", Level.UNKNOWN, note)]
