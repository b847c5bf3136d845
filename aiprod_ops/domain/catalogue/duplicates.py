"""Indexes whose work another index of the same table does as well.

Source: PostgreSQL manual, "Multicolumn Indexes" (leading columns), "Indexes and ORDER BY" (a b-tree is read either
way), "Index-Only Scans and Covering Indexes" (INCLUDE), "Unique Indexes".
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from aiprod_ops.domain.catalogue.faults import Drop, Fault, Level
from aiprod_ops.domain.catalogue.indexes import IndexState
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import show


def faults(indexes: Iterable[IndexState], declared: Collection[Name] = ()) -> Iterator[Fault]:
    """One for each index that can go; what does its work stays. `declared` are those that the migrations know."""
    for index, keeper in pairs(indexes, declared):
        same = "the same keys as" if len(index.keys) == len(keeper.keys) else "a prefix of the keys of"
        note = f"it has {same} {keeper.name}, which does its work; {show(index.size, 'B')} to write for nothing"
        if index.is_partitioned:
            note += "; a partitioned index is dropped under an exclusive lock only: `DROP INDEX …` in a quiet hour"
        goes = replace(index.existing, keeper=keeper.name, keeper_definition=keeper.definition)
        repair = None if index.is_partitioned else Drop(goes)
        yield Fault("duplicate", str(index.name), Level.WARNING, note, repair)


def pairs(indexes: Iterable[IndexState], declared: Collection[Name] = ()) -> list[tuple[IndexState, IndexState]]:
    """Each index that can go, with one that stays and does its work; sorted by name.

    "Does the work of" is transitive, so that every chain ends in an index which stays; of those that do each other's
    work a declared one stays, else the first by name.
    """
    tables: dict[Name, list[IndexState]] = {}
    for index in indexes:
        if index.is_usable and not index.building:
            tables.setdefault(index.table, []).append(index)
    found = [pair for beside in tables.values() if len(beside) > 1 for pair in _of_table(beside, declared)]
    return sorted(found, key=lambda pair: pair[0].name)


def _of_table(beside: list[IndexState], declared: Collection[Name]) -> Iterator[tuple[IndexState, IndexState]]:
    def rank(index: IndexState) -> tuple[bool, Name]:
        return index.name not in declared, index.name

    able: Mapping[Name, list[IndexState]] = {
        index.name: [other for other in beside if other is not index and covers(other, index)] for index in beside
    }
    going = {
        index.name
        for index in beside
        if any(index not in able[other.name] or rank(other) < rank(index) for other in able[index.name])
    }
    for index in beside:
        if index.name in going:
            stays = [other for other in able[index.name] if other.name not in going]
            yield index, min(stays, key=lambda other: (len(other.keys), *rank(other)))


def covers(other: IndexState, index: IndexState) -> bool:
    """Whether `other` does the work of `index`, which nothing else needs. A predicate is compared as text."""
    if index.is_needed or index.method != other.method or index.predicate != other.predicate:
        return False
    if index.is_partitioned != other.is_partitioned:
        return False
    if index.method != "btree":
        return not index.is_unique and _body(index) == _body(other)
    if index.is_unique:
        enforces = other.is_unique and not other.is_deferrable and other.nulls_not_distinct == index.nulls_not_distinct
        if not enforces or len(other.keys) != len(index.keys):
            return False
    lead = other.keys[: len(index.keys)]
    if lead != index.keys and lead != _reversed(index.keys):
        return False
    columns = {key.column for key in other.keys if not key.is_expression} | set(other.include)
    return set(index.include) <= columns


def _body(index: IndexState) -> str:
    """The definition after its name: method, keys, operator classes, options, predicate."""
    return index.definition.partition(" USING ")[2]


def _reversed(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    return tuple(replace(key, descending=not key.descending, nulls_first=not key.nulls_first) for key in keys)
