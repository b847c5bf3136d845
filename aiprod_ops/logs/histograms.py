"""Quantiles in bounded memory: counts by logarithmic bucket, each value known within 1 %.

Source: Masson, Rim, Lee: DDSketch, VLDB 2019: the bucket of x is ceil(log_γ x), γ = (1 + α) / (1 − α), and the value
reported for bucket i is 2 γ^i / (γ + 1), at the most α away from all that are in it.
"""

import math
from collections import Counter
from collections.abc import Sequence

ERROR = 0.01  #: α
LEAST_MS = 0.001  #: PostgreSQL's resolution; also what 0.000 counts as
MOST_BUCKETS = 512  #: they span a factor of 28,000; beyond that the lowest are joined, as DDSketch does
_GAMMA = (1 + ERROR) / (1 - ERROR)
_SCALE = 1 / math.log(_GAMMA)


class Histogram:
    """How often each duration was seen."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, durations_ms: Sequence[float]) -> None:
        """Count values."""
        ceil = math.ceil
        if min(durations_ms) < LEAST_MS:
            durations_ms = [max(ms, LEAST_MS) for ms in durations_ms]
        self._counts.update([ceil(exponent * _SCALE) for exponent in map(math.log, durations_ms)])
        if len(self._counts) > MOST_BUCKETS:
            self._join()

    def merge(self, other: "Histogram") -> None:
        """Count what another one counted."""
        self._counts.update(other._counts)
        self._join()

    def quantile(self, q: float) -> float:
        """The value below which the part `q` (0 to 1) of all lies, by nearest rank; 0 of nothing."""
        rank = max(1, math.ceil(q * self._counts.total()))
        for bucket, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return 0.0

    def _join(self) -> None:
        lowest = sorted(self._counts)[: max(0, len(self._counts) - MOST_BUCKETS)]
        if lowest:
            floor = min(bucket for bucket in self._counts if bucket > lowest[-1])
            self._counts[floor] += sum(self._counts.pop(bucket) for bucket in lowest)
