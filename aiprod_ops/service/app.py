"""The API as an application: what is around every request, what is served, what has to be there before it starts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from aiprod_ops.service import around, database, settings
from aiprod_ops.service.document import browser, documentation, openapi
from aiprod_ops.service.http import problems
from aiprod_ops.service.http.request_ids import RequestIds
from aiprod_ops.service.http.requests import Service
from aiprod_ops.service.operations import (
    cached_values,
    deliveries,
    jobs,
    keys,
    pipelines,
    results,
    usage,
    users,
    webhooks,
)
from aiprod_ops.service.settings import Settings

PREFIX = "/api/v1"
#: What is served, in the order of the documents. Each owner's routes are walked by the tests with two users.
ROUTERS = tuple(
    each.router
    for each in (jobs, results, pipelines, users, keys, usage, webhooks, deliveries, cached_values, documentation)
)


def create_app(given: Settings | None = None) -> FastAPI:
    """The API. Without settings they come from the environment. It refuses to start without its schema."""
    app = FastAPI(
        title=openapi.TITLE,
        version=openapi.VERSION,
        lifespan=_lifespan,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    init_phase2_features(app, given)
    register_phase2_router(app)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    service: Service = app.state.service
    around.observe(app, service, around.promises_of(service.settings.service))
    app.add_middleware(RequestIds)
    browser.add_pages(app)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _told)
    return app


def init_phase2_features(app: FastAPI, given: Settings | None = None) -> None:
    """Give an application what the routes need, `app.state.service`, with the limits of its tiers and its cache. It
    connects with the first request; `await around.close(app.state.service)` when the application ends."""
    found = settings.from_environment() if given is None else given
    app.state.service = Service(found, database.engine(found))
    around.install(app, app.state.service, around.promises_of(found.service), PREFIX)


def register_phase2_router(app: FastAPI) -> None:
    """Add everything below /api/v1 to an application."""
    whole = APIRouter(prefix=PREFIX)
    for router in ROUTERS:
        whole.include_router(router)
    app.include_router(whole)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await database.check_ready(service.engine)
    yield
    await around.close(service)


async def _told(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        # The framework names the methods of the first route with this path, RFC 9110 (15.5.6) wants those of all.
        error.headers = {"Allow": ", ".join(_methods(request))}
    return problems.to_response(error, request)


def _methods(request: Request) -> list[str]:
    routes = request.app.routes
    asked = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "PATCH", "POST", "PUT")}
    return [
        name for name, scope in asked.items() if any(route.matches(dict(scope))[0] is Match.FULL for route in routes)
    ]


def from_environment() -> Any:
    """What uvicorn calls in each worker process."""
    return create_app()
