"""A name for each request: in its answer, in its problem, in the log, so that one finds the other.

The outermost layer. It also is where what nobody else caught of our operations becomes an answer: a client never gets
a stack trace, nor a connection that just ends. What an application's own routes raise is the application's to answer.
"""

import logging
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiprod_ops.service.http import problems
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.validation import REQUEST_ID

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_GIVEN = re.compile(REQUEST_ID)


class RequestIds:
    """ASGI middleware: takes the client's id where it is harmless, or makes one. Our operations are below `prefix`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, f"{prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = scope["request_id"] = _given(scope) or str(uuid7())
        began, status = time.perf_counter(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            if status or not scope["path"].startswith(self._prefix):  # one that has begun can only be cut off
                raise
            await problems.to_response(error, Request(scope))(scope, receive, send_named)
        took = round((time.perf_counter() - began) * 1000, 1)
        told = {"request_id": name, "method": scope["method"], "path": scope["path"], "status": status, "ms": took}
        path = scope["path"].encode("unicode_escape").decode()
        log.info("%s %s %d in %s ms, request %s", scope["method"], path, status, took, name, extra=told)


def _given(scope: Scope) -> str:
    """The client's own id, where it is one: it goes into logs."""
    found = [value for name, value in scope["headers"] if name == HEADER.lower().encode()]
    text = found[0].decode("latin-1") if len(found) == 1 else ""
    return text if _GIVEN.fullmatch(text) else ""
