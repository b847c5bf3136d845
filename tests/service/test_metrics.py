"""What Prometheus reads: every series from the start, edges at the objectives, no path as a label."""

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiprod_ops.service.metrics import OUTCOMES, Measured, Metrics

ROUTES = [("GET", "/api/v1/jobs/{job_id}"), ("POST", "/api/v1/jobs")]


class Route:
    path = "/api/v1/jobs/{job_id}"


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, _ = metrics.exposition()
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
        if not each.name.endswith("_created")
    }


def counted(metrics: Metrics, method: str, route: str, outcome: str) -> float:
    labels = {"method": method, "route": route, "outcome": outcome}
    return samples(metrics)["aiprod_requests_total", tuple(sorted(labels.items()))]


def test_every_series_is_there_before_the_first_request() -> None:
    made = Metrics(ROUTES)
    for method, route in [*ROUTES, ("OTHER", "unmatched")]:
        for outcome in OUTCOMES:
            assert counted(made, method, route, outcome) == 0
    assert {value for (name, _), value in samples(made).items() if name.startswith("aiprod_request")} == {0.0}


def test_the_objectives_are_edges() -> None:
    edges = {dict(labels).get("le") for (name, labels) in samples(Metrics(ROUTES)) if name.endswith("_bucket")}
    assert {"1.0", "1.5"} <= edges


async def _call(app: Measured, method: str = "GET", **scope: Any) -> None:
    async def send(message: Any) -> None:
        pass

    await app({"type": "http", "method": method, "path": "/api/v1/jobs/7", **scope}, send, send)


def answering(status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})

    return app


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (304, "ok"),
        (404, "client_error"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_how_a_request_ended(status: int, outcome: str) -> None:
    made = Metrics(ROUTES)
    asyncio.run(_call(Measured(answering(status), made)))
    assert counted(made, "GET", Route.path, outcome) == 1


def test_an_exception_is_an_error_and_a_client_that_leaves_is_none() -> None:
    made = Metrics(ROUTES)

    async def raising(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    async def leaving(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError):
        asyncio.run(_call(Measured(raising, made)))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_call(Measured(leaving, made)))
    assert counted(made, "GET", Route.path, "server_error") == 1
    assert counted(made, "GET", Route.path, "aborted") == 1


def test_whatever_a_client_types_makes_no_series() -> None:
    made = Metrics(ROUTES)
    before = set(samples(made))
    for n in range(50):
        asyncio.run(_call(Measured(answering(404), made), method=f"X{n}"))
    assert set(samples(made)) == before
