"""The port Sender with libcurl: several times faster than aiohttp, in a wheel that brings all that it needs.

libcurl resolves a name, and asks for a socket for each address that it connects to: there the address is judged,
whether it came of a name or stood in the URL. asyncio's loop watches its sockets and its clock.
"""

import asyncio
import errno
import math
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycurl

from aiprod_ops.domain import urls
from aiprod_ops.domain.exchanges import LARGEST_KEPT, Exchange, NoAnswer, Outgoing, TimeLimits, answered
from aiprod_ops.units import Milliseconds

_KEPT_SECONDS, _KEPT = 4, 512  #: as in `aiohttp_sender`; and so many connections
_SPARE = 512  #: handles that are kept for the next requests
_CODES = {
    pycurl.E_URL_MALFORMAT: NoAnswer.URL,
    pycurl.E_COULDNT_RESOLVE_HOST: NoAnswer.DNS,
    pycurl.E_SSL_CONNECT_ERROR: NoAnswer.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: NoAnswer.TLS,
    pycurl.E_SSL_CERTPROBLEM: NoAnswer.TLS,
    pycurl.E_SSL_CIPHER: NoAnswer.TLS,
    pycurl.E_SSL_ISSUER_ERROR: NoAnswer.TLS,
    pycurl.E_UNSUPPORTED_PROTOCOL: NoAnswer.GARBLED,  # HTTP/0.9
    pycurl.E_FTP_WEIRD_SERVER_REPLY: NoAnswer.GARBLED,  # of any protocol by now
}


@dataclass(slots=True)
class _Running:
    """A request under way, and what has come of it."""

    ended: "asyncio.Future[tuple[int, int]]"  # libcurl's code, errno
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    has_head: bool = False
    retry_after: str = ""
    came: int = 0
    body: bytes = b""
    is_private: bool = False

    def head(self, line: bytes) -> None:
        """One line. Of several heads (100 Continue) the last one counts."""
        self.came += len(line)
        if line.startswith(b"HTTP/"):
            parts = line.split(None, 2)
            self.status = int(parts[1][:9]) if len(parts) > 1 and parts[1].isdigit() else 0
        elif not line.strip():
            self.has_head = self.status >= 200
        elif line[:12].lower() == b"retry-after:":
            self.retry_after = line[12:].decode("latin-1").strip()

    def piece(self, data: bytes) -> int:
        """A piece of the body. What is answered is less than what came where nothing more is wanted: libcurl ends
        it."""
        room = LARGEST_KEPT - len(self.body)
        self.body += data[:room]
        return min(len(data), room)

    def exchange(self, code: int, number: int, is_connected: bool) -> Exchange:
        took = Milliseconds((time.perf_counter() - self.began) * 1000)
        if self.has_head:
            return answered(took, self.status, self.retry_after, self.body)
        if self.is_private:
            error = NoAnswer.PRIVATE_ADDRESS
        elif code == pycurl.E_COULDNT_CONNECT:
            error = NoAnswer.REFUSED if number == errno.ECONNREFUSED else NoAnswer.UNREACHABLE
        elif code == pycurl.E_OPERATION_TIMEDOUT:
            late = NoAnswer.TOO_SLOW if self.came else NoAnswer.TIMEOUT
            error = late if is_connected else NoAnswer.CONNECT_TIMEOUT
        else:
            error = _CODES.get(code, NoAnswer.CLOSED)
        return Exchange(took, error=error)


