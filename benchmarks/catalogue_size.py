"""What a check of indexes costs: 1,000 tables with 5,000 indexes beside ten times as many, all of it measured by turns.

A check of the large one has to end within 30 s, and cost for each index about as much as the small one.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import report

TABLES = {"small": 1_000, "large": 10_000}
LIMIT = 30.0  # seconds for the large one
ROUNDS = 3
_STEP = 500  # tables in one transaction: each holds a lock until its end
_MADE = """DO $$ BEGIN FOR i IN {first}..{last} LOOP
EXECUTE format('CREATE TABLE t%1$s (id bigserial PRIMARY KEY, a int, b text, c timestamptz, d int);
CREATE INDEX ON t%1$s (a); CREATE INDEX ON t%1$s (lower(b)); CREATE INDEX ON t%1$s (c, d) WHERE d > 5;
CREATE INDEX ON t%1$s (d)', i);
END LOOP; END $$"""


@dataclass(frozen=True)
class Timed:
    """What one step took, in seconds, for each size."""

    what: str
    seconds: dict[str, list[float]]


def run() -> None:
    steps = {name: Timed(name, {size: [] for size in TABLES}) for name in (*_STEPS, "a whole check")}
    with _databases() as opened:
        for _ in range(ROUNDS):
            for size, database in opened.items():
                known: dict[str, Any] = {}
                took = {name: _seconds(step, database, known) for name, step in _STEPS.items()}
                took["a whole check"] = sum(took[name] for name in _CHECK)
                for name, seconds in took.items():
                    steps[name].seconds[size].append(seconds)
    rows = [_row(timed) for timed in steps.values()]
    whole = steps["a whole check"].seconds["large"]
    rows.append(
        report.Row("a whole check of 10,000 tables, 50,000 indexes", "s", statistics.median(whole), LIMIT, "limit",
                   ROUNDS, report.spread(whole), limit=1.0)
    )  # fmt: skip
    report.write("catalogue_size", rows)


def _row(timed: Timed) -> report.Row:
    each = {size: statistics.median(seconds) / (5 * TABLES[size]) * 1e6 for size, seconds in timed.seconds.items()}
    spread = report.spread(timed.seconds["large"])
    return report.Row(
        f"{timed.what}: µs for each of 50,000 indexes", "µs", each["large"], each["small"], "of 5,000", ROUNDS, spread,
        limit=1.5,
    )  # fmt: skip


def _catalogue(database: Any, known: dict[str, Any]) -> None:
    known["catalogue"] = database.catalogue()


def _usage(database: Any, known: dict[str, Any]) -> None:
    known["usage"] = database.index_usage()


def _damage(database: Any, known: dict[str, Any]) -> None:
    from aiprod_ops.domain.catalogue import damage

    known["checked"] = database.damage([index.name for index in damage.order(known["catalogue"].indexes)], rows=True)


def _judgement(_: Any, known: dict[str, Any]) -> None:
    """With a month of daily snapshots of two nodes."""
    from aiprod_ops.domain.catalogue.indexes import Thresholds
    from aiprod_ops.domain.catalogue.inspections import Inspection
    from aiprod_ops.domain.catalogue.judgement import faults
    from aiprod_ops.domain.catalogue.usage import UsageSnapshot
    from aiprod_ops.units import Bytes, Ratio

    now = datetime.now(UTC)
    nodes = {"primary": known["usage"], "replica": known["usage"]}
    snapshots = [UsageSnapshot(now - timedelta(days=age), nodes) for age in range(31, -1, -1)]
    limits = Thresholds(30 * 86400.0, Ratio(0.5), Bytes(10_000_000), Ratio(0.9), Ratio(0.75), Ratio(0.9))
    faults(known["catalogue"], snapshots, Inspection(), known["checked"], limits)


_CHECK: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    "catalogue": _catalogue,
    "index_usage": _usage,
    "damage": _damage,
    "judgement": _judgement,
}
_STEPS: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    **_CHECK,
    "schema": lambda database, _: database.schema(),
    "sizes": lambda database, _: database.sizes(),
}


def _seconds(step: Callable[[Any, dict[str, Any]], object], database: Any, known: dict[str, Any]) -> float:
    started = time.perf_counter()
    step(database, known)
    return time.perf_counter() - started


@contextmanager
def _databases() -> Iterator[dict[str, Any]]:
    from aiprod_ops.adapters.local.instance import PostgresServer
    from aiprod_ops.adapters.local.programs import find, reachable
    from aiprod_ops.adapters.postgres.database import PostgresDatabase

    with tempfile.TemporaryDirectory(prefix="aiprod-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = PostgresServer(reachable(find(), folder), folder / "data", folder / "s", 5432, folder / "start.log")
        server.initdb()
        settings: dict[str, str | int] = {"listen_addresses": "", "fsync": "off", "max_locks_per_transaction": 1000}
        server.configure(settings, "local all all trust\n")
        server.start()
        opened: dict[str, Any] = {}
        try:
            for size, tables in TABLES.items():
                _fill(server, size, tables, PostgresDatabase)
                opened[size] = PostgresDatabase(server.dsn("postgres", size), writes=False, application_name="bench")
            yield opened
        finally:
            for database in opened.values():
                database.close()
            server.stop("immediate")


def _fill(server: Any, size: str, tables: int, connect: Any) -> None:
    with connect(server.dsn("postgres", "postgres"), writes=True, application_name="bench") as admin:
        admin.execute("CREATE DATABASE {name}", names={"name": size})
    with connect(server.dsn("postgres", size), writes=True, application_name="bench") as admin:
        admin.execute("CREATE EXTENSION amcheck")
        for first in range(1, tables + 1, _STEP):
            text = _MADE.replace("{first}", str(first)).replace("{last}", str(first + _STEP - 1))
            admin.execute(text)
        admin.execute("VACUUM ANALYZE", timeout=0)
