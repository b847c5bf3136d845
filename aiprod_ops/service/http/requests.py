"""What happens around every operation: one request is one transaction, and the answer leaves after the commit.

A route of this class reads the body up to the limit, finds out who calls, does a POST with an Idempotency-Key once,
adds the ETag, and turns whatever goes wrong into a problem. Operations see none of that. It is a class of route and not
a middleware, so that it is the same in our app and in one that only includes the router.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from aiprod_ops.domain.tiers import Tier
from aiprod_ops.service import database
from aiprod_ops.service.http import credentials, etags, idempotency, problems
from aiprod_ops.service.http.credentials import Caller, Verified
from aiprod_ops.service.http.media_types import require_utf8
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.settings import Settings
from aiprod_ops.units import Seconds

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(slots=True)
class Service:
    """What the operations of one process share; it is `app.state.service`."""

    settings: Settings
    engine: AsyncEngine
    verified: Verified = field(default_factory=Verified)
    #: Asked in turn when it is known who calls (`request.state.caller`), before the work; each may raise.
    guards: list[Callable[[Request], Awaitable[None]]] = field(default_factory=list)
    #: Told in turn after the commit of a request that may have changed what is the caller's, before the answer leaves.
    after_change: list[Callable[[Request], Awaitable[None]]] = field(default_factory=list)
    #: What there is to be ended with the process.
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    _secret: bytes = b""

    async def cursor_secret(self, connection: AsyncConnection) -> bytes:
        """What cursors are sealed with; read once a process."""
        if not self._secret:
            self._secret = await database.secret(connection, "cursors")
        return self._secret


class PublicRoute(APIRoute):
    """An operation for everybody, which touches no data: every failure is a problem."""

    def get_route_handler(self) -> Handler:
        work = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await self.answer(request, work)
            except Exception as error:
                if not problems.is_ours(error) and type(error) in request.app.exception_handlers:
                    raise  # the application has an answer of its own to it
                return problems.to_response(error, request)

        return handle

    async def answer(self, request: Request, work: Handler) -> Response:
        """The answer, or an exception."""
        return with_etag(request, await work(request))


class OwnedRoute(PublicRoute):
    """An operation on what somebody owns: in a transaction, for a caller with a key."""

    async def answer(self, request: Request, work: Handler) -> Response:
        service: Service = request.app.state.service
        key = credentials.presented(request.scope)
        credentials.require_form(key)
        request = Request(request.scope, limited(request, self.largest_body(service)))
        try:
            # Before a connection is taken: who has no key, or sends slowly, must not hold one.
            await self.read(request)
            response = await within(self.longest(service), self._answer(request, service, key, work))
        finally:
            await self.done(request)
        if getattr(request.state, "ends_a_key", False):
            service.verified.forget(request.state.caller.user_id)
        if request.method != "GET":
            for tell in service.after_change:
                await tell(request)
        return with_etag(request, response)

    async def _answer(self, request: Request, service: Service, key: str, work: Handler) -> Response:
        async with service.engine.begin() as connection:
            began = time.monotonic()
            caller = await credentials.authenticate(connection, key)
            service.verified.add(key, caller, began)
            request.state.connection, request.state.caller = connection, caller
            for guard in service.guards:
                await guard(request)
            if request.method == "POST" and idempotency.HEADER in request.headers:
                return await idempotency.once(connection, caller, request, work)
            return await work(request)

    def largest_body(self, service: Service) -> int:
        """How many bytes are read, at most."""
        return service.settings.largest_body

    def longest(self, service: Service) -> Seconds:
        """How long the work may take."""
        return service.settings.longest

    async def read(self, request: Request) -> None:
        """Read the whole body. Raises Problem where it is too large, or of a type that the operation does not take."""
        body = await request.body()
        if self.body_field is None or not body:
            return
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Problem("UNSUPPORTED_MEDIA_TYPE")
        require_utf8(content_type)

    async def done(self, request: Request) -> None:
        """Leave what `read` has kept."""


async def within(longest: Seconds, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer; raises Problem SERVICE_UNAVAILABLE where it takes longer.

    It is not waited for the end of what was given up: a server that hangs (its statement time-out hangs with it) hears
    of no cancellation, nor of a rollback. Its connection is missing from the pool for as long as it hangs.
    """
    doing = asyncio.ensure_future(answer)
    try:
        await asyncio.wait({doing}, timeout=longest)
    except asyncio.CancelledError:
        doing.cancel()
        raise
    if doing.done():
        return doing.result()
    doing.cancel()
    _GIVEN_UP.add(doing)
    doing.add_done_callback(_forget)
    raise Problem(
        "SERVICE_UNAVAILABLE",
        f"It took longer than {longest:g} s. Whether it was done is unknown: repeat it with the same Idempotency-Key.",
        headers={"Retry-After": str(problems.RETRY_SECONDS)},
    )


