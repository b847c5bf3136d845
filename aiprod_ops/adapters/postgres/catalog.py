"""Tables, columns, indexes and statistics, read from the catalogues in a few statements whatever their number.

Ordinary tables, leaf partitions and materialised views are listed. A partitioned parent is not: its leaves hold the
data, and CREATE INDEX CONCURRENTLY refuses it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any, Protocol

from aiprod_ops.domain.schema import Column, ColumnStatistics, Index, Key, Name, Schema, Table, TableSize
from aiprod_ops.ports import ColumnTexts, Names, Values
from aiprod_ops.units import Bytes

Row = dict[str, Any]


class Query(Protocol):
    """Runs one of the statements in `sql/` by its name."""

    def __call__(self, name: str, values: Values = ..., *, names: Names = ...) -> list[Row]: ...


@cache
def statement(name: str) -> str:
    """The statement `sql/NAME.sql` without the comment lines that describe it."""
    text = resources.files("aiprod_ops.adapters.postgres").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def schema(query: Query) -> Schema:
    """The schema of the database, everything sorted by name (columns and keys in their own order)."""
    place = query("search_path")[0]
    heads = _revision(query, place)
    indexes = _indexes(query("indexes"))
    tables = tuple(
        Table(name, tuple(_column(row) for row in rows if row["column"] is not None), tuple(indexes.get(name, ())))
        for name, rows in _by(query("columns"), _table)
    )
    others = query("names")
    taken = tuple(_table(row) for row in others)
    partitioned = tuple(_table(row) for row in others if row["is_partitioned"])
    return Schema(tables, tuple(place["search_path"]), heads, taken, partitioned)


def revision(query: Query) -> str:
    """Alembic's heads in the database; '' where there are none."""
    return _revision(query, query("search_path")[0])


def _revision(query: Query, place: dict[str, Any]) -> str:
    if not place["revisions_in"]:
        return ""
    found = query("revision", names={"versions": Name(place["revisions_in"], "alembic_version")})
    return str(found[0]["revision"])


def sizes(query: Query) -> dict[str, TableSize]:
    """Sizes by table. A role sees the statistics of the columns that it may read; a table without any has `{}`."""
    found = {_table(row): TableSize(row["rows"], row["pages"], Bytes(int(row["size"])), {}) for row in query("sizes")}
    for row in query("column_statistics"):
        if size := found.get(_table(row)):
            size.statistics[row["column"]] = _statistics(row, size.rows)
    return {str(name): found[name] for name in sorted(found)}


def column_values(query: Query, columns: Sequence[tuple[Name, str]]) -> dict[tuple[Name, str], ColumnTexts]:
    """Common values and histogram bounds of the columns that have any and that the role may read: users' data."""
    if not columns:
        return {}
    wanted = {
        "schemas": [name.schema for name, _ in columns],
        "tables": [name.name for name, _ in columns],
        "columns": [column for _, column in columns],
    }
    return {
        (_table(row), row["column"]): (
            list(zip(row["values"] or (), row["frequencies"] or (), strict=True)),
            list(row["bounds"] or ()),
        )
        for row in query("column_values", wanted)
    }


def _by(rows: list[Row], name: Callable[[Row], Name]) -> Iterator[tuple[Name, list[Row]]]:
    for key, group in groupby(rows, name):
        yield key, list(group)


def _table(row: Row) -> Name:
    return Name(row["schema"], row["table"])


def _column(row: Row) -> Column:
    return Column(
        row["column"], row["type"], row["is_not_null"], bool(row["btree"]), bool(row["is_text"]), row["is_c_collated"]
    )


def _indexes(rows: list[Row]) -> dict[Name, list[Index]]:
    found: dict[Name, list[Index]] = {}
    for name, keys in _by(rows, lambda row: Name(row["index_schema"], row["index"])):
        index = _index(name, keys)
        found.setdefault(index.table, []).append(index)
    return {table: sorted(indexes, key=lambda index: index.name) for table, indexes in found.items()}


def _index(name: Name, rows: list[Row]) -> Index:
    first = rows[0]
    return Index(
        name,
        _table(first),
        keys=tuple(_key(row) for row in rows if not row["is_included"]),
        definition=first["definition"],
        method=first["method"],
        include=tuple(row["key"] for row in rows if row["is_included"]),
        predicate=first["predicate"],
        is_unique=first["is_unique"],
        is_valid=first["is_valid"],
        is_ready=first["is_ready"],
        constraint=first["constraint"],
    )


def _key(row: Row) -> Key:
    return Key(
        row["key"],
        row["is_descending"],
        row["is_nulls_first"],
        row["operator_class"],
        is_expression=row["is_expression"],
    )


def _statistics(row: Row, rows: float) -> ColumnStatistics:
    distinct = row["distinct"] if row["distinct"] >= 0 else -row["distinct"] * rows
    return ColumnStatistics(
        null_fraction=row["null_fraction"],
        distinct=distinct,
        frequencies=tuple(row["frequencies"] or ()),
        width_bytes=row["width"],
        correlation=row["correlation"],
        true=row["true"],
    )
