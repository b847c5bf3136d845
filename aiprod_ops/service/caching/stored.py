"""Responses served as stored bytes, below the framework: no routing, no validation, no serialising.

A hit that runs through the framework costs more than a cheap endpoint does. So this stands before it, as ASGI
middleware, and knows by itself which paths are stored and who asks. Whom it does not know, the framework answers: it
alone decides who somebody is.

Place it within what is of each request (request ids, rate limits, CORS, compression), before authentication.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from aiprod_ops.service.caching import keys, responses
from aiprod_ops.service.caching.asgi import App, Message, Receive, Scope, Send
from aiprod_ops.service.caching.computing import Computed, Wanted
from aiprod_ops.service.caching.endpoint import Answers
from aiprod_ops.service.caching.metrics import Counted, Result
from aiprod_ops.service.caching.recording import Recorded, Recording
from aiprod_ops.service.caching.responses import Rules, Stored
from aiprod_ops.service.caching.routes import Route
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.units import Bytes

log = logging.getLogger(__name__)

_LONGEST_PATH = 512  #: characters
_MOST = Bytes(1_000_000)
_CACHE = {Result.HIT: b"hit", Result.STALE: b"stale", Result.MISS: b"miss", Result.BYPASS: b"miss"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `grants` is what else decides what he gets to see: the scopes of his key."""

    user: str
    grants: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """The route of a path, and what stands in its places."""

    route: Route
    places: dict[str, object]
    counted: Counted


class StoredResponses:
    """ASGI middleware. `identify` tells who sent a request whose credentials were found right not long ago, from memory
    and without waiting; None where it does not know. What was revoked must be forgotten there at once. Responses of
    more than `most` bytes are not stored."""

    def __init__(
        self,
        app: App,
        *,
        cache: Answers,
        routes: Sequence[Route],
        identify: Callable[[Scope], Caller | str | None],
        most: Bytes = _MOST,
    ) -> None:
        self.app, self._cache, self._identify, self._most = app, cache, identify, most
        self._routes = [(route.pattern, route, Counted.of(route.path)) for route in routes]
        self._route = functools.lru_cache(4096)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._route(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None or any(name == b"range" for name, _ in scope["headers"]):
            return await self.app(scope, receive, send)
        route = found.route
        caller = None if route.is_public else self._identify(scope)
        if caller is None and not route.is_public:
            return await self.app(scope, receive, send)
        asked = [value for name, value in scope["headers"] if name == b"if-none-match"]
        rules = Rules(route.is_public, _lower(route.varies))
        recording = Recording(self.app, scope, route.endpoint, rules, self._most)

        async def compute() -> Computed[Stored | None]:
            return _computed(await recording.run(receive, send, asked), route)

        async def renew() -> Computed[Stored | None]:
            return _computed(await recording.run(_no_more(), _nowhere, ()), route)

        key, tags = _named(found, scope, Caller(caller) if isinstance(caller, str) else caller)
        wanted: Wanted[Stored | None] = Wanted(
            key, tags, route.lifetime, compute, renew, responses.decode, shares_errors=False
        )
        response, result = await self._cache.answer(wanted, found.counted)
        if response is not None and (not recording.is_sent or result is Result.STALE):
            for message in response.messages(_CACHE[result], asked):
                await send(message)
        return None

    def _find(self, path: str) -> _Found | None:
        if len(path) > _LONGEST_PATH:
            return None
        for pattern, route, counted in self._routes:
            if match := pattern.fullmatch(path):
                places = route.read(match.groupdict())
                return None if places is None else _Found(route, places, counted)
        return None


def _computed(recorded: Recorded, route: Route) -> "Computed[Stored | None]":
    response = recorded.response
    if response is None:
        if recorded.refusal.startswith("it varies"):
            log.warning("a response is not stored", extra={"route": route.path, "why": recorded.refusal})
        return Computed(None, is_shared=False)
    if response.is_missing and not route.lifetime.nothing:
        return Computed(response)
    lifetime = Lifetime(route.lifetime.nothing) if response.is_missing else None
    return Computed(response, responses.payload(response), lifetime)


def _named(found: _Found, scope: Scope, caller: Caller | None) -> tuple[str, tuple[str, ...]]:
    """The key of who asks for what, and its tags."""
    route = found.route
    sent = [[value for name, value in scope["headers"] if name == each] for each in _lower(route.varies)]
    who = (caller.user, caller.grants) if caller else None
    key = keys.key_of("response", scope["path"], keys.query_of(scope["query_string"]), who, sent)
    if caller is None:
        return key, route.tags.of(found.places)
    return key, (*route.tags.of({**found.places, "user": caller.user}), keys.user(caller.user))


def _lower(names: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode() for name in names)


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