_GIVEN_UP: set["asyncio.Future[Response]"] = set()


def _forget(done: "asyncio.Future[Response]") -> None:
    _GIVEN_UP.discard(done)
    if not done.cancelled():
        done.exception()  # it was told already that nobody knows how it ends


def limited(request: Request, most: int) -> Receive:
    """What a request sends, up to so many bytes; raises Problem PAYLOAD_TOO_LARGE instead of reading more."""
    # The rest of the body is not read, so that the connection cannot go on after the answer.
    problem = Problem(
        "PAYLOAD_TOO_LARGE",
        f"The body has more than {most} bytes, the most that is read.",
        headers={"Connection": "close"},
    )
    said, seen = request.headers.get("content-length", ""), 0

    async def receive() -> Message:
        nonlocal seen
        if said.isdecimal() and int(said[:20]) > most:
            raise problem
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise problem
        return message

    return receive


def with_etag(request: Request, response: Response) -> Response:
    """A representation with its version; 304 without content where the client has it already."""
    body = getattr(response, "body", None)  # of a stream there is none yet
    if request.method not in ("GET", "PATCH", "PUT") or response.status_code != 200 or body is None:
        response.headers.setdefault("Cache-Control", "no-store")
        return response
    tag = etags.of(bytes(body))
    response.headers["ETag"] = tag
    if request.method != "GET":  # what was made of it, for the next change
        response.headers.setdefault("Cache-Control", "no-store")
        return response
    response.headers.setdefault("Cache-Control", "private, no-cache")
    response.headers.setdefault("Vary", "Authorization")
    if (seen := request.headers.get("if-none-match")) is not None and etags.names(seen, tag, weakly=True):
        kept = {name: response.headers[name] for name in ("etag", "cache-control", "vary")}
        return Response(status_code=304, headers=kept)
    return response


bearer = HTTPBearer(scheme_name="ApiKey", description="An API key: `aiprod_…`", auto_error=False)


# These wait for nothing. They are coroutines because FastAPI gives every other dependency to a thread.
async def _caller(request: Request, needed: SecurityScopes, _: Annotated[Any, Depends(bearer)]) -> Caller:
    caller: Caller = request.state.caller
    require_scopes(caller, needed.scopes)
    return caller


def require_scopes(caller: Caller, needed: Sequence[str]) -> None:
    """Raise Problem INSUFFICIENT_SCOPE where the caller's key lacks one."""
    if missing := [scope for scope in needed if scope not in caller.scopes]:
        raise Problem("INSUFFICIENT_SCOPE", f"The key lacks the scope {', '.join(missing)}.")


async def _connection(request: Request) -> AsyncConnection:
    connection: AsyncConnection = request.state.connection
    return connection


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


#: Whoever has a key; with the scope `jobs`; `webhooks`; `admin`.
AnyCaller = Annotated[Caller, Security(_caller)]
JobsCaller = Annotated[Caller, Security(_caller, scopes=["jobs"])]
WebhooksCaller = Annotated[Caller, Security(_caller, scopes=["webhooks"])]
AdminCaller = Annotated[Caller, Security(_caller, scopes=["admin"])]
Transaction = Annotated[AsyncConnection, Depends(_connection)]
TheService = Annotated[Service, Depends(_service)]


def stored_as(request: Request, body: bytes) -> None:
    """Let a repetition of this request be answered with other bytes: those of an answer without its secret."""
    request.state.stored_body = body


def ends_a_key(request: Request) -> None:
    """A key of the caller's ends with this request: when that is committed nobody is identified by it any more."""
    request.state.ends_a_key = True
