"""Measuring statements with real values, with a custom and with a generic plan, in buffers and milliseconds.

Buffers decide (they repeat within 1 %), milliseconds are reported (they vary up to 2 × from run to run).
Source: PostgreSQL manual, PREPARE ("plan_cache_mode"), EXPLAIN (BUFFERS).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.proofs import Comparison, Sampled
from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.domain.sql.queries import Unreadable, read
from aiprod_ops.domain.sql.writes import written
from aiprod_ops.domain.statements import Statement
from aiprod_ops.domain.values import parameters
from aiprod_ops.domain.values.drawing import is_drawable
from aiprod_ops.domain.values.fresh import fresh
from aiprod_ops.domain.values.parameters import ColumnValues, Logged, Missing, Slot, ValueSet
from aiprod_ops.errors import Failed, OpsError, PermissionMissing, TimedOut
from aiprod_ops.ports import Database
from aiprod_ops.units import Milliseconds, Seconds

PLANS = ("custom", "generic")
_EVER = datetime.min.replace(tzinfo=UTC)
LONGEST = Seconds(60)  # one execution on the copy; what takes longer counts as this long
BUDGET = Milliseconds(250)  # runs are repeated until a case has had this much; a longer one runs once: buffers repeat
MOST_RUNS = 5  # runs of each

#: Worse means 1.2 × the buffers and 1.2 × the time. Time alone counts only where the buffers did not become fewer and
#: every run after, two at least, took more than twice the slowest run before: on a busy machine one median says nothing
#: (measured: 1.1 → 10.7 ms with fewer buffers, and 1.0 ms again a moment later). Below NOISE_MS nothing is worse.
WORSE_BUFFERS, WORSE_TIME, NOISE_MS = 1.2, 2.0, 2.0


@dataclass(frozen=True)
class Subject:
    """A statement that can be measured: its parameters' value sets, equal ones given once."""

    statement: Statement
    text: str
    slots: tuple[Slot, ...]
    sets: tuple[ValueSet, ...]
    is_write: bool


@dataclass(frozen=True)
class Case:
    """One way to measure: which statement, which values (`rare`, `median`, `common`), which kind of plan."""

    subject: Subject
    values: ValueSet
    plan: str

    @property
    def label(self) -> dict[str, str]:
        return {"statement": self.subject.statement.text, "values": self.values.kind, "plan": self.plan}


@dataclass
class Measured:
    """What the runs of one case gave; `indexes` are those the plan used. A case that ran out of time says so.

    `shape` is the plan without its values and estimates.
    """

    buffers: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    indexes: frozenset[str] = frozenset()
    timed_out: bool = False
    shape: tuple[Any, ...] = ()


def subjects(source: Database, statements: Iterable[Statement], schema: Schema) -> tuple[list[Subject], list[str]]:
    """What can be measured, with values read from the source's statistics and log; and why the rest cannot."""
    chosen = list(statements)
    slots: dict[int, tuple[Slot, ...]] = {}
    notes: list[str] = []
    for statement in chosen:
        try:
            slots[statement.query_id] = parameters.slots(statement.text, schema)
        except Unreadable as error:
            notes.append(f"not measured: {_short(statement.text)} ({error})")
    columns = sorted({(s.table, s.column) for each in slots.values() for s in each if s.table is not None})
    texts = source.column_values(columns) if columns else {}
    statistics = {
        key: ColumnValues(tuple((str(value), share) for value, share in common), tuple(bounds))
        for key, (common, bounds) in texts.items()
    }
    for table, column in columns:
        if not is_drawable(statistics.get((table, column), ColumnValues())):
            statistics[table, column] = _read(source, table, column)
    samples = source.samples(sorted(slots), 20)
    found: list[Subject] = []
    _, unlogged = source.logged((), _EVER)  # values come from statistics all the same: that is worth a note
    for statement in chosen:
        if statement.query_id not in slots:
            continue
        calls = [
            logged
            for sample in samples
            if sample.query_id == statement.query_id
            and (logged := _logged(statement.text, sample.text, sample.duration_ms, sample.parameters)) is not None
        ]
        sets = _value_sets(statement, slots[statement.query_id], statistics, calls)
        if isinstance(sets, Missing):
            notes.append(f"not measured: {_short(statement.text)} ({sets.reason})")
            continue
        text, sets = parameters.repaired(statement.text), fresh(sets, slots[statement.query_id], schema)
        found.append(Subject(statement, text, slots[statement.query_id], sets, read(statement.text).writes))
    return found, [*notes, *filter(None, [unlogged])]


