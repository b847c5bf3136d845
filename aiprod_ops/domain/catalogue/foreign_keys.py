"""Foreign keys whose referencing columns no index leads with: each delete on the other side reads the whole table.

Source: PostgreSQL manual, "Foreign Keys": it is often a good idea to index the referencing columns too.
"""

from collections.abc import Iterable, Iterator

from aiprod_ops.domain.catalogue.faults import Build, Fault, Level
from aiprod_ops.domain.catalogue.indexes import ForeignKey, IndexState
from aiprod_ops.domain.schema import Key, Name


def faults(foreign_keys: Iterable[ForeignKey], indexes: Iterable[IndexState]) -> Iterator[Fault]:
    """One for each foreign key without an index. One that is being built just now counts as there."""
    tables: dict[Name, list[IndexState]] = {}
    for index in indexes:
        tables.setdefault(index.table, []).append(index)
    seen: set[tuple[Name, tuple[str, ...]]] = set()
    for key in sorted(foreign_keys, key=lambda each: (each.table, each.name)):
        wanted = (key.table, tuple(sorted(key.columns)))
        if _is_served(key, tables) or wanted in seen:
            continue
        seen.add(wanted)
        yield _fault(key)


def serving(key: ForeignKey, indexes: Iterable[IndexState]) -> list[IndexState]:
    """The indexes of the referencing table that find the rows of a referenced one."""
    return [index for index in indexes if index.table == key.table and serves(index, key)]


def serves(index: IndexState, key: ForeignKey) -> bool:
    """Whether its leading keys are the foreign key's columns, in any order.

    The lookup compares with `=`, which is strict: a predicate `column IS NOT NULL` is proven by it, no other one is.
    Source: PostgreSQL manual, "Partial Indexes"; ri_triggers.c.
    """
    if not (index.is_usable or index.building) or index.method not in ("btree", "hash"):
        return False
    if index.predicate and index.predicate not in _not_null(key.columns):
        return False
    lead = index.keys[: len(key.columns)]
    return not any(each.is_expression for each in lead) and {each.column for each in lead} == set(key.columns)


def _not_null(columns: Iterable[str]) -> set[str]:
    return {text for column in columns for text in (f"{column} IS NOT NULL", f'"{column}" IS NOT NULL')}


def _is_served(key: ForeignKey, tables: dict[Name, list[IndexState]]) -> bool:
    if any(serves(index, key) for index in tables.get(key.table, ())):
        return True
    return bool(key.partitions) and all(
        any(serves(index, key) for index in tables.get(leaf, ())) for leaf in key.partitions
    )


def _fault(key: ForeignKey) -> Fault:
    columns = ", ".join(key.columns)
    note = (
        f"no index leads with {columns}: a delete or a change of key in {key.referenced} reads all of {key.table} "
        f"(about {key.rows:,.0f} rows) for each row"
    )
    if key.is_partitioned:
        note += "; build one on each partition concurrently, then attach them to an index ON ONLY the parent"
        return Fault("foreign-key", f"{key.table}.{key.name}", Level.WARNING, note)
    repair = Build(key.table, tuple(Key(column) for column in key.columns))
    return Fault("foreign-key", f"{key.table}.{key.name}", Level.WARNING, note, repair)
