"""The figures of one statement, added up call by call."""

import math
from collections.abc import Sequence

from aiprod_ops.logs.entries import Call, Plan
from aiprod_ops.logs.examples import Examples
from aiprod_ops.logs.histograms import Histogram
from aiprod_ops.logs.shapes import MOST_TEXT

MOST_PLAN = 16_384  #: characters
MOST_CLIENTS = 10


class Figures:
    """Counts, times in whole microseconds (so that no order of adding changes a sum), quantiles, examples, a plan."""

    __slots__ = ("calls", "clients", "examples", "first", "histogram", "last", "max_ms", "plan", "plan_ms", "prepared",
                 "spilled", "spills", "text", "total_us")  # fmt: skip

    def __init__(self, text: str) -> None:
        self.text = text[:MOST_TEXT]
        self.calls = self.total_us = self.prepared = self.spills = self.spilled = 0
        self.max_ms = self.plan_ms = 0.0
        self.first = self.last = self.plan = ""
        self.histogram = Histogram()
        self.examples = Examples()
        self.clients: set[str] = set()

    def add(self, calls: Sequence[Call]) -> tuple[int, int]:
        """Count calls; answers how many of them were prepared, and their time in microseconds."""
        stamps, _, written, names, texts, details, *_ = zip(*calls, strict=True)
        durations = [*map(float, written)]
        # A sum of values with three decimals is one: rounding takes nothing away.
        total_us, prepared = round(math.fsum(durations) * 1000), len(names) - names.count("")
        self.calls += len(calls)
        self.total_us += total_us
        self.prepared += prepared
        self.max_ms = max(self.max_ms, *durations)
        self._span(min(stamps), max(stamps))
        self.histogram.add(durations)
        self.examples.add(stamps, durations, texts, details)
        return prepared, total_us

    def prepared_by(self, application: str) -> None:
        """Remember who prepares it."""
        if len(self.clients) < MOST_CLIENTS:
            self.clients.add(application)

    def explain(self, plan: Plan) -> None:
        """Keep the plan of the slowest call that has one."""
        if (plan.duration_ms, plan.plan) > (self.plan_ms, self.plan):
            self.plan_ms, self.plan = plan.duration_ms, plan.plan[:MOST_PLAN]

    def spill(self, size: int) -> None:
        """Count a temporary file."""
        self.spills += 1
        self.spilled += size

    def merge(self, other: "Figures") -> None:
        """Take in another statement's counts and times."""
        for name in ("calls", "total_us", "prepared", "spills", "spilled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_ms = max(self.max_ms, other.max_ms)
        if other.calls:
            self._span(other.first, other.last)
        self.histogram.merge(other.histogram)

    def _span(self, first: str, last: str) -> None:
        self.first = min(self.first or first, first)
        self.last = max(self.last, last)
