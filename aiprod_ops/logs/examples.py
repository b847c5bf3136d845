"""A few calls of a statement, kept with their values: the fastest, some of the middle, the slowest.

What a value costs follows from how common it is; so these three stand for the classes of skew that a proof measures
with. Which calls are kept depends on the calls alone, not on their order: the middle ones are taken from a bottom-k
sample. Source: Cohen, Kaplan: Summarizing data using bottom-k sketches, PODC 2007.
"""

from collections.abc import Sequence
from zlib import crc32

EACH = 3
_SAMPLE = 16
MOST_TEXT = 2048  #: characters of text and detail; the values of a longer call are not kept

Kept = tuple[float, str, str]  #: milliseconds, text, detail


class Examples:
    """Calls with values; users' data, that stay in memory."""

    __slots__ = ("_fast", "_sample", "_slow")

    def __init__(self) -> None:
        self._fast: list[Kept] = []
        self._slow: list[Kept] = []
        self._sample: list[tuple[int, Kept]] = []

    def add(
        self, stamps: Sequence[str], durations: Sequence[float], texts: Sequence[str], details: Sequence[str]
    ) -> None:
        """Look at calls; the four sequences are of one length."""
        calls = zip(durations, texts, details, strict=True)
        edge = self._fast[-1][0] if len(self._fast) == EACH else float("inf")
        if min(durations) <= edge:
            self._fast = sorted({*self._fast, *(call for call in calls if call[0] <= edge and _is_short(call))})[:EACH]
        calls = zip(durations, texts, details, strict=True)
        edge = self._slow[-1][0] if len(self._slow) == EACH else 0.0
        if max(durations) >= edge:
            found = {*self._slow, *(call for call in calls if call[0] >= edge and _is_short(call))}
            self._slow = sorted(found, reverse=True)[:EACH]
        # Evenly spread, and the same whatever the order: the timestamp and the duration, hashed.
        ranks = [*map(crc32, map(str.encode, stamps), [int(ms * 1000) for ms in durations])]
        top = self._sample[-1][0] if len(self._sample) == _SAMPLE else 2**32
        if min(ranks) <= top:
            drawn = zip(ranks, zip(durations, texts, details, strict=True), strict=True)
            found_ranks = {*self._sample, *(one for one in drawn if one[0] <= top and _is_short(one[1]))}
            self._sample = sorted(found_ranks)[:_SAMPLE]

    def by_class(self, median_ms: float) -> dict[str, list[Kept]]:
        """The kept calls as `fast`, `median`, `slow`; no call stands in two of them."""
        slow = [one for one in self._slow if one not in self._fast]
        rest = {kept for _, kept in self._sample} - {*self._fast, *slow}
        middle = sorted(rest, key=lambda one: (abs(one[0] - median_ms), one))[:EACH]
        return {"fast": self._fast, "median": middle, "slow": slow}


def _is_short(call: Kept) -> bool:
    return len(call[1]) + len(call[2]) <= MOST_TEXT
