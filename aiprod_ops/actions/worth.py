"""What each index is worth: the workload with it and without it, on a disposable copy.

An index is left out by `DROP INDEX` in a transaction that is rolled back: nothing has to be built again, and what
is measured is real. Only the statements whose plans used it can gain by it; each write to its table pays for it.
Source: PostgreSQL manual, "Heap-Only Tuples (HOT)"; EXPLAIN (WAL).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiprod_ops.actions.index_builds import index_size
from aiprod_ops.actions.measurements import LONGEST, Case, Measured, buffers_of, explained
from aiprod_ops.domain.schema import Index, Name, Schema, Table
from aiprod_ops.domain.sql.trees import Unreadable
from aiprod_ops.domain.sql.writes import writes, written
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, show


@dataclass(frozen=True, slots=True)
class Worth:
    """What one index saves and costs. Rates are a minute's, weighted by how often each statement was called.

    `saved` are buffers by kind of plan, `wal` bytes, `hot` the share of updates that can be HOT without the index and
    with it (None where nothing is updated), `statements` how many used it. One that cannot be left out has a `duty`: it
    keeps rows unique, or it is a part of another.
    """

    name: Name
    size: Bytes
    statements: int
    saved: Mapping[str, float]
    wal: float
    hot: tuple[float, float] | None
    duty: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """Cells for the table people see."""
        hot = "-" if self.hot is None else f"{self.hot[0]:.0%} → {self.hot[1]:.0%}"
        return {
            "index": str(self.name),
            "size": show(self.size, "B"),
            "used by": self.duty or f"{self.statements} statements",
            "saves, custom plans": _rate(self.saved.get("custom")),
            "saves, generic plans": _rate(self.saved.get("generic")),
            "WAL": "-" if self.duty else f"{show(Bytes(round(self.wal)), 'B')}/min",
            "HOT": hot,
        }


def _rate(buffers: float | None) -> str:
    return "-" if buffers is None else f"{buffers:,.0f} buffers/min"


def worth(
    database: Database,
    schema: Schema,
    wanted: Sequence[Case],
    measured: Mapping[int, Measured],
    workload: Workload,
    report: Callable[[str], None] = lambda _: None,
) -> list[Worth]:
    """One for each valid index of the schema, those that save most first. `measured` are the cases as they are now.

    Takes one execution of each case that uses an index, and two of each write for each index of its table.
    """
    minutes = max(float(workload.window) / 60, 1e-9)
    rates = {each.query_id: each.calls / minutes for each in workload.statements}
    whole = {index.name: index.parent for index in database.catalogue().indexes if index.parent is not None}
    found: list[Worth] = []
    for table in schema.tables:
        changing = [n for n, case in enumerate(wanted) if table.name in written(case.subject.statement.text, schema)]
        with_all = {n: wal for n in changing if (wal := _written(database, wanted[n])) is not None}
        for index in sorted(table.indexes, key=lambda each: each.name):
            if index.is_valid and index.is_ready:
                report(f"what {index.name} is worth")
                duty = _duty(index, whole)
                hot = _hot(table, index, workload)
                found.append(_of(database, index, duty, wanted, measured, rates, with_all, hot))
    return sorted(found, key=lambda each: (-max(each.saved.values(), default=0.0), str(each.name)))


def _duty(index: Index, whole: Mapping[Name, Name]) -> str:
    """What an index is needed for whatever it saves; a partition's index goes with the one that it belongs to."""
    if index.name in whole:
        return f"part of {whole[index.name].name}"
    return "unique rows" if index.is_unique or index.constraint else ""


