"""Indexes that hold mostly NULLs: a partial one would hold the few rows that are ever looked for.

Source of the size: rails-pg-extras and heroku-pg-extras, `null_indexes`, look at indexes of 10 MB and more. From 90 %
NULLs on the partial index is at the most a tenth of the full one.
"""

from collections.abc import Iterator

from aiprod_ops.domain.catalogue.faults import Fault, Level
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState, listed
from aiprod_ops.units import Bytes, Ratio, show


def faults(catalogue: Catalogue, share: Ratio, least: Bytes) -> Iterator[Fault]:
    """One for each large full b-tree whose first key is NULL in `share` of the rows; UNKNOWN where nobody can see."""
    asked = [index for index in catalogue.indexes if _is_asked(index, least)]
    blind = [str(index.name) for index in asked if index.leading_nulls is None and index.hides_statistics]
    unread = sorted({str(index.table) for index in asked if not index.hides_statistics and _is_outdated(index)})
    if blind:
        note = (
            f"this role may not read the statistics of the columns of {listed(blind)}: "
            f"`GRANT pg_read_all_data TO {catalogue.role}`"
        )
        yield Fault("mostly-null", "privilege", Level.UNKNOWN, note)
    if unread:
        tables = " ".join(f"`ANALYZE {table}`" for table in unread[:5])
        note = f"{listed(unread)} have no statistics, or most rows were written after them: {tables}"
        yield Fault("mostly-null", "statistics", Level.UNKNOWN, note)
    for index in asked:
        if index.leading_nulls is not None and not _is_outdated(index) and index.leading_nulls >= share:
            yield _fault(index, index.leading_nulls)


def _is_asked(index: IndexState, least: Bytes) -> bool:
    """GIN, GiST and BRIN keep NULLs in little space, hash not at all; what a constraint needs cannot be partial."""
    return (
        index.method == "btree"
        and index.is_usable
        and not (index.predicate or index.is_needed or index.is_partitioned or index.nulls_not_distinct)
        and index.size >= least
    )


def _is_outdated(index: IndexState) -> bool:
    """Autovacuum analyses after a tenth of the rows (autovacuum_analyze_scale_factor): half of them is far behind."""
    return index.leading_nulls is None or index.changed > 0.5


def _fault(index: IndexState, nulls: float) -> Fault:
    key = index.keys[0].column
    note = (
        f"{key} is NULL in {show(nulls, 'ratio')} of the rows, {show(index.size, 'B')} mostly hold nothing; "
        f"a partial index (… `WHERE {key} IS NOT NULL`) would be about {show(index.size * (1 - nulls), 'B')}. It does "
        f"not serve `{key} IS NULL`, and a generic plan can use it only where the comparison itself excludes NULL; "
        "build it beside this one, compare, then drop this one"
    )
    return Fault("mostly-null", str(index.name), Level.WARNING, note)
