"""What a check found, and how bad it is."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from aiprod_ops.units import show


class Status(IntEnum):
    """The states of the monitoring-plugin convention; the value is the exit code.

    Source: Monitoring Plugins Development Guidelines, "Plugin Return Codes".
    """

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def severity(self) -> int:
        """Rank for aggregation: CRITICAL > WARNING > UNKNOWN > OK."""
        return {Status.OK: 0, Status.UNKNOWN: 1, Status.WARNING: 2, Status.CRITICAL: 3}[self]


def worst(states: Iterable[Status]) -> Status:
    """Aggregate states; of none at all nothing is known.

    >>> worst([Status.OK, Status.UNKNOWN]).name, worst([Status.WARNING, Status.UNKNOWN]).name, worst([]).name
    ('UNKNOWN', 'WARNING', 'UNKNOWN')
    """
    return max(states, key=lambda state: state.severity, default=Status.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged measurement. At or above `crit` it is CRITICAL, at or above `warn` WARNING.

    A finding without a value is UNKNOWN and `note` says what was missing; without thresholds it is information (OK).
    `columns` are further cells for the table people see, in order.

    >>> Finding("lag", 12.0, "s", warn=5, crit=30).status.name
    'WARNING'
    >>> Finding("lag", None, "s", note="pg_monitor is missing").status.name
    'UNKNOWN'
    """

    metric: str
    value: float | None
    unit: str = ""
    warn: float | None = None
    crit: float | None = None
    note: str = ""
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        if self.value is None or self.value != self.value:
            return Status.UNKNOWN
        if self.crit is not None and self.value >= self.crit:
            return Status.CRITICAL
        if self.warn is not None and self.value >= self.warn:
            return Status.WARNING
        return Status.OK

    @property
    def shown(self) -> str:
        """The value with its unit, for people."""
        return "-" if self.value is None else show(self.value, self.unit)
