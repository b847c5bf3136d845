"""What Prometheus reads of the service: how long requests took and how they ended, by route.

Bucket edges include the objectives (1 s and 1.5 s): a quantile between two edges is a guess, and 1.467 s was told as
2.167 s where the edge was missing (measured). Every series is there from the start, with zero: `increase()` over a
series that is born with its first error misses that error.
"""

import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Seconds. The objectives are p95 < 1 s and p99 < 1.5 s; the edges around them let one see by how much they are missed.
EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
#: How a request ended; the client's own mistakes are no errors of the service.
OUTCOMES = ("ok", "client_error", "rate_limited", "server_error", "aborted")
UNMATCHED = "unmatched"
_LONGEST = 512  #: of a path that is looked at


class Metrics:
    """The series of one process. `routes` are pairs of method and path template."""

    def __init__(self, routes: Iterable[tuple[str, str]], registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        labels = ("method", "route", "outcome")
        self.requests = Counter("aiprod_requests", "Requests that have ended.", labels, registry=self.registry)
        self.seconds = Histogram(
            "aiprod_request_seconds", "Time from a request to the last byte of its answer.", ("method", "route"),
            buckets=EDGES, registry=self.registry,
        )  # fmt: skip
        self._known = {*routes, ("OTHER", UNMATCHED)}
        paths = sorted({path for _, path in self._known}, key=lambda path: path.count("{"))
        self._patterns = [(_pattern(path), path) for path in paths]
        self.route_of = lru_cache(4096)(self._route_of)
        for method, route in sorted(self._known):
            self.seconds.labels(method, route)
            for outcome in OUTCOMES:
                self.requests.labels(method, route, outcome)

    def observe(self, method: str, route: str, status: int | None, seconds: float) -> None:
        """One request that has ended; without a status it was given up before it was answered."""
        known = (method, route) if (method, route) in self._known else ("OTHER", UNMATCHED)
        self.seconds.labels(*known).observe(seconds)
        self.requests.labels(*known, _outcome(status)).inc()

    def _route_of(self, path: str) -> str:
        """The template of a path, such as `/api/v1/jobs/{job_id}`: a path itself has too many values. By the path
        alone, for what is answered before the framework looks at it."""
        return next((template for pattern, template in self._patterns if pattern.fullmatch(path)), UNMATCHED)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its content type; of all processes where several serve
        (PROMETHEUS_MULTIPROC_DIR)."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:  # those of cache and limits are of the process
            own = b"" if self.registry is REGISTRY else generate_latest(self.registry)
            return own + generate_latest(REGISTRY), CONTENT_TYPE_LATEST
        for file in Path(folder).glob("gauge_live*_*.db"):
            number = int(file.stem.rpartition("_")[2])
            if not psutil.pid_exists(number):  # what a process that was killed said last is not so any more
                mark_process_dead(number, folder)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def _outcome(status: int | None) -> str:
    if status is None:
        return "aborted"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 else "client_error" if status >= 400 else "ok"


class Measured:
    """ASGI middleware, the outermost one: what a client waited for is what counts."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500 if status is None else status
            raise
        finally:
            route = self._metrics.route_of(scope["path"][:_LONGEST])
            self._metrics.observe(scope["method"], route, status, time.perf_counter() - began)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))
