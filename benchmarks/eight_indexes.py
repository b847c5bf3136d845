"""The documents' claim, statement by statement: eight indexes make 500 ms into 50 ms. And which of the eight earn it.

Each statement of the workload is measured on a disposable copy without the eight and with them, with rare, median and
common values, with a custom and a generic plan; then each index is taken away alone and everything is measured again.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import report
from benchmarks.fleet import lab

ROWS = 1_000_000
EARNS = 1.2  # times more buffers in some case without it: then an index earns its keep


def run() -> None:
    from aiprod_ops import config
    from aiprod_ops.actions import measurements
    from aiprod_ops.adapters.local.platform import LocalPlatform
    from aiprod_ops.adapters.postgres.database import PostgresDatabase
    from aiprod_ops.lab import workload

    with lab(ROWS, workload=False) as made:
        workload.run(made.dsn("aiprod_app"), made.scale, rounds=3)
        target = config.load(str(made.config)).target("lab")
        source = PostgresDatabase(target.probe, writes=False, application_name="aiprod-ops bench", log=target.log)
        platform = LocalPlatform(
            lambda: target.backup, made.folder / "copies",
            lambda dsn: PostgresDatabase(dsn, writes=True, application_name="aiprod-ops bench"),
        )  # fmt: skip
        schema = source.schema()
        statements = [s for s in source.workload().statements if measurements.tables_of(s, schema)]
        found, notes = measurements.subjects(source, statements, schema)
        wanted = measurements.cases(found)
        with platform.copy("bench") as (copy, _):
            before, _ = measurements.measure(copy, wanted)
            _build(copy)
            after, _ = measurements.measure(copy, wanted)
            rows = _with_and_without(wanted, before, after)
            rows += [_alone(copy, wanted, after, name) for name in _EIGHT]
        source.close()
    report.write("eight_indexes", rows, [*notes, *_verdict(rows)])


def _eight() -> Mapping[str, tuple[str, str]]:
    """The indexes as the migration has them: name → (table, columns)."""
    from importlib import import_module

    migration = import_module("aiprod_ops.migrations.versions.002_add_performance_indexes")
    return {str(name): (str(table), ", ".join(columns)) for name, table, columns in migration.INDEXES}


_EIGHT = _eight()


def _build(copy: Any) -> None:
    for name, (table, columns) in _EIGHT.items():
        copy.execute(f"create index {name} on {table} ({columns})")


def _with_and_without(wanted: Sequence[Any], before: Mapping[int, Any], after: Mapping[int, Any]) -> list[report.Row]:
    rows: list[report.Row] = []
    for number, case in enumerate(wanted):
        if number not in before or number not in after:
            continue
        label = f"{case.values.kind}/{case.plan}: {case.subject.statement.text}"
        for unit in ("buffers", "ms"):
            mine, theirs = getattr(after[number], unit), getattr(before[number], unit)
            rows.append(
                report.Row(
                    label,
                    unit,
                    statistics.median(mine),
                    statistics.median(theirs),
                    "without the eight",
                    len(mine),
                    report.spread(mine),
                )
            )
    return rows


def _alone(copy: Any, wanted: Sequence[Any], after: Mapping[int, Any], name: str) -> report.Row:
    """How much worse the worst case becomes without this one index: the ratio is what it is worth."""
    from aiprod_ops.actions import measurements

    table, columns = _EIGHT[name]
    copy.execute(f"drop index {name}")
    without, _ = measurements.measure(copy, wanted)
    copy.execute(f"create index {name} on {table} ({columns})")
    pairs = [(_buffers(without[n]), _buffers(after[n])) for n in sorted(without.keys() & after.keys())]
    worst = max(pairs, key=lambda pair: pair[0] / pair[1])
    what = f"index {name}: the case that needs it most, without it"
    return report.Row(what, "buffers", worst[0], worst[1], "with all eight", 1, 0.0)


def _buffers(measured: Any) -> float:
    return max(statistics.median(measured.buffers), 0.5) if measured.buffers else 0.5


def _verdict(rows: Sequence[report.Row]) -> list[str]:
    alone = [row for row in rows if row.what.startswith("index ")]
    keep = [row.what.split()[1].rstrip(":") for row in alone if row.ratio >= EARNS]
    spare = [row.what.split()[1].rstrip(":") for row in alone if row.ratio < EARNS]
    cases = [row for row in rows if row.unit == "ms" and row not in alone]
    faster = sum(row.ratio <= 0.1 for row in cases)
    slower = sum(row.ratio > 1.2 and row.ours - row.peer > 2 for row in cases)
    return [
        f"ten times faster or more in {faster} of {len(cases)} cases, slower in {slower}",
        f"earn their keep: {', '.join(keep) or 'none'}",
        f"redundant beside the others: {', '.join(spare) or 'none'}",
    ]
