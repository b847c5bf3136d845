"""What an index costs the writes of a workload: entries, WAL, and updates that are HOT no longer.

An update is HOT, and touches no index, while none of the columns it sets is in any index of its table; else it writes
an entry into each of them. Source: PostgreSQL manual, "Heap-Only Tuples (HOT)".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiprod_ops.domain.advice.selectivity import index_size, width
from aiprod_ops.domain.schema import Condition, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.sql.changes import Change, changes
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
#: Milliseconds of the first entry that a statement writes, of each further one (measured on PostgreSQL 15, 50,000 rows
#: at once: 1.4 µs where entries are dense, 4–5 µs where they scatter), and of a byte of WAL (20 MB/s are written, sent
#: to replicas, and archived).
_ENTRY_MS, _MORE_MS, _WAL_MS = 0.05, 0.005, 1 / 20_000
#: Buffers of an entry, measured beside it: a descent of three levels.
_ENTRY_BUFFERS = 3.0


@dataclass(frozen=True, slots=True)
class Changed:
    """How many rows are changed, and by how many calls: a thousand rows at once cost less than a thousand calls."""

    rows: int = 0
    calls: int = 0

    def plus(self, other: "Changed") -> "Changed":
        return Changed(self.rows + other.rows, self.calls + other.calls)

    def scattered(self, pages: int) -> float:
        """How many pages of so many are met, a row on each at the most; each call meets them anew."""
        return min(float(self.rows), float(self.calls) * pages)


@dataclass(frozen=True, slots=True)
class Writes:
    """Changes of one table: what is inserted, and what is updated, by the columns that are set."""

    inserts: Changed = Changed()
    updates: Mapping[frozenset[str], Changed] = field(default_factory=dict)

    @property
    def updated(self) -> frozenset[str]:
        """Columns that some update sets."""
        return frozenset(column for columns in self.updates for column in columns)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one more index costs all writes of the workload: entries, bytes of WAL, and updates HOT no longer.

    `more` of the entries are not the first that their call writes.
    """

    entries: float = 0.0
    wal: float = 0.0
    cold: float = 0.0
    more: float = 0.0

    @property
    def ms(self) -> float:
        return (self.entries - self.more) * _ENTRY_MS + self.more * _MORE_MS + self.wal * _WAL_MS

    @property
    def buffers(self) -> float:
        return self.entries * _ENTRY_BUFFERS


def writes(statements: Iterable[Statement], schema: Schema) -> tuple[dict[Name, Writes], int]:
    """What a workload writes, by table; and how many rows in all. What cannot be read writes nothing here."""
    inserts: dict[Name, Changed] = {}
    updates: dict[Name, dict[frozenset[str], Changed]] = {}
    rows = 0
    for statement in sorted(statements, key=lambda each: (each.query_id, each.text)):
        try:
            found = changes(statement.text)
        except Unreadable:
            continue
        rows += max((_changed(statement, change).rows for change in found), default=0)
        for change in found:
            table = schema.table(change.schema, change.table)
            if table is None or change.verb == "delete":
                continue
            changed = _changed(statement, change)
            if change.verb == "insert":
                inserts[table.name] = inserts.get(table.name, Changed()).plus(changed)
            else:
                by_columns = updates.setdefault(table.name, {})
                by_columns[change.columns] = by_columns.get(change.columns, Changed()).plus(changed)
    names = sorted(inserts.keys() | updates.keys())
    return {name: Writes(inserts.get(name, Changed()), updates.get(name, {})) for name in names}, rows


def _changed(statement: Statement, change: Change) -> Changed:
    """How many rows are changed: an index is written for each. Where nobody counts them, one for each call.

    Source: PostgreSQL manual, "pg_stat_statements" (rows: "retrieved or affected by the statement").
    """
    rows = statement.calls if statement.rows is None or not change.is_counted else statement.rows
    return Changed(rows, statement.calls)


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
    leading = frozenset(_columns([keys[:1]], table))
    pages = index_size(keys, table, size) // 8192
    entries, cold, images = written.inserts, Changed(), written.inserts.scattered(pages)
    for columns, changed in sorted(written.updates.items(), key=lambda each: sorted(each[0])):
        if columns & (mine | before):
            entries = entries.plus(changed)
        if columns & mine and not columns & before:
            cold = cold.plus(changed)
        if columns & leading:
            images += changed.scattered(pages)
    elsewhere = cold.rows * len(others)
    more = max(0, entries.rows - entries.calls) + max(0, cold.rows - cold.calls) * len(others)
    wal = entries.rows * (_RECORD + width(keys, size)) + elsewhere * (_RECORD + 16)
    return Cost(
        entries.rows + elsewhere, wal + images * _IMAGE * _scatter(keys, table, size), float(cold.rows), float(more)
    )


def indexed(keys: Sequence[Key], predicate: str) -> Sequence[Key]:
    """All whose change is no HOT update: the keys, and the columns of the predicate."""
    return (*keys, Key(predicate, is_expression=True)) if predicate else keys


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
