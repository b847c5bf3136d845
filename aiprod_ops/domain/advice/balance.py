"""What an index is worth to the whole workload: what its readers save, against what the writes on its table lose."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weight:
    """Buffers and milliseconds, of one call or of a minute; below 0 they are lost."""

    buffers: float = 0.0
    ms: float = 0.0

    def times(self, factor: float) -> "Weight":
        return Weight(self.buffers * factor, self.ms * factor) if factor else Weight()

    @classmethod
    def total(cls, parts: Iterable["Weight"]) -> "Weight":
        """The sum.

        >>> Weight.total([Weight(3, 1.5), Weight(-1, 0.5)])
        Weight(buffers=2, ms=2.0)
        """
        found = list(parts)
        return cls(sum(each.buffers for each in found), sum(each.ms for each in found))


@dataclass(frozen=True, slots=True)
class Balance:
    """Of one index, or of several on one table, a minute: what reads gain, and what writes do (mostly less than 0)."""

    reads: Weight
    writes: Weight

    @property
    def net(self) -> Weight:
        return Weight.total([self.reads, self.writes])

    @property
    def is_loss(self) -> bool:
        """Buffers decide: they repeat, times of writes on a busy machine do not.

        >>> Balance(Weight(25_000, 140), Weight(-1_800_000, -3_000)).is_loss
        True
        """
        return self.net.buffers < 0

    def __str__(self) -> str:
        return (
            f"saves {_counted(self.reads.buffers)} buffers a minute for reads ({self.reads.ms:,.1f} ms), "
            f"costs {_counted(0 - self.writes.buffers)} for writes ({0 - self.writes.ms:,.1f} ms)"
        )


def _counted(buffers: float) -> str:
    """What ran out of time has no end."""
    return f"{buffers:,.0f}" if math.isfinite(buffers) else "uncounted"


def best(balances: Sequence[Balance]) -> Balance:
    """The one with most gained: nobody knows which kind of plan clients take, and one that gains by it is enough."""
    return max(balances, key=lambda each: each.net.buffers)
