"""Limits on the requests of an API: what its application imports.

    app.state.rate_limits = RateLimits(Limiter(RedisPlace.of_environment(), processes=8), tiers(promises), client_of)
    install(app)

    @router.post("/jobs", dependencies=[Depends(authenticated), Depends(limited())])

`client_of` tells whose request it is, from what authentication has left in `request.state`. Each response to a request
that was counted carries `RateLimit` and `RateLimit-Policy`, whatever came of it; one that is refused is a 429.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiprod_ops.domain.quotas import Decision
from aiprod_ops.domain.tiers import Tier
from aiprod_ops.service.limiting import metrics
from aiprod_ops.service.limiting.decisions import Limiter
from aiprod_ops.service.limiting.fields import problem, response_fields

__all__ = ["Client", "Limiter", "RateLimitFields", "RateLimited", "RateLimits", "install", "limited"]

_STATE = "rate_limit_decision"


@dataclass(frozen=True, slots=True)
class Client:
    """Who is limited: a user, or an address where there is none; and by which tier."""

    name: str
    tier: str


class RateLimited(Exception):
    """A request was refused. The answer to it is `problem` with `fields`, status 429."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.problem = problem(decision)
        self.fields = response_fields(decision)
        super().__init__(self.problem["detail"])


class RateLimits:
    """The limits of an application: where they are decided, what the tiers are, and whose a request is."""

    def __init__(self, limiter: Limiter, tiers: Mapping[str, Tier], client_of: Callable[[Request], Client]) -> None:
        self._limiter, self._client_of = limiter, client_of
        self._quotas = {name: tier.quotas for name, tier in tiers.items()}

    async def count(self, request: Request, cost: int) -> None:
        """Raises RateLimited, and LookupError for a tier that is not promised."""
        client = self._client_of(request)
        if client.tier not in self._quotas:
            known = ", ".join(self._quotas)
            raise LookupError(f"the tier of {client.name} is {client.tier!r}, expected one of service.toml: {known}")
        decision = await self._limiter.decide(client.name, self._quotas[client.tier], cost)
        setattr(request.state, _STATE, decision)
        metrics.decided(decision)
        if not decision.is_allowed:
            raise RateLimited(decision)


def limited(cost: int = 1) -> Callable[[Request], Awaitable[None]]:
    """A dependency of a route: it counts as so many requests."""

    async def count(request: Request) -> None:
        limits: RateLimits = request.app.state.rate_limits
        await limits.count(request, cost)

    return count


class RateLimitFields:
    """Middleware that tells each caller how he stands, also where the answer is an error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})

        async def send_with_fields(message: Message) -> None:
            decision = state.get(_STATE)
            if message["type"] == "http.response.start" and decision is not None:
                MutableHeaders(scope=message).update(response_fields(decision))
            await send(message)

        await self._app(scope, receive, send_with_fields)


def install(app: Starlette) -> None:
    """Add the middleware and the answer to RateLimited."""
    app.add_middleware(RateLimitFields)
    app.add_exception_handler(RateLimited, _refusal)


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RateLimited)  # noqa: S101 -- Starlette's type of a handler is wider than what it is given
    return Response(msgspec.json.encode(error.problem), 429, error.fields, "application/problem+json")
