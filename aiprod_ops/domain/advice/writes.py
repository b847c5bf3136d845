"""What an index costs the writes of a workload: entries, WAL, and updates that are HOT no longer.

An update is HOT, and touches no index, while none of the columns it sets is in any index of its table; else it writes
an entry into each of them. Source: PostgreSQL manual, "Heap-Only Tuples (HOT)".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiprod_ops.domain.advice.selectivity import index_size, width
from aiprod_ops.domain.schema import Condition, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.sql.changes import changes
from aiprod_ops.domain.sql.trees import Unreadable
from aiprod_ops.domain.statements import Statement

#: WAL bytes of one entry besides its keys: record header 24, block reference 20, tuple header 8, and alignment.
#: Source: PostgreSQL source, access/xlogrecord.h, access/nbtxlog.h.
_RECORD = 64
#: The first change of a page after a checkpoint logs the page, which is two thirds full on average. An index whose
#: entries scatter pays that for nearly each of them: measured 4.6–7.2 kB for one entry in 11–90 MB, PostgreSQL 15.
_IMAGE = 6000
_SCATTERED_PAGES = 1000  #: below that a page is soon met again before the next checkpoint
_SCATTERED_VALUES = 1000  #: fewer values than that are as many places where an index grows
#: Milliseconds of an entry, and of a byte of WAL (20 MB/s are written, sent to replicas, and archived).
_ENTRY_MS, _WAL_MS = 0.05, 1 / 20_000


@dataclass(frozen=True, slots=True)
class Writes:
    """Changes of one table: calls that insert, and calls that update, by the columns they set."""

    inserts: int = 0
    updates: Mapping[frozenset[str], int] = field(default_factory=dict)

    @property
    def updated(self) -> frozenset[str]:
        """Columns that some update sets."""
        return frozenset(column for columns in self.updates for column in columns)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one more index costs all writes of the workload: entries, bytes of WAL, and updates HOT no longer."""

    entries: float = 0.0
    wal: float = 0.0
    cold: float = 0.0

    @property
    def ms(self) -> float:
        return self.entries * _ENTRY_MS + self.wal * _WAL_MS


def writes(statements: Iterable[Statement], schema: Schema) -> tuple[dict[Name, Writes], int]:
    """What a workload writes, by table; and how many calls write at all. What cannot be read writes nothing here."""
    inserts: dict[Name, int] = {}
    updates: dict[Name, dict[frozenset[str], int]] = {}
    calls = 0
    for statement in sorted(statements, key=lambda each: (each.query_id, each.text)):
        try:
            found = changes(statement.text)
        except Unreadable:
            continue
        calls += statement.calls if found else 0
        for change in found:
            table = schema.table(change.schema, change.table)
            if table is None or change.verb == "delete":
                continue
            if change.verb == "insert":
                inserts[table.name] = inserts.get(table.name, 0) + statement.calls
            else:
                by_columns = updates.setdefault(table.name, {})
                by_columns[change.columns] = by_columns.get(change.columns, 0) + statement.calls
    names = sorted(inserts.keys() | updates.keys())
    return {name: Writes(inserts.get(name, 0), updates.get(name, {})) for name in names}, calls


def cost(
    keys: Sequence[Key],
    table: Table,
    size: TableSize,
    written: Writes,
    others: Sequence[Sequence[Key]],
    where: Condition | None = None,
) -> Cost:
    """What an index with these keys costs beside the others on its table (those that exist, and those chosen).

    For HOT the columns of a predicate are indexed like its keys. Every new row is taken to pass it for a while.
    """
    mine = frozenset(_columns([keys], table)) | ({where.column} if where else set())
    before = frozenset(_columns(others, table))
    entries, images = float(written.inserts), float(written.inserts)
    cold = 0.0
    for columns, calls in sorted(written.updates.items(), key=lambda each: sorted(each[0])):
        if columns & (mine | before):
            entries += calls
        if columns & mine and not columns & before:
            cold += calls
        if columns & frozenset(_columns([keys[:1]], table)):
            images += calls
    elsewhere = cold * len(others)
    wal = entries * (_RECORD + width(keys, size)) + elsewhere * (_RECORD + 16)
    return Cost(entries + elsewhere, wal + images * _IMAGE * _scatter(keys, table, size), cold)


def _columns(indexes: Iterable[Sequence[Key]], table: Table) -> Iterable[str]:
    """The columns in indexes; of an expression every column whose name occurs in it."""
    for keys in indexes:
        for key in keys:
            if not key.is_expression:
                yield key.column
            else:
                yield from (column.name for column in table.columns if column.name in key.column)


def _scatter(keys: Sequence[Key], table: Table, size: TableSize) -> float:
    """How likely a new entry meets a page that was not changed since the last checkpoint, 0 to 1."""
    leading = size.statistics.get(keys[0].column)
    if leading is None or leading.distinct < _SCATTERED_VALUES or abs(leading.correlation) > 0.9:
        return 0.0
    return min(1.0, index_size(keys, table, size) / 8192 / _SCATTERED_PAGES)
