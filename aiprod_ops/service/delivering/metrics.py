"""What Prometheus reads of sending webhooks. Endpoints are no labels: there are too many."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aiprod_ops.domain.exchanges import NoAnswer

#: Seconds. An attempt ends after fifteen.
_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
#: The classes of HTTP's statuses, and why there was none.
ANSWERS = ("2xx", "3xx", "4xx", "5xx", *(each.value for each in NoAnswer))


class DeliveryMetrics:
    """The series of one process; all are there from the start, as zero."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.attempts = Counter("aiprod_webhook_attempts", "Attempts, by answer.", ("answer",), registry=self.registry)
        self.ended = Counter("aiprod_webhook_deliveries", "Deliveries that ended.", ("state",), registry=self.registry)
        self.seconds = Histogram(
            "aiprod_webhook_attempt_seconds", "How long attempts took.", buckets=_EDGES, registry=self.registry
        )
        self.late = Histogram(
            "aiprod_webhook_late_seconds", "From when a delivery was due until it was taken.",
            buckets=(*_EDGES, 60, 300), registry=self.registry,
        )  # fmt: skip
        self.in_hand = Gauge("aiprod_webhook_in_hand", "Deliveries in hand.", registry=self.registry)
        self.unwritten = Gauge("aiprod_webhook_unwritten", "Answered, and not written yet.", registry=self.registry)
        self.lost = Counter("aiprod_webhook_leases_lost", "Deliveries others took over.", registry=self.registry)
        self.broken = Counter(
            "aiprod_webhook_connections_lost", "Connections to PostgreSQL that broke.", registry=self.registry
        )
        self.disabled = Counter("aiprod_webhook_endpoints_disabled", "Endpoints disabled.", registry=self.registry)
        self.enabled = Counter(
            "aiprod_webhook_endpoints_enabled", "Endpoints enabled by a probe.", registry=self.registry
        )
        self._attempts = {answer: self.attempts.labels(answer) for answer in ANSWERS}
        self._ended = {state: self.ended.labels(state) for state in ("delivered", "failed")}

    def attempted(self, status: int | None, error: NoAnswer | None, milliseconds: float, state: str) -> None:
        """One attempt, and what the delivery is after it."""
        answer = f"{status // 100}xx" if status is not None else error.value if error is not None else ""
        self._attempts.get(answer, self._attempts["garbled"]).inc()
        self.seconds.observe(milliseconds / 1000)
        if state in self._ended:
            self._ended[state].inc()