def _of(
    database: Database,
    index: Index,
    duty: str,
    wanted: Sequence[Case],
    measured: Mapping[int, Measured],
    rates: Mapping[int, float],
    with_all: Mapping[int, float],
    hot: tuple[float, float] | None,
) -> Worth:
    size = index_size(database, index.name)
    users = [n for n in measured if index.name.name in measured[n].indexes]
    statements = len({wanted[n].subject.statement.query_id for n in users})
    if duty:
        return Worth(index.name, size, statements, {}, 0.0, None, duty)
    saved: dict[str, list[float]] = {}
    wal = 0.0
    try:
        with _without(database, index.name):
            for number in users:
                case = wanted[number]
                if case.subject.is_write:
                    continue
                lost = _lost(database, case, measured[number])
                share = rates.get(case.subject.statement.query_id, 0.0) / _sets(wanted, case)
                saved.setdefault(case.plan, []).append(lost * share)
    except (Failed, TimedOut):  # what an index is worth decides nothing: whatever needs this one, the plan is tried
        return Worth(index.name, size, statements, {}, 0.0, None, "something needs it")
    for number, before in with_all.items():
        case = wanted[number]
        after = _written(database, case, without=index.name)
        if after is not None and case.plan == "custom":  # a write by key has one plan: both would count it twice
            wal += (before - after) * rates.get(case.subject.statement.query_id, 0.0) / _sets(wanted, case)
    return Worth(index.name, size, statements, {plan: sum(each) for plan, each in saved.items()}, max(0.0, wal), hot)


def _hot(table: Table, index: Index, workload: Workload) -> tuple[float, float] | None:
    """The share of the workload's updates of a table that touch no indexed column: without this index, and with it.

    Room on the page decides, too; that moves from call to call. Source: PostgreSQL manual, "Heap-Only Tuples (HOT)":
    an update is HOT only when it "does not modify any columns referenced by the table's indexes".
    """
    others = [each for each in table.indexes if each is not index]
    updated = free = left = 0.0
    for statement in workload.statements:
        for columns in _updates(statement, table):
            updated += statement.calls
            is_free = not any(_mentions(other, columns) for other in others)
            free += statement.calls * is_free
            left += statement.calls * (is_free and not _mentions(index, columns))
    return (free / updated, left / updated) if updated else None


def _updates(statement: Statement, table: Table) -> Iterator[tuple[str, ...]]:
    try:
        found = writes(statement.text)
    except Unreadable:
        return
    for write in found:
        if write.kind == "update" and write.table == table.name.name and write.schema in ("", table.name.schema):
            yield write.columns


def _mentions(index: Index, columns: Sequence[str]) -> bool:
    """Whether keys, INCLUDE or predicate name one of the columns; BRIN only sums them up and does not count."""
    body = index.definition.partition(" USING ")[2]
    return index.method != "brin" and any(re.search(rf"\b{re.escape(column)}\b", body) for column in columns)


def _sets(wanted: Sequence[Case], case: Case) -> int:
    """How many value sets stand for one statement's calls: each is taken to be equally frequent."""
    return sum(other.subject is case.subject and other.plan == case.plan for other in wanted)


def _lost(database: Database, case: Case, measured: Measured) -> float:
    """Buffers more that a case reads while the index is left out; what runs out of time counts as nothing known."""
    database.query("savepoint one")
    try:
        plan = explained(database, case, analyze=True)["Plan"]
    except (Failed, TimedOut):
        database.query("rollback to savepoint one")
        return 0.0
    return max(0.0, buffers_of(plan) - sorted(measured.buffers)[len(measured.buffers) // 2])


@contextmanager
def _without(database: Database, name: Name | None) -> Iterator[None]:
    """A transaction in which the index is not there; it is rolled back."""
    database.query("begin")
    try:
        if name is not None:
            database.execute("drop index {name}", names={"name": name}, timeout=LONGEST)
        yield
    finally:
        database.query("rollback")


def _written(database: Database, case: Case, without: Name | None = None) -> float | None:
    """WAL bytes of one write, rolled back; run twice, because the first one pays for pages that were not touched yet.

    None where it cannot be run.
    """
    inside = replace(case, subject=replace(case.subject, is_write=False))  # our transaction rolls it back
    wal = None
    for _ in range(2):
        try:
            with _without(database, without):
                wal = _wal(explained(database, inside, analyze=True)["Plan"])
        except (Failed, TimedOut):
            return None
    return wal


def _wal(node: Mapping[str, Any]) -> float:
    """WAL of a plan's root, which counts its children's; page images depend on the last checkpoint and are left out."""
    return max(0.0, float(node.get("WAL Bytes", 0)) - 8192.0 * float(node.get("WAL FPI", 0)))
