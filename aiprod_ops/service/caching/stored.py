"""Responses served as stored bytes, below the framework: no routing, no validation, no serialising.

A hit that runs through the framework costs more than a cheap endpoint does. So this stands before it, as ASGI
middleware, and knows by itself which paths are stored and who asks. Whom it does not know, the framework answers: it
alone decides who somebody is.

Place it within what is of each request (request ids, rate limits, CORS, compression), before authentication.
"""

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service.caching import keys, responses
from aiprod_ops.service.caching.asgi import App, Message, Receive, Scope, Send
from aiprod_ops.service.caching.computing import Computed, Wanted
from aiprod_ops.service.caching.endpoint import Answers
from aiprod_ops.service.caching.keys import NONE, Tags
from aiprod_ops.service.caching.metrics import Counted, Result
from aiprod_ops.service.caching.recording import Recorded, Recording
from aiprod_ops.service.caching.responses import Rules, Stored
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.units import Bytes

log = logging.getLogger(__name__)

_LONGEST_PATH = 512
_CACHE = {Result.HIT: b"hit", Result.STALE: b"stale", Result.MISS: b"miss", Result.BYPASS: b"miss"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `grants` is what else decides what he gets to see: the scopes of his key."""

    user: str
    grants: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """GET of a path is stored: "/api/v1/jobs/{job_id}". Its tags may name the places in the path, and `user`.

    `is_public` says that everybody gets the same, whoever asks, without being known. `varies` are the request headers
    that decide the response, and so are a part of the key.
    """

    path: str
    lifetime: Lifetime
    tags: Tags = NONE
    is_public: bool = False
    varies: tuple[str, ...] = ()
    endpoint: object = None

    def __post_init__(self) -> None:
        given = set(_PLACE.findall(self.path)) | (set() if self.is_public else {"user"})
        if wrong := sorted(self.tags.names - given):
            raise ConfigurationError(
                f"the stored route {self.path} has tags of {', '.join(wrong)}; known from a request are "
                f"{', '.join(sorted(given)) or 'none'}",
                hint="name places of the path, or user",
            )


_PLACE = re.compile(r"\{(\w+)(?::\w+)?\}")


def stored_routes(routes: Iterable[Any], *, public: Iterable[str] = ()) -> tuple[Route, ...]:
    """The GET routes (of a FastAPI or Starlette application) whose endpoint is cached; `public` are paths of those that
    give everybody the same."""
    policies = [(each.path, getattr(each.endpoint, "cache_policy", None)) for each in routes
                if "GET" in (getattr(each, "methods", None) or ())]  # fmt: skip
    return tuple(
        Route(path, policy.lifetime, policy.tags, is_public=path in set(public), endpoint=policy)
        for path, policy in policies
        if policy is not None
    )


class StoredResponses:
    """ASGI middleware. `identify` tells who sent a request whose credentials were found right not long ago, from memory
    and without waiting; None where it does not know. What was revoked must be forgotten there at once."""

    def __init__(
        self,
        app: App,
        *,
        cache: Answers,
        routes: Sequence[Route],
        identify: Callable[[Scope], Caller | str | None],
        most: Bytes = Bytes(1_000_000),
    ) -> None:
        self.app, self._cache, self._identify, self._most = app, cache, identify, most
        self._routes = [(_pattern(route.path), route, Counted.of(route.path)) for route in routes]
        self._route = functools.lru_cache(4096)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._route(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None:
            return await self.app(scope, receive, send)
        route, places, counted = found
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        caller = None if route.is_public else self._identify(scope)
        if (caller is None and not route.is_public) or any(name == b"range" for name, _ in headers):
            return await self.app(scope, receive, send)
        caller = Caller(caller) if isinstance(caller, str) else caller
        asked = [value for name, value in headers if name == b"if-none-match"]
        recording = Recording(self.app, scope, route.endpoint, Rules(route.is_public, _lower(route.varies)), self._most)

        async def compute() -> Computed[Stored | None]:
            return _computed(await recording.run(receive, send, asked), route)

        async def renew() -> Computed[Stored | None]:
            return _computed(await recording.run(_no_more(), _nowhere, ()), route)

        key, tags = _named(route, places, scope, caller)
        wanted: Wanted[Stored | None] = Wanted(
            key, tags, route.lifetime, compute, renew, responses.decode, shares_errors=False
        )
        response, result = await self._cache.answer(wanted, counted)
        if not recording.is_sent and response is not None:
            await _serve(response, asked, _CACHE[result], send)
        return None

    def _find(self, path: str) -> tuple[Route, dict[str, str], Counted] | None:
        if len(path) > _LONGEST_PATH:
            return None
        for pattern, route, counted in self._routes:
            if match := pattern.fullmatch(path):
                return route, match.groupdict(), counted
        return None


async def _serve(response: Stored, asked: Sequence[bytes], cache: bytes, send: Send) -> None:
    if asked and response.matches(asked):
        await send(response.unchanged(cache))
        await send({"type": "http.response.body", "body": b""})
    else:
        await send(response.start(cache))
        await send({"type": "http.response.body", "body": response.body})


def _computed(recorded: Recorded, route: Route) -> "Computed[Stored | None]":
    response = recorded.response
    if response is None or recorded.refusal:
        if recorded.refusal.startswith("it varies"):
            log.warning("a response is not stored", extra={"route": route.path, "why": recorded.refusal})
        return Computed(None, is_shared=False)
    if response.is_missing and not route.lifetime.nothing:
        return Computed(response)
    lifetime = Lifetime(route.lifetime.nothing) if response.is_missing else None
    return Computed(response, responses.payload(response), lifetime)


def _named(route: Route, places: dict[str, str], scope: Scope, caller: Caller | None) -> tuple[str, tuple[str, ...]]:
    """The key of who asks for what, and its tags."""
    sent = [[value for name, value in scope["headers"] if name == each] for each in _lower(route.varies)]
    who = (caller.user, caller.grants) if caller else None
    key = keys.key_of("response", scope["path"], keys.query_of(scope["query_string"]), who, sent)
    if caller is None:
        return key, route.tags.of(places)
    return key, (*route.tags.of({**places, "user": caller.user}), keys.user(caller.user))


def _lower(names: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode() for name in names)


def _pattern(path: str) -> re.Pattern[str]:
    """
    >>> jobs = _pattern("/jobs/{job_id}")
    >>> jobs.fullmatch("/jobs/7").groupdict(), jobs.fullmatch("/jobs/7/result")
    ({'job_id': '7'}, None)
    """
    literal = _PLACE.split(path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(literal)))


def _no_more() -> Receive:
    """A request that has no body, and whose client never leaves."""
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return cast("Message", messages.pop())

    return receive


async def _nowhere(message: Message) -> None:
    """Who asked was served already."""