#: ANALYZE keeps no values of types without order, and none of ranges: some of the first rows tell as much.
_SOME_VALUES = """
select array_agg(value) as found from (
    select distinct {column}::text as value from (
        select {column} from {table} where {column} is not null limit 1000
    ) as first_rows limit 100
) as different /* aiprod-ops: values of a column without statistics */
"""


def _read(source: Database, table: Name, column: str) -> ColumnValues:
    """Values from the table itself; none where this role may not read it, or there are none."""
    try:
        rows = source.query(_SOME_VALUES, names={"table": table, "column": column})
    except PermissionMissing:
        return ColumnValues()
    return ColumnValues(bounds=tuple(sorted(rows[0]["found"] or ())) if rows else ())


def _value_sets(
    statement: Statement,
    slots: Sequence[Slot],
    statistics: Mapping[tuple[Name, str], ColumnValues],
    calls: Sequence[Logged],
) -> tuple[ValueSet, ...] | Missing:
    """Real values for all slots. Without a logged call a LIMIT is what it gave: the rows of the average call."""
    given = {} if calls or not statement.calls else _limits(statement, slots)
    sets = parameters.value_sets([slot for slot in slots if slot.number not in given], statistics, calls)
    if isinstance(sets, Missing) or not given:
        return sets
    woven = []
    for each in sets:
        rest = iter(each.values)
        values = tuple(given.get(slot.number) or next(rest) for slot in slots)
        woven.append(ValueSet(each.kind, values, f"{each.source}; LIMIT from the rows returned"))
    return tuple(woven)


