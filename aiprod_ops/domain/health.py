"""What a service says of itself: each part judged by one figure, and what of that means that it cannot serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiprod_ops.domain.findings import Finding, Status, worst
from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Part:
    """What was found of one part; `took` is how long the look at it was. Without a vital part nothing can be served;
    of any other the service works without."""

    name: str
    findings: tuple[Finding, ...]
    took: Seconds
    is_vital: bool = False

    @property
    def status(self) -> Status:
        return worst(each.status for each in self.findings)


@dataclass(frozen=True, slots=True)
class Health:
    """All parts at one moment."""

    parts: tuple[Part, ...]
    at: datetime

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here. A vital part of which nobody knows how it is may be gone."""
        return all(each.status not in (Status.CRITICAL, Status.UNKNOWN) for each in self.parts if each.is_vital)

    @property
    def status(self) -> str:
        """`healthy`, `degraded` where something is wrong that it works without, or `unhealthy`."""
        if not self.is_ready:
            return "unhealthy"
        return "healthy" if worst(each.status for each in self.parts) is Status.OK else "degraded"

    def as_json(self) -> dict[str, Any]:
        """For whoever asks; times in milliseconds."""
        return {
            "status": self.status,
            "at": self.at.isoformat(),
            "checks": {each.name: _part(each) for each in self.parts},
        }


def _part(part: Part) -> Mapping[str, Any]:
    return {
        "status": part.status.name,
        "vital": part.is_vital,
        "took_ms": round(part.took * 1000, 1),
        "findings": [_finding(each) for each in part.findings],
    }


def _finding(finding: Finding) -> Mapping[str, Any]:
    limits = {name: limit for name, limit in (("warn", finding.warn), ("crit", finding.crit)) if limit is not None}
    said = {"note": finding.note} if finding.note else {}
    return {
        "metric": finding.metric,
        "value": finding.value,
        "unit": finding.unit,
        "status": finding.status.name,
        **limits,
        **said,
    }


def unknown(name: str, why: str, took: Seconds, *, is_vital: bool) -> Part:
    """A part that could not be looked at."""
    return Part(name, (Finding(name, None, note=why),), took, is_vital)
