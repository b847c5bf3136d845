"""Statements of a workload, and which of them cost too much."""

from dataclasses import dataclass

from aiprod_ops.units import Milliseconds, Seconds


@dataclass(frozen=True, slots=True)
class Statement:
    """One normalised statement (`$1`, `$2`, … for its constants), summed over users: one for each query id.

    `total` and `mean` are execution time, `rows` what all calls returned or changed; None where nobody counts them.
    `source` says where the figures come from: `pg_stat_statements` or `log` (where only calls over
    `log_min_duration_statement` are counted, so `calls` and `total` are lower bounds).
    """

    query_id: int
    text: str
    calls: int
    total: Milliseconds
    mean: Milliseconds
    rows: int | None = None
    source: str = "pg_stat_statements"


@dataclass(frozen=True, slots=True)
class Workload:
    """The statements of one database over a window, largest total first; `missing` says what could not be read."""

    statements: tuple[Statement, ...]
    window: Seconds  #: how long these figures were collected
    total: Milliseconds  #: execution time of all statements, also those not listed
    missing: tuple[str, ...] = ()

    def share(self, statement: Statement) -> float:
        """Which part of the database's execution time this statement took, 0 to 1."""
        return statement.total / self.total if self.total > 0 else 0.0

    def load(self, statement: Statement) -> float:
        """Seconds of execution time a second: 1.0 keeps one core busy."""
        return statement.total / 1000 / self.window if self.window > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log tells of a statement: calls over `log_min_duration_statement`, and the plan of the slowest one that
    auto_explain logged. The plan holds users' data: it is shown to those who ask, and never stored. `clients` are the
    applications that prepare it: a generic plan is a matter for them.
    """

    calls: int
    p95: Milliseconds
    plan: str = ""
    clients: tuple[str, ...] = ()
