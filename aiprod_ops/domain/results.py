"""How a check, a proof or a drill ended, as monitoring wants to know it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.units import Seconds

_BASE = {"s": ("seconds", 1.0), "ms": ("seconds", 0.001), "B": ("bytes", 1.0), "ratio": ("ratio", 1.0),
         "×": ("ratio", 1.0), "": ("", 1.0)}  # fmt: skip
_GOOD = (Status.OK, Status.WARNING)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the labels of every sample name: which runbook, on what."""

    runbook: str
    target: str
    environment: str

    @property
    def labels(self) -> dict[str, str]:
        return {"runbook": self.runbook, "target": self.target, "environment": self.environment}


@dataclass(frozen=True, slots=True)
class Result:
    """One check, proof or drill that ended; `work` is that noun. `succeeded` is when one last ended OK or WARNING: this
    one, or one before it.

    `counts` are the findings by state; `measured` the exported figures by metric name, in base units.
    """

    subject: Subject
    work: str
    status: Status
    ended: datetime
    took: Seconds
    succeeded: datetime | None
    counts: Mapping[Status, int] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, a gauge: its help never changes between versions, because node_exporter drops a metric whose help
    differs from one file to the next. `samples` are (labels, value)."""

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def succeeded(status: Status, ended: datetime, before: datetime | None) -> datetime | None:
    """When the last success was: a failure keeps the one before it."""
    return ended if status in _GOOD else before


def counts(findings: Iterable[Finding]) -> dict[Status, int]:
    """Findings by state, states without any included."""
    states = [finding.status for finding in findings]
    return {state: states.count(state) for state in Status}


def exported(findings: Iterable[Finding], names: Iterable[str]) -> dict[str, float]:
    """The largest value of each exported finding (the larger the worse), by metric name and in base units.

    What is exported is named by the runbook, one sample each: a hundred bad indexes are not a hundred series.

    >>> exported([Finding("data age", 60_000.0, "ms"), Finding("data age", 90_000.0, "ms")], ["data age"])
    {'aiprod_ops_data_age_seconds': 90.0}
    """
    found: dict[str, float] = {}
    wanted = set(names)
    for finding in findings:
        if finding.metric in wanted and finding.value is not None:
            name, factor = metric_name(finding.metric, finding.unit)
            found[name] = max(found.get(name, float("-inf")), finding.value * factor)
    return found


def metric_name(words: str, unit: str) -> tuple[str, float]:
    """The name of a finding's metric, and the factor to its base unit.

    Source: Prometheus, "Metric and label naming": one prefix, base units, the unit as suffix.

    >>> metric_name("restore time", "ms"), metric_name("cores kept busy", "")
    (('aiprod_ops_restore_time_seconds', 0.001), ('aiprod_ops_cores_kept_busy', 1.0))
    """
    suffix, factor = _BASE.get(unit, (unit, 1.0))
    plain = re.sub(r"[^a-z0-9]+", "_", f"{words} {suffix}".lower()).strip("_")
    return f"aiprod_ops_{plain}", factor


def families(results: Iterable[Result]) -> list[Family]:
    """The metrics of some results; what nobody knows has no sample."""
    told = list(results)
    made: list[Family] = []
    for work in ("check", "proof", "drill"):
        made += _of_work(work, [each for each in told if each.work == work])
    measured = sorted({name for result in told for name in result.measured})
    made += [
        Family(
            name, "Largest value that was found last.",
            tuple((r.subject.labels, r.measured[name]) for r in told if name in r.measured),
        )
        for name in measured
    ]  # fmt: skip
    return [family for family in made if family.samples]


def _of_work(work: str, results: list[Result]) -> list[Family]:
    prefix = f"aiprod_ops_{work}"
    return [
        Family(
            f"{prefix}_status", f"How the last {work} ended: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
            tuple((r.subject.labels, float(r.status)) for r in results),
        ),
        Family(
            f"{prefix}_last_run_timestamp_seconds", f"When the last {work} ended.",
            tuple((r.subject.labels, r.ended.timestamp()) for r in results),
        ),
        Family(
            f"{prefix}_last_success_timestamp_seconds", f"When a {work} last ended OK or WARNING.",
            tuple((r.subject.labels, r.succeeded.timestamp()) for r in results if r.succeeded is not None),
        ),
        Family(
            f"{prefix}_duration_seconds", f"How long the last {work} took.",
            tuple((r.subject.labels, float(r.took)) for r in results),
        ),
        Family(
            f"{prefix}_findings", f"Findings of the last {work} by state.",
            tuple(
                ({**r.subject.labels, "state": state.name.lower()}, float(number))
                for r in results
                for state, number in r.counts.items()
            ),
        ),
    ]  # fmt: skip
