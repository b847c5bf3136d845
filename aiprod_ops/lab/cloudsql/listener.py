"""HTTP: a request is read, held against the discovery document, handed on, and answered in Google's shape.

Everything is on loopback, and nobody is authenticated: any bearer token does, or none.
"""

import json
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aiprod_ops.errors import Failed
from aiprod_ops.lab.cloudsql.context import Handler, Json, Request
from aiprod_ops.lab.cloudsql.discovery import Discovery, Flaw
from aiprod_ops.lab.cloudsql.faults import Fault, Faults
from aiprod_ops.lab.cloudsql.refusals import Refusal, absent, malformed, not_emulated, usual

Control = Callable[[str, str, bytes], Json | None]


class Api:
    """The methods that are emulated, behind the document's routes and the faults that wait for them."""

    def __init__(self, project: str, discovery: Discovery, handlers: Mapping[str, Handler], faults: Faults) -> None:
        self._project = project
        self._discovery = discovery
        self._handlers = handlers
        self._faults = faults

    def answer(self, verb: str, target: str, content_type: str, body: bytes) -> tuple[int, Json, Fault | None]:
        """Status and body, and the fault that keeps them from being sent. Raises Refusal."""
        parts = urlsplit(target)
        found = self._discovery.find(verb, parts.path)
        if found is None:
            raise absent(f"method {verb} {parts.path}")
        method, path = found
        fault = self._faults.of_call(method.id)
        if fault and fault.kind == "expire-credentials":
            raise usual(401)
        if fault and fault.kind == "answer":
            raise usual(fault.status)
        if fault and not fault.after_work:
            return 0, {}, fault
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if flaws := self._discovery.query_flaws(method, query):
            raise malformed(flaws)
        content = _read(content_type, body)
        if flaws := self._discovery.body_flaws(method, content):
            raise malformed(flaws)
        handler = self._handlers.get(method.id)
        if handler is None:
            raise not_emulated(method.id)
        named = {name: unquote(value) for name, value in path.items()}
        if named.get("project") != self._project:
            raise usual(403)
        return 200, handler(Request(named, query, self._discovery.canonical(method, content))), fault


def _read(content_type: str, body: bytes) -> Any:
    if not body.strip():
        return {}
    if content_type.partition(";")[0].strip() != "application/json":
        text = body.decode("utf-8", "replace")[:80]
        bound = "Cannot bind query parameter. Field could not be found in request message."
        message = f'Invalid JSON payload received. Unknown name "{text}": {bound} (send Content-Type: application/json)'
        raise malformed([Flaw("", message)])
    try:
        return json.loads(body)
    except ValueError as error:
        raise malformed([Flaw("", f"Invalid JSON payload received. {error}")]) from error


class Listener:
    """The socket, and a thread for each connection."""

    def __init__(self, port: int, api: Api, control: Control, faults: Faults) -> None:
        self._stopped = Event()
        handler = type("_Bound", (_Handler,), {"api": api, "control": control, "faults": faults, "over": self._stopped})
        try:
            self._server = _Server(("127.0.0.1", port), handler)
        except OSError as error:
            raise Failed(f"port {port} cannot be listened on: {error.strerror}") from error
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nothing any more; what hangs is dropped."""
        self._stopped.set()
        if self._thread.is_alive():  # else it would be waited for in vain
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "aiprod-ops-cloudsql"
    disable_nagle_algorithm = True
    api: Api
    control: Control
    faults: Faults
    over: Event

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 http.server finds them by these names

    def log_message(self, *_: Any) -> None:
        """Nothing is logged: a request may hold a password."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.headers.get("Origin"):
                raise usual(403)  # a web page of somebody else may send here, too; its browser says where it comes from
            if self.path == "/lab" or self.path.startswith("/lab/"):
                told = type(self).control(self.command, self.path, body)
                self._send(404 if told is None else 200, {} if told is None else told)
                return
            status, answer, fault = self.api.answer(self.command, self.path, self.headers.get("Content-Type", ""), body)
        except Refusal as refusal:
            self._send(refusal.status, refusal.body())
            return
        if fault is None:
            self._send(status, answer)
        elif fault.kind == "hang":
            self._hang()
        self.close_connection = self.close_connection or fault is not None

    def _hang(self) -> None:
        cleared = self.faults.until_cleared()
        while not cleared.is_set() and not self.over.is_set():
            time.sleep(0.05)

    def _send(self, status: int, answer: Json) -> None:
        content = json.dumps(answer, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
