"""What limits tell Prometheus. Every series is there from the start, as zero: a first refusal is seen as a rise."""

from prometheus_client import Counter, Gauge

from aiprod_ops.domain.quotas import Decision

_DECISIONS = Counter(
    "aiprod_limit_decisions",
    "Requests that were counted: allowed or refused, by redis, or local (by one process alone, on its part).",
    ("outcome", "decided"),
)
_IS_LOCAL = Gauge(
    "aiprod_limit_is_local", "1 while Redis fails and each process keeps its part of the limits.",
    multiprocess_mode="livemax",
)  # fmt: skip

_SERIES = {
    (is_allowed, is_local): _DECISIONS.labels("allowed" if is_allowed else "refused", "local" if is_local else "redis")
    for is_allowed in (True, False)
    for is_local in (True, False)
}


def decided(decision: Decision) -> None:
    """A request was counted."""
    _SERIES[decision.is_allowed, decision.is_local].inc()


def changed(is_closed: bool) -> None:
    """Redis decides, or each process does."""
    _IS_LOCAL.set(not is_closed)
