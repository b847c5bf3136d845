"""What was measured on a copy, before and after."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiprod_ops.domain.findings import Finding, Status


@dataclass(frozen=True, slots=True)
class Sampled:
    """Several runs of one measurement: median, smallest, largest, and how many there were."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sampled":
        """Summarise at least one value.

        >>> Sampled.of([3.0, 1.0, 2.0])
        Sampled(median=2.0, low=1.0, high=3.0, n=3)
        """
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing measured before and after the plan. Smaller is better."""

    what: str
    unit: str
    before: Sampled
    after: Sampled
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """How many times smaller it became; below 1 it became worse. Nothing at all counts as half a unit."""
        return max(self.before.median, 0.5) / max(self.after.median, 0.5)


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict of a copy. `refused` maps the names of actions to the reason, with the figures; `worth` are rows of a
    table that tells what there is already is worth (an index: what it saves, what it costs). `findings` judge the copy
    itself: a CRITICAL one disproves it, of an UNKNOWN one nobody can tell whether it does."""

    comparisons: tuple[Comparison, ...]
    refused: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    worth: tuple[dict[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def against(self) -> dict[str, str]:
        """What speaks against it: by the name of an action or of a finding, with the reason."""
        return self.refused | self._told(Status.CRITICAL)

    @property
    def untold(self) -> dict[str, str]:
        """What could not be looked at, with the reason."""
        return self._told(Status.UNKNOWN)

    def _told(self, status: Status) -> dict[str, str]:
        found = [each for each in self.findings if each.status is status]
        return {each.metric: " ".join(filter(None, [each.shown, each.note])) for each in found}
