"""What happens around every operation: one request is one transaction, and the answer leaves after the commit.

A route of this class reads the body up to the limit, finds out who calls, does a POST with an Idempotency-Key once,
adds the ETag, and turns whatever goes wrong into a problem. Operations see none of that. It is a class of route and not
a middleware, so that it is the same in our app and in one that only includes the router.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
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
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.settings import Settings

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
        request = Request(request.scope, limited(request, service.settings.largest_body))
        # Before a connection is taken: who has no key, or sends slowly, must not hold one.
        await _read(request, self)
        async with service.engine.begin() as connection:
            caller = await credentials.authenticate(connection, key)
            service.verified.add(key, caller)
            request.state.connection, request.state.caller = connection, caller
            for guard in service.guards:
                await guard(request)
            if request.method == "POST" and idempotency.HEADER in request.headers:
                response = await idempotency.once(connection, caller, request, work)
            else:
                response = await work(request)
        if request.method != "GET":
            for tell in service.after_change:
                await tell(request)
        return with_etag(request, response)


async def _read(request: Request, route: APIRoute) -> None:
    """Read the whole body. Raises Problem where it is too large, or of a type that the operation does not take."""
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if route.body_field is not None and body and kind != "application/json" and not kind.endswith("+json"):
        raise Problem("UNSUPPORTED_MEDIA_TYPE")


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
    if missing := [scope for scope in needed.scopes if scope not in caller.scopes]:
        raise Problem("INSUFFICIENT_SCOPE", f"The key lacks the scope {', '.join(missing)}.")
    return caller


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