class PycurlSender:
    """To be made inside a running loop. `private` is for a lab: it allows http and private addresses. `resolved` are
    addresses of names that nobody is asked for; `authorities` is a file of certificates that count instead of the
    system's.
    """

    def __init__(
        self,
        limits: TimeLimits = TimeLimits(),  # noqa: B008
        *,
        private: bool = False,
        resolved: Mapping[str, str] | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._limits, self._private = limits, private
        self._authorities = str(authorities) if authorities else ssl.get_default_verify_paths().cafile
        self._resolved = [f"{name}:443:{address}" for name, address in (resolved or {}).items()]
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_clock)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT)
        self._clock: asyncio.TimerHandle | None = None
        self._watched: set[int] = set()
        self._spare: list[Any] = []
        self._running: dict[Any, _Running] = {}
        self._opened: list[socket.socket] = []  # pycurl works on a copy, when its callback has returned

    async def send(self, request: Outgoing) -> Exchange:
        if urls.uncallable(request.url, private=self._private):
            return Exchange(Milliseconds(0), error=NoAnswer.URL)
        handle = self._spare.pop() if self._spare else self._made()
        running = _Running(self._loop.create_future())
        self._prepare(handle, request, running)
        self._running[handle] = running
        self._multi.add_handle(handle)
        try:
            code, number = await running.ended
            return running.exchange(code, number, handle.getinfo(pycurl.PRETRANSFER_TIME) > 0)
        finally:
            del self._running[handle]
            self._multi.remove_handle(handle)
            if len(self._spare) < _SPARE:
                self._spare.append(handle)
            else:
                handle.close()

    async def close(self) -> None:
        for running in self._running.values():
            running.ended.cancel()
        while self._running:
            await asyncio.sleep(0)
        for each in self._spare:
            each.close()
        self._multi.close()
        if self._clock is not None:
            self._clock.cancel()
        for number in tuple(self._watched):
            self._unwatch(number)

    def _made(self) -> Any:
        handle = pycurl.Curl()
        limits = self._limits
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROXY, ""),
            (pycurl.NOPROXY, "*"),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.CONNECTTIMEOUT_MS, round(limits.connect * 1000)),
            (pycurl.TIMEOUT_MS, round(limits.whole * 1000)),
            (pycurl.LOW_SPEED_LIMIT, 1),
            (pycurl.LOW_SPEED_TIME, math.ceil(limits.read)),
            (pycurl.MAXAGE_CONN, _KEPT_SECONDS),
        ):
            handle.setopt(option, value)
        if self._authorities:
            handle.setopt(pycurl.CAINFO, self._authorities)
        if self._resolved:
            handle.setopt(pycurl.RESOLVE, self._resolved)
        return handle

    def _prepare(self, handle: Any, request: Outgoing, running: _Running) -> None:
        handle.setopt(pycurl.URL, request.url)
        handle.setopt(pycurl.HTTPHEADER, [*(f"{name}: {value}" for name, value in request.headers.items()), "Expect:"])
        handle.setopt(pycurl.POSTFIELDS, request.body)
        handle.setopt(pycurl.HEADERFUNCTION, running.head)
        handle.setopt(pycurl.WRITEFUNCTION, running.piece)
        handle.setopt(pycurl.OPENSOCKETFUNCTION, lambda _, address: self._socket(running, address))

    def _socket(self, running: _Running, address: Any) -> socket.socket | int:
        family, kind, protocol, place = address
        if running.is_private or urls.leading("the URL", [_text(place[0])], private=self._private):
            running.is_private = True
            return int(pycurl.SOCKET_BAD)
        made = socket.socket(family, kind, protocol)
        self._opened.append(made)
        return made

    def _watch(self, what: int, number: int, *_: object) -> None:
        if number in self._watched:
            self._unwatch(number)
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            self._loop.add_reader(number, self._act, number, pycurl.CSELECT_IN)
            self._watched.add(number)
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._loop.add_writer(number, self._act, number, pycurl.CSELECT_OUT)
            self._watched.add(number)

    def _unwatch(self, number: int) -> None:
        self._loop.remove_reader(number)
        self._loop.remove_writer(number)
        self._watched.discard(number)

    def _set_clock(self, milliseconds: int) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if milliseconds >= 0:
            self._clock = self._loop.call_later(milliseconds / 1000, self._act, pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, number: int, what: int) -> None:
        self._multi.socket_action(number, what)
        while self._opened:
            self._opened.pop().close()
        while True:
            waiting, good, bad = self._multi.info_read()
            for handle in good:
                self._end(handle, pycurl.E_OK)
            for handle, code, _ in bad:
                self._end(handle, code)
            if not waiting:
                return

    def _end(self, handle: Any, code: int) -> None:
        running = self._running.get(handle)
        if running is not None and not running.ended.done():
            running.ended.set_result((code, int(handle.getinfo(pycurl.OS_ERRNO))))


def _text(place: str | bytes) -> str:
    return place.decode() if isinstance(place, bytes) else place
