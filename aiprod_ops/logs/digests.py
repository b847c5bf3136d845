"""The digest of a log: what each statement cost, and what of the log was not understood."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.logs.plans import without_values
from aiprod_ops.units import Bytes, Milliseconds, Seconds


@dataclass(frozen=True, slots=True)
class Example:
    """One call with its values: users' data. `kind` is its class of skew: `fast`, `median` or `slow`.

    `parameters` are SQL literals in the order of `$1`, `$2`, …; None where the log cut them short.
    """

    kind: str
    duration: Milliseconds
    text: str
    parameters: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Row:
    """One statement of one database. Quantiles are within 1 %.

    `query_id` is the server's where `is_servers`, else one of our own. `prepared` counts the calls of named prepared
    statements, which may change over to a generic plan; `clients` are the applications that make them (10 at the most).
    `plan` is that of the slowest call that logged one, with its values.
    """

    query_id: int
    is_servers: bool
    database: str
    text: str
    calls: int
    prepared: int
    clients: tuple[str, ...]
    total: Milliseconds
    mean: Milliseconds
    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds
    max: Milliseconds
    first: datetime | None
    last: datetime | None
    temporary_files: int = 0
    temporary_bytes: Bytes = Bytes(0)
    examples: tuple[Example, ...] = ()
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """What one `application_name` called, and how much of it by name (prepared on the server)."""

    name: str
    calls: int
    prepared: int
    total: Milliseconds


@dataclass(frozen=True, slots=True)
class Digest:
    """Statements with the largest total first; with `others` the rows add up to `calls` and `total`.

    `others` are statements that cost too little to be kept while too many different ones came.
    """

    rows: tuple[Row, ...]
    others_calls: int
    others_total: Milliseconds
    applications: tuple[Application, ...]
    calls: int
    total: Milliseconds
    first: datetime | None
    last: datetime | None
    size: Bytes
    unread: Bytes
    notes: tuple[str, ...] = ()

    @property
    def window(self) -> Seconds:
        """From the first call to the last."""
        if self.first is None or self.last is None:
            return Seconds(0)
        return Seconds((self.last - self.first).total_seconds())

    def first_of(self, rank: Callable[[Row], Any], most: int) -> "Digest":
        """The same with the first rows by rank; the rest of them is in the others."""
        ranked = sorted(self.rows, key=rank)
        hidden = ranked[most:]
        return replace(
            self,
            rows=tuple(ranked[:most]),
            others_calls=self.others_calls + sum(row.calls for row in hidden),
            others_total=Milliseconds(self.others_total + sum(row.total for row in hidden)),
        )

    def without_values(self) -> "Digest":
        """The same without anything a user typed: this one may be shown and stored."""
        rows = tuple(replace(row, examples=(), plan=without_values(row.plan)) for row in self.rows)
        return replace(self, rows=rows)


def counted(number: int, one: str, more: str = "") -> str:
    """A number and what it counts; `more` is the plural where it is not formed with an s.

    >>> counted(1, "line"), counted(2000, "line"), counted(2, "entry", "entries")
    ('1 line', '2,000 lines', '2 entries')
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def workload(digest: Digest, missing: tuple[str, ...] = ()) -> Workload:
    """The digest as a workload. Its figures are lower bounds, for only slow calls are logged."""
    statements = tuple(
        Statement(row.query_id, row.text, row.calls, row.total, row.mean, source="log")
        for row in digest.rows
        if row.calls
    )
    return Workload(statements, digest.window, digest.total, missing)
