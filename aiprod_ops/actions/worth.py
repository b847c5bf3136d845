"""What each index is worth: the workload with it and without it, on a disposable copy.

An index is left out by `DROP INDEX` in a transaction that is rolled back: nothing has to be built again, and what
is measured is real. Only the statements whose plans used it can gain by it; each write to its table pays for it.
Source: PostgreSQL manual, "Heap-Only Tuples (HOT)"; EXPLAIN (WAL).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiprod_ops.actions.index_builds import index_size
from aiprod_ops.actions.measurements import LONGEST, Case, Measured, buffers_of, explained
from aiprod_ops.domain.schema import Index, Name, Schema, Table
from aiprod_ops.domain.sql.writes import written
from aiprod_ops.domain.statements import Workload
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, show

_HOT = """
select coalesce(sum(n_tup_upd), 0)::float8 as updated, coalesce(sum(n_tup_hot_upd), 0)::float8 as hot
from pg_stat_xact_user_tables where relid = to_regclass(%(table)s)
/* aiprod-ops: updates of this transaction */
"""


@dataclass(frozen=True, slots=True)
class Worth:
    """What one index saves and costs. Rates are a minute's, weighted by how often each statement was called.

    `saved` are buffers by kind of plan, `wal` bytes, `hot` the share of HOT updates with the index and without it
    (None where nothing is updated), `statements` how many used it. An index that keeps rows unique is not left out.
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
        hot = "-" if self.hot is None else f"{self.hot[1]:.0%} → {self.hot[0]:.0%}"
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
    found: list[Worth] = []
    for table in schema.tables:
        writes = [n for n, case in enumerate(wanted) if table.name in written(case.subject.statement.text, schema)]
        with_all = {n: figures for n in writes if (figures := _written(database, table, wanted[n])) is not None}
        for index in sorted(table.indexes, key=lambda each: each.name):
            if index.is_valid and index.is_ready:
                report(f"what {index.name} is worth")
                found.append(_of(database, table, index, wanted, measured, rates, with_all))
    return sorted(found, key=lambda each: (-max(each.saved.values(), default=0.0), str(each.name)))


def _of(
    database: Database,
    table: Table,
    index: Index,
    wanted: Sequence[Case],
    measured: Mapping[int, Measured],
    rates: Mapping[int, float],
    with_all: "Mapping[int, _Written]",
) -> Worth:
    size = index_size(database, index.name)
    users = [n for n in measured if index.name.name in measured[n].indexes]
    statements = len({wanted[n].subject.statement.query_id for n in users})
    if index.is_unique or index.constraint:
        return Worth(index.name, size, statements, {}, 0.0, None, "unique rows")
    saved: dict[str, list[float]] = {}
    wal, hot_with, hot_without, updated = 0.0, 0.0, 0.0, 0.0
    with _without(database, index.name):
        for number in users:
            case = wanted[number]
            if case.subject.is_write:
                continue
            lost = _lost(database, case, measured[number])
            share = rates.get(case.subject.statement.query_id, 0.0) / _sets(wanted, case)
            saved.setdefault(case.plan, []).append(lost * share)
    for number, before in with_all.items():
        case = wanted[number]
        after = _written(database, table, case, without=index.name)
        if after is None:
            continue
        share = rates.get(case.subject.statement.query_id, 0.0) / _sets(wanted, case)
        if case.plan == "custom":  # the plan of a write by key is the same; counting both would count it twice
            wal += (before.wal - after.wal) * share
            hot_with, hot_without = hot_with + before.hot * share, hot_without + after.hot * share
            updated += before.updated * share
    hot = (hot_with / updated, hot_without / updated) if updated else None
    return Worth(index.name, size, statements, {plan: sum(each) for plan, each in saved.items()}, wal, hot)


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


@dataclass(frozen=True, slots=True)
class _Written:
    """What one execution of a write cost: WAL bytes without page images, rows updated, and how many of them HOT."""

    wal: float
    updated: float
    hot: float


def _written(database: Database, table: Table, case: Case, without: Name | None = None) -> _Written | None:
    """Run a write and roll it back; twice, because the first one pays for pages that were not touched yet."""
    inside = replace(case, subject=replace(case.subject, is_write=False))  # our transaction rolls it back
    figures = None
    for _ in range(2):
        try:
            with _without(database, without):
                plan = explained(database, inside, analyze=True)["Plan"]
                row = database.query(_HOT, {"table": str(table.name)})[0]
        except (Failed, TimedOut):
            return None
        figures = _Written(_wal(plan), row["updated"], row["hot"])
    return figures


def _wal(node: Mapping[str, Any]) -> float:
    """WAL of a plan's root, which counts its children's; page images depend on the last checkpoint and are left out."""
    return max(0.0, float(node.get("WAL Bytes", 0)) - 8192.0 * float(node.get("WAL FPI", 0)))
