"""What stands around the operations of the API: limits and stored responses; metrics and health.

From the outermost to the innermost: how long it took; the fields that tell a caller how they stand; the count of a
request whose caller is known without the database; what is answered from the cache. A caller who is not known yet is
counted by a guard of the operation, when its key was looked at.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from fastapi import FastAPI, Request, Response
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from aiprod_ops import config
from aiprod_ops.config import Promises
from aiprod_ops.errors import Unreachable
from aiprod_ops.service import database, health, parts
from aiprod_ops.service.cache import SHORT_TTL, RedisCache, invalidate_job_cache, invalidate_user_cache
from aiprod_ops.service.caching.keys import Tags
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.caching.routes import Route
from aiprod_ops.service.caching.stored import Caller as Reader
from aiprod_ops.service.caching.stored import StoredResponses
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.service.health import Check, HealthReport
from aiprod_ops.service.http import problems
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.request_ids import RequestIds
from aiprod_ops.service.http.requests import Service
from aiprod_ops.service.limiting.decisions import Limiter
from aiprod_ops.service.limiting.promised import tiers
from aiprod_ops.service.limits import Client, RateLimited, RateLimitFields, RateLimits
from aiprod_ops.service.metrics import Measured, Metrics
from aiprod_ops.service.parts import Thresholds
from aiprod_ops.units import Seconds, seconds

_LIFETIME = Lifetime(SHORT_TTL, Seconds(6), Seconds(15))
_METHODS = ("delete", "get", "patch", "post", "put")
_DECIDED = "rate_limit_decision"


def stored(prefix: str) -> tuple[Route, ...]:
    """The responses that are stored: what is polled. Each is its caller's, and goes with whatever that one changes."""
    job, kinds = Tags(("job:{job_id}",)), {"job_id": UUID}
    return (
        Route(f"{prefix}/jobs", _LIFETIME),
        Route(f"{prefix}/jobs/{{job_id}}", _LIFETIME, job, kinds=kinds),
        Route(f"{prefix}/jobs/{{job_id}}/result", _LIFETIME, job, kinds=kinds),
    )


class CountedFirst:
    """Middleware: a request whose key was found right lately is counted before it may be answered from the cache.
    What is not below `prefix` is not ours to count."""

    def __init__(self, app: ASGIApp, service: Service, limits: RateLimits, prefix: str) -> None:
        self._app, self._service, self._limits, self._prefix = app, service, limits, f"{prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and scope["path"].startswith(self._prefix)
        caller = self._service.verified.identify(scope) if is_ours else None
        if caller is not None:
            request = Request(scope)
            request.state.caller = caller
            try:
                await self._limits.count(request, 1)
            except RateLimited as error:
                answer = problems.response(_refused(error), scope.get("request_id", ""), scope["path"])
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)


def _refused(error: RateLimited) -> Problem:
    violated = {"violated-policies": error.problem["violated-policies"]}
    return Problem("RATE_LIMITED", error.problem["detail"], headers=error.fields, more=violated)


def _client(request: Request) -> Client:
    return Client(request.state.caller.user_id, request.state.caller.tier)


def install(app: FastAPI, service: Service, promises: Promises, prefix: str) -> None:
    """Keep the tiers and store what is polled, below `prefix`. An application that has started takes no middleware any
    more: there nothing is stored, and no answer tells how its caller stands."""
    service.tiers = tiers(promises)
    limiter, cache = Limiter(RedisPlace.of_environment(), processes=service.settings.processes), RedisCache()
    limits = RateLimits(limiter, service.tiers, _client)

    async def count(request: Request) -> None:
        if getattr(request.state, _DECIDED, None) is None:
            try:
                await limits.count(request, 1)
            except RateLimited as error:
                raise _refused(error) from error

    async def forget(request: Request) -> None:
        if "job_id" in request.path_params:
            await invalidate_job_cache(str(UUID(request.path_params["job_id"])))
        await invalidate_user_cache(request.state.caller.user_id)

    def reader(scope: Scope) -> Reader | None:
        caller = service.verified.identify(scope)
        return Reader(caller.user_id, " ".join(sorted(caller.scopes))) if caller else None

    service.guards.append(count)
    service.after_change.append(forget)
    service.closing += [limiter.close, cache.close]
    if app.middleware_stack is None:
        app.add_middleware(StoredResponses, cache=cache, routes=stored(prefix), identify=reader)
        app.add_middleware(CountedFirst, service=service, limits=limits, prefix=prefix)
        app.add_middleware(RateLimitFields)
        app.add_middleware(RequestIds, prefix=prefix)


def observe(app: FastAPI, service: Service, promises: Promises) -> None:
    """Serve `/health/*` and `/metrics` of an application whose routes are there."""
    metrics = Metrics(_operations(app))
    app.add_middleware(Measured, metrics=metrics)
    engines = {
        name: database.engine(service.settings, dsn=dsn, connections=2)
        for name, dsn in (("primary", service.settings.dsn), *_numbered(service.settings.replicas))
    }
    service.closing += [each.dispose for each in engines.values()]
    report = HealthReport(checks(engines, RedisCache(), promises, service.settings.evidence))
    app.include_router(health.router(report))

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        text, kind = metrics.exposition()
        return Response(text, media_type=kind)


def _operations(app: FastAPI) -> list[tuple[str, str]]:
    paths = app.openapi()["paths"]
    found = [(method.upper(), path) for path, each in paths.items() for method in each if method in _METHODS]
    return [*found, *(("GET", f"{health.PREFIX}/{name}") for name in health.PATHS)]


def _numbered(replicas: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(number), dsn) for number, dsn in enumerate(replicas, start=1)]


def checks(
    engines: Mapping[str, AsyncEngine], cache: RedisCache, promises: Promises, evidence: Path | None
) -> Sequence[Check]:
    """The parts that every process looks at, through connections that serve no request."""
    primary = engines["primary"]
    others = {name: engine for name, engine in engines.items() if name != "primary"}
    limits = Thresholds(
        lag=seconds(promises.get("replication.lag")),
        queue_age=seconds(promises.get("health.queue_age")),
        webhook_age=seconds(promises.get("webhooks.backlog")),
        disk=float(promises.get("health.disk")),
        verified=seconds(promises.get("backups.verified")),
    )

    class Answering:
        async def ping(self) -> None:
            told = await cache.health()
            if told["status"] != "healthy":
                raise Unreachable(told["why"] or "no answer")

    return (
        parts.database(primary, limits),
        *parts.replicas(primary, others, limits),
        parts.cache(Answering()),
        parts.queue(primary, limits),
        parts.webhooks(primary, limits),
        parts.disk(Path.cwd(), limits),
        parts.backups(lambda: parts.verified_backup(evidence), limits),
    )


def promises_of(service_toml: Path | None) -> Promises:
    """What `service.toml` promises: the shipped one, and the user's over it."""
    return config.Settings(Path(), {}, service=service_toml).promises


async def close(service: Service) -> None:
    """Disconnect from everything; what cannot be told good-bye to within a second is left."""
    for end in (*service.closing, service.engine.dispose):
        with_time = asyncio.wait_for(end(), 1)
        try:
            await with_time
        except (TimeoutError, OSError):
            continue
