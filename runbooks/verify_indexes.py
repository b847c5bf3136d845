"""See which indexes are broken, useless or missing, and what else is about to fail in the schema.

Found are indexes that a failed build left INVALID or not ready, with who left them, and what REINDEX and DROP INDEX
left half done; duplicates, exact or as a prefix, DESC or with INCLUDE; indexes that no query used on any node for 30
days; foreign keys without an index on the referencing side; indexes that hold mostly NULLs; bloat; damage; collations
that changed their version; sequences near their end; and constraints that are NOT VALID.

An index is left alone while somebody builds, rebuilds or drops it, and when something other than queries needs it: a
constraint, a foreign key, the replica identity, CLUSTER. Of a pair of duplicates one always stays, and is not called
unused: it takes over the work of the other.

"Unused" is judged over stored snapshots. Each check keeps one, of the primary and of every replica that the target
names. Counters that were reset, a standby that nobody configured, a node that did not answer: then it is UNKNOWN.

Bloat is what `pgstatindex` counts, never an estimate, and a lower bound where updates left duplicates that a rebuild
would merge. Damage is what amcheck's `bt_index_check` says. Both extensions read whole indexes, each at the most
`--read` bytes; what is left out is UNKNOWN. So is everything that the role may not see: `pg_monitor` is enough for
most, `pg_read_all_data` for column statistics and sequences.

Source: PostgreSQL manual, "Routine Reindexing"; CREATE INDEX, "Building Indexes Concurrently"; appendix F, "amcheck",
"pgstattuple".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import Bytes, Catalogue, Context, Finding, Inspection, Moving, Ratio, Seconds, UsageSnapshot


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    window: Seconds = api.promise("indexes.unused_for")  #: an index unused on every node for so long is unused
    bloat: Ratio = api.promise("indexes.bloat")  #: share of an index that a rebuild gives back
    least: Bytes = api.promise("indexes.least_size")  #: smaller indexes are not looked at for bloat and NULLs
    nulls: Ratio = api.promise("indexes.nulls")  #: share of NULLs in the first key
    read: Bytes = api.promise("indexes.read")  #: index pages to read, once for bloat and once for damage
    sequence: Ratio = api.promise("indexes.sequence_warning")  #: share of a sequence, or of its column's type, in use
    sequence_end: Ratio = api.promise("indexes.sequence_critical")  #: the same, before it is critical


@dataclass(frozen=True)
class Facts:
    """What is declared stays; what is counted moves."""

    definitions: dict[str, str]
    is_standby: bool
    catalogue: Moving[Catalogue]
    usage: Moving[tuple[UsageSnapshot, ...]]
    pages: Moving[Inspection]
    checked: Moving[Inspection]


book = api.Runbook(
    params=Params,
    symptom="Writes are slow, disks fill with indexes, or a query answers what it should not",
    risk="moderate",
    owner="database",
    check_every="1 d",
    alerts=("IndexFaults",),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs `pg_monitor`; `pg_read_all_data` for NULLs and sequences; the extensions pgstattuple and amcheck."""
    catalogue = ctx.db.catalogue()
    return Facts(
        catalogue.definitions,
        catalogue.is_standby,
        catalogue,
        api.index_usage(ctx, params.window),
        api.index_bloat(ctx, catalogue, params.least, params.read),
        api.index_damage(ctx, catalogue, params.read),
    )


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """What was looked at, then the faults, the worst first."""
    yield _summary(facts)
    for fault in faults(facts, params):
        yield fault.finding


def faults(facts: Facts, params: Params) -> list[api.Fault]:
    thresholds = api.Thresholds(
        window=params.window,
        bloat=params.bloat,
        least=params.least,
        nulls=params.nulls,
        sequence_warning=params.sequence,
        sequence_critical=params.sequence_end,
    )
    return api.index_faults(facts.catalogue, facts.usage, facts.pages, facts.checked, thresholds)


def _summary(facts: Facts) -> Finding:
    seen = facts.catalogue
    note = (
        f"{len(seen.foreign_keys)} foreign keys, {len(seen.sequences)} sequences; {facts.checked.checked} b-trees "
        f"looked at for damage, {facts.pages.checked} of the larger ones for bloat; "
        f"usage on {len(facts.usage[-1].nodes)} nodes"
    )
    return Finding("indexes checked", float(len(seen.indexes)), note=note, id="indexes")


@book.keep
def keep(facts: Facts, params: Params) -> Mapping[str, Any]:  # noqa: ARG001
    """How often each index was used so far, on every node."""
    return {api.USAGE: facts.usage[-1].kept}