def _limits(statement: Statement, slots: Sequence[Slot]) -> dict[int, str]:
    rows = max(1, -(-(statement.rows or 0) // statement.calls))
    return {slot.number: str(rows) for slot in slots if slot.operator == "limit"}


def _logged(text: str, sample: str, duration_ms: float, given: Sequence[str]) -> Logged | None:
    try:
        return parameters.logged(text, sample, duration_ms, given)
    except Unreadable:
        return None


def cases(found: Iterable[Subject]) -> list[Case]:
    """Every combination of statement, values and kind of plan; without parameters there is only one kind."""
    return [
        Case(subject, values, plan)
        for subject in found
        for values in subject.sets
        for plan in (PLANS if values.values else PLANS[:1])
    ]


def measure(
    database: Database, wanted: Sequence[Case], report: Callable[[str], None] = lambda _: None
) -> tuple[dict[int, Measured], list[str]]:
    """Run each case on a disposable copy; answers by position in `wanted`, and notes on what could not be run.

    Where the generic plan is the custom one, the custom one's figures are its own: it is not run again.
    """
    results: dict[int, Measured] = {}
    custom: dict[tuple[int, str], Measured] = {}
    notes: list[str] = []
    for number, case in enumerate(wanted):
        report(f"measuring: {number + 1} of {len(wanted)}")
        key = (id(case.subject), case.values.kind)
        try:
            known = custom.get(key) if case.plan == "generic" else None
            if known is not None and known.shape == _shape(explained(database, case, analyze=False)["Plan"]):
                results[number] = known
                continue
            results[number] = _repeated(database, case)
            if case.plan == "custom":
                custom[key] = results[number]
        except Failed as error:
            notes.append(f"not measured: {_short(case.subject.statement.text)} ({_without_values(error, case)})")
    return results, sorted(set(notes))


def _without_values(error: OpsError, case: Case) -> str:
    """The server's message; it may quote a value, and those are users' data."""
    message = error.message
    for value in sorted(case.values.values, key=len, reverse=True):
        if len(bare := value.strip("'")) > 1:
            message = message.replace(bare, "…")
    return message


def _repeated(database: Database, case: Case) -> Measured:
    measured = Measured()
    while not measured.ms or (len(measured.ms) < MOST_RUNS and sum(measured.ms) < BUDGET):
        try:
            plan = explained(database, case, analyze=True)
        except TimedOut:
            measured.ms.append(LONGEST * 1000)
            measured.timed_out = True
            return measured
        root = plan["Plan"]
        measured.ms.append(float(plan["Execution Time"]))
        measured.buffers.append(buffers_of(root))
        measured.indexes = frozenset(used_indexes(root))
        measured.shape = _shape(root)
    return measured


_WHAT = ("Node Type", "Relation Name", "Alias", "Index Name", "Scan Direction", "Join Type", "Strategy", "Sort Key",
         "Workers Planned")  # fmt: skip
_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Merge Cond", "Join Filter", "Order By")
_VALUE = re.compile(r"(?:\$\d+|'(?:[^']|'')*'(?:::[\w ]+(?:\(\d+\))?(?:\[\])?)?|\b\d+(?:\.\d+)?\b)")


def _shape(node: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a plan does, whatever its values are: two of one shape read the same for the same values."""
    what = tuple(str(node.get(name, "")) for name in _WHAT)
    conditions = tuple(_VALUE.sub("?", str(node.get(name, ""))) for name in _CONDITIONS)
    return (*what, *conditions, *(_shape(child) for child in node.get("Plans", ())))


def buffers_of(node: Mapping[str, Any]) -> float:
    names = ("Shared Hit Blocks", "Shared Read Blocks", "Local Hit Blocks", "Local Read Blocks", "Temp Read Blocks",
             "Temp Written Blocks")  # fmt: skip
    return float(sum(node.get(name, 0) for name in names))


def explained(database: Database, case: Case, *, analyze: bool) -> dict[str, Any]:
    """EXPLAIN of one case as JSON. With `analyze` it is executed (a write is rolled back), else only planned.

    Planning needs no more than a reading role. Raises Failed when the statement cannot be prepared.
    """
    database.query("select set_config('plan_cache_mode', %(mode)s, false)", {"mode": f"force_{case.plan}_plan"})
    text = _raw(case.subject.text.rstrip().rstrip(";"))
    options = "analyze, buffers, wal, timing off, format json" if analyze else "format json"
    if not case.values.values:
        return _explain(database, f"explain ({options}) {text}", case.subject.is_write and analyze)
    database.query("deallocate all")
    types = ", ".join(parameters.types(case.subject.slots, case.values.values))
    database.query(f"prepare aiprod_ops ({types}) as {text}")
    values = _raw(", ".join(case.values.values))
    return _explain(database, f"explain ({options}) execute aiprod_ops({values})", case.subject.is_write and analyze)


def _explain(database: Database, sql: str, roll_back: bool) -> dict[str, Any]:
    if roll_back:
        database.query("begin")
    try:
        rows = database.query(sql, timeout=LONGEST)
    finally:
        if roll_back:
            database.query("rollback")
    plan: dict[str, Any] = rows[0]["QUERY PLAN"][0]
    return plan


def _raw(text: str) -> str:
    """Text that is SQL already: its braces are not placeholders."""
    return text.replace("{", "{{").replace("}", "}}") if "{" in text or "}" in text else text


def used_indexes(node: Mapping[str, Any]) -> Iterator[str]:
    """Names of the indexes in a plan."""
    if "Index Name" in node:
        yield str(node["Index Name"])
    for child in node.get("Plans", ()):
        yield from used_indexes(child)


def choices(database: Database, name: str, served: Sequence[Statement], schema: Schema) -> Iterator[Finding]:
    """Whether the planner chooses an index for the statements it is for, with a custom and with a generic plan.

    Only planned, nothing is executed: a reading role is enough. For some values another plan may rightly win (a value
    that 93 % of the rows share), so one choice for each kind of plan is what is asked for. A generic plan that the
    server would not take counts only if it has the index.
    """
    found, notes = subjects(database, served, schema)
    chosen: dict[str, list[bool]] = {}
    spared = 0
    for subject in found:
        plans, troubles = planned(database, subject)
        notes += troubles
        uses = {kind: [name in set(used_indexes(plan)) for plan in made] for kind, made in plans.items()}
        if "generic" in uses and not any(uses["generic"]) and stays_custom(plans):
            uses["generic"] = []
            spared += 1
        for kind, used in uses.items():
            chosen.setdefault(kind, []).extend(used)
    if not chosen:
        note = f"not seen: {'; '.join(sorted(set(notes)))}"
        yield Finding(f"{name} is chosen by the planner", 0.0, "grade", warn=0.0, note=note)
    for kind, used in chosen.items():
        note = f"for {sum(used)} of {len(used)}"
        if spared and kind == "generic":
            note += f"; {spared} statements stay with custom plans, which cost less"
        yield Finding(
            f"{name} is chosen by the planner, {kind} plan",
            float(bool(used) and not any(used)),
            "grade",
            crit=1,
            note=note,
        )


def planned(database: Database, subject: Subject) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """How one statement is planned, by kind of plan, and why some cannot be."""
    plans: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for case in cases([subject]):
        try:
            plans.setdefault(case.plan, []).append(explained(database, case, analyze=False)["Plan"])
        except (Failed, PermissionMissing) as error:  # a reading role may not even plan a write
            notes.append(_without_values(error, case))
    return {kind: made for kind, made in plans.items() if made}, notes


def stays_custom(plans: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether a prepared statement keeps its custom plans, because the generic one costs more than they do on average.

    `LIKE $1` is such a one: no index serves a pattern that is not known. Planning costs 1000 × cpu_operator_cost for
    each relation, and once more. Source: PostgreSQL source, plancache.c, choose_custom_plan(), cached_plan_cost().
    """
    custom, generic = plans.get("custom", ()), plans["generic"]
    if not custom:
        return False
    planning = 2.5 * (1 + len(set(_relations(generic[0]))))
    mean = sum(float(plan["Total Cost"]) for plan in custom) / len(custom) + planning
    return float(generic[0]["Total Cost"]) >= mean


def _relations(node: Mapping[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield str(node.get("Alias", node["Relation Name"]))
    for child in node.get("Plans", ()):
        yield from _relations(child)


def compared(wanted: Sequence[Case], before: Mapping[int, Measured], after: Mapping[int, Measured]) -> list[Comparison]:
    """Before and after of every case, in buffers and in milliseconds."""
    found: list[Comparison] = []
    for number, case in enumerate(wanted):
        if number not in before or number not in after:
            continue
        then, now = before[number], after[number]
        if then.buffers and now.buffers:
            found.append(_comparison(case, "buffers", then.buffers, now.buffers))
        found.append(_comparison(case, "ms", then.ms, now.ms))
    return found


def _comparison(case: Case, unit: str, before: Sequence[float], after: Sequence[float]) -> Comparison:
    return Comparison(_short(case.subject.statement.text), unit, Sampled.of(before), Sampled.of(after), case.label)


def gain(before: Measured, after: Measured) -> float:
    """How many times fewer buffers; of something that ran out of time before, how many times less time."""
    if before.timed_out or after.timed_out or not before.buffers or not after.buffers:
        return max(Sampled.of(before.ms).median, 0.5) / max(Sampled.of(after.ms).median, 0.5)
    return max(Sampled.of(before.buffers).median, 0.5) / max(Sampled.of(after.buffers).median, 0.5)


def is_worse(before: Measured, after: Measured) -> bool:
    """Whether the change made this case worse, by the thresholds above."""
    then, now = Sampled.of(before.ms), Sampled.of(after.ms)
    if after.timed_out and not before.timed_out:
        return True
    if now.median - then.median < NOISE_MS:
        return False
    more = 1 / gain(before, after)
    if more > WORSE_BUFFERS and now.median > WORSE_BUFFERS * then.median:
        return True
    return more >= 1 and now.n > 1 and now.low > WORSE_TIME * then.high


def tables_of(statement: Statement, schema: Schema) -> set[Name]:
    """The tables a statement reads or changes; none when it cannot be read."""
    try:
        accesses = read(statement.text, schema).accesses
    except Unreadable:
        return set()
    found = (schema.table(access.schema, access.table) for access in accesses)
    return {table.name for table in found if table is not None}


def changed(text: str, schema: Schema) -> frozenset[Name]:
    """The tables a statement changes; none when it cannot be read."""
    try:
        return frozenset(written(text, schema))
    except Unreadable:
        return frozenset()


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:99] + "…"
