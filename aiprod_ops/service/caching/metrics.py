"""What the cache tells Prometheus. Every series is there from the start, as zero: a first error is seen as a rise."""

from dataclasses import dataclass
from enum import Enum

from prometheus_client import Counter, Gauge

_REQUESTS = Counter(
    "aiprod_cache_requests",
    "Answers by cache (a key prefix, a route's template, or values) and result: hit, stale (served, and renewed beside "
    "it), miss, or bypass (Redis was not asked or did not answer). Hit rate: (hit + stale) / all.",
    ("cache", "result"),
)
_STORES = Counter("aiprod_cache_stores", "Entries computed, by what became of them.", ("outcome",))
_FAILURES = Counter("aiprod_cache_redis_failures", "What Redis did other than to answer, by kind.", ("kind",))
_INVALIDATIONS = Counter(
    "aiprod_cache_invalidations", "Tags invalidated: done, or owed to a Redis that did not answer.", ("outcome",)
)
_IS_OPEN = Gauge(
    "aiprod_cache_breaker_open", "1 while Redis is left alone and the origin answers.", multiprocess_mode="livemax"
)

_KINDS = ("full", "readonly", "refused", "timeout", "garbage", "connection")


class Result(Enum):
    """How a request was answered."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Counted:
    """The series of one cache."""

    series: dict[Result, Counter]

    @classmethod
    def of(cls, cache: str) -> "Counted":
        return cls({result: _REQUESTS.labels(cache, result.value) for result in Result})

    def tell(self, result: Result) -> None:
        self.series[result].inc()


_FAILED = {kind: _FAILURES.labels(kind) for kind in _KINDS}
_STORED = {outcome: _STORES.labels(outcome) for outcome in ("stored", "lost", "unfit")}
_INVALIDATED = {outcome: _INVALIDATIONS.labels(outcome) for outcome in ("done", "owed")}


def failed(kind: str) -> None:
    """Redis did other than to answer."""
    _FAILED[kind].inc()


def stored(outcome: str) -> None:
    """An entry was computed: stored, lost (Redis did not take it), or unfit to be stored."""
    _STORED[outcome].inc()


def invalidated(outcome: str, tags: int) -> None:
    """So many tags: done or owed."""
    _INVALIDATED[outcome].inc(tags)


def changed(is_closed: bool) -> None:
    """The breaker."""
    _IS_OPEN.set(0 if is_closed else 1)
