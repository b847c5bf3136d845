"""What a check found, and how bad it is."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
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
    `columns` are further cells for the table people see, in order. `id` names the finding for waivers and for the
    comparison with the last check: the same fault has the same id every time; by default it is the metric. `waived`
    says until when somebody accepted it, and why; then it counts as OK.

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
    id: str = ""
    waived: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.metric)

    @property
    def status(self) -> Status:
        """What counts: OK where somebody waived it."""
        return Status.OK if self.waived else self.judged

    @property
    def judged(self) -> Status:
        """What was seen, waived or not."""
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


@dataclass(frozen=True, slots=True)
class Waiver:
    """Somebody accepts a finding until the end of a day (UTC), and says why. Without a target it is for all of them."""

    finding: str
    until: date
    reason: str
    target: str = ""

    def covers(self, finding: Finding, target: str) -> bool:
        return self.finding == finding.id and self.target in ("", target)


def waived(findings: Iterable[Finding], waivers: Iterable[Waiver], target: str, today: date) -> list[Finding]:
    """The findings with the waivers that cover them; one that has expired is told in the note and waives nothing.

    >>> lag = Finding("lag", 12.0, "s", warn=5)
    >>> waiver = Waiver("lag", date(2027, 1, 31), "known")
    >>> [f.status.name for f in waived([lag], [waiver], "lab", date(2027, 1, 31))]
    ['OK']
    >>> [(f.status.name, f.note) for f in waived([lag], [waiver], "lab", date(2027, 2, 1))]
    [('WARNING', 'its waiver expired on 2027-01-31 (known)')]
    """
    known = sorted(waivers, key=lambda waiver: waiver.until)
    return [_waived(finding, [each for each in known if each.covers(finding, target)], today) for finding in findings]


def _waived(finding: Finding, waivers: list[Waiver], today: date) -> Finding:
    if not waivers or finding.judged is Status.OK:
        return finding
    last = waivers[-1]
    if today <= last.until:
        return replace(finding, waived=f"until {last.until}: {last.reason}")
    told = f"its waiver expired on {last.until} ({last.reason})"
    return replace(finding, note=f"{finding.note}; {told}" if finding.note else told)
