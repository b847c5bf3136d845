"""The response of an application, recorded while it is sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiprod_ops.service.caching import responses
from aiprod_ops.service.caching.asgi import App, Message, Receive, Scope, Send
from aiprod_ops.service.caching.endpoint import answering
from aiprod_ops.service.caching.responses import Rules, Stored
from aiprod_ops.units import Bytes

#: Decided by us, with what is stored: the application has to say all.
_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What may be stored, or why nothing may be."""

    response: Stored | None
    refusal: str = ""


class Recording:
    """Of one request. What may be stored is sent when all of it is there (so that it has an entity tag); everything
    else as it comes."""

    def __init__(self, app: App, scope: Scope, endpoint: object, rules: Rules, most: Bytes) -> None:
        self.is_sent = False  #: the client has the response, or its beginning
        self._app, self._endpoint, self._rules, self._most = app, endpoint, rules, most
        headers = [each for each in scope["headers"] if each[0] not in _CONDITIONS]
        self._scope = {**scope, "headers": headers}

    async def run(self, receive: Receive, send: Send, asked: Sequence[bytes]) -> Recorded:
        """Let the application answer; `asked` are the entity tags that the client has."""
        token = answering.set(self._endpoint)
        self.is_sent = True
        kept = _Kept(self._rules, self._most, send, asked)
        try:
            await self._app(self._scope, receive, kept.take)
        finally:
            answering.reset(token)
        return Recorded(kept.response, kept.refusal or ("" if kept.response else "it has no end"))


class _Kept:
    """The messages of one response, held back as long as it may be stored."""

    def __init__(self, rules: Rules, most: Bytes, send: Send, asked: Sequence[bytes]) -> None:
        self.response: Stored | None = None
        self.refusal = ""
        self._rules, self._most, self._send, self._asked = rules, most, send, asked
        self._start: Message = {}
        self._body = bytearray()

    async def take(self, message: Message) -> None:
        if self.refusal:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message
            refusal = self._rules.refusal(message["status"], message.get("headers", ()))
            if refusal:
                await self._let_go(refusal)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if len(self._body) > self._most:
                await self._let_go(f"it has more than {self._most} bytes", more=message.get("more_body", False))
            elif not message.get("more_body", False):
                await self._finish()
        else:
            await self._let_go(f"it has a message {message['type']}")
            await self._send(message)

    async def _let_go(self, refusal: str, *, more: bool = True) -> None:
        self.refusal = refusal
        headers = [*self._start.get("headers", ()), (b"x-cache", b"miss")]
        await self._send({**self._start, "headers": headers})
        if self._body:
            await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": more})

    async def _finish(self) -> None:
        headers, body = self._start.get("headers", ()), bytes(self._body)
        self.response = responses.kept(self._start["status"], headers, body)
        if self._asked and self.response.matches(self._asked):
            for message in self.response.messages(b"miss", self._asked):
                await self._send(message)
            return
        named = {name.lower() for name, _ in headers}
        added = [each for each in self.response.headers if each[0] not in named]
        await self._send({**self._start, "headers": [*headers, *added, (b"x-cache", b"miss")]})
        await self._send({"type": "http.response.body", "body": body})
