"""The port Sender with libcurl: several times faster than aiohttp, and a wheel that brings its own TLS.

libcurl resolves, and asks for a socket for the address that it connects to: there the address is judged, of a name as of a
URL that holds one. Its sockets and its clock are watched by asyncio's loop.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pycurl

from aiprod_ops.domain import urls
from aiprod_ops.domain.exchanges import LARGEST_KEPT, Exchange, NoAnswer, Outgoing, TimeLimits
from aiprod_ops.units import Milliseconds

_KEPT_SECONDS, _KEPT = 4, 512  #: as in aiohttp_sender; and so many connections
_SPARE = 64  #: handles that are kept for the next requests
_CODES = {
    pycurl.E_URL_MALFORMAT: NoAnswer.URL,
    pycurl.E_UNSUPPORTED_PROTOCOL: NoAnswer.URL,
    pycurl.E_COULDNT_RESOLVE_HOST: NoAnswer.DNS,
    pycurl.E_SSL_CONNECT_ERROR: NoAnswer.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: NoAnswer.TLS,
    pycurl.E_SSL_CERTPROBLEM: NoAnswer.TLS,
    pycurl.E_SSL_CIPHER: NoAnswer.TLS,
    pycurl.E_SSL_ISSUER_ERROR: NoAnswer.TLS,
    pycurl.E_UNSUPPORTED_PROTOCOL: NoAnswer.GARBLED,
    pycurl.E_WEIRD_SERVER_REPLY: NoAnswer.GARBLED,
    pycurl.E_TOO_LARGE: NoAnswer.GARBLED,
}
_LARGEST_HEAD = 64 * 1024


class PycurlSender:
    """To be made inside a running loop. `private` is for a lab: it allows http and private addresses. `resolved` are
    addresses of names that are not asked for; `authorities` is a file of certificates that count instead of the system's.
    """

    def __init__(
        self,
        limits: TimeLimits = TimeLimits(),  # noqa: B008
        *,
        private: bool = False,
        resolved: Mapping[str, str] | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._limits, self._private, self._authorities = limits, private, authorities
        self._resolved = [f"{name}:{address}" for name, address in (resolved or {}).items()]
        self._loop = asyncio.get_running_loop()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_clock)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT)
        self._clock: asyncio.TimerHandle | None = None
        self._watched: set[int] = set()
        self._spare: list[Any] = []
        self._running: dict[Any, _Request] = {}

    async def send(self, request: Outgoing) -> Exchange:
        began = time.perf_counter()
        if urls.uncallable(request.url, private=self._private):
            return Exchange(Milliseconds(0), error=NoAnswer.URL)
        handle = self._spare.pop() if self._spare else self._made()
        running = _Request(self._loop.create_future(), self._limits, self._private)
        self._prepare(handle, request, running)
        self._running[handle] = running
        silence: asyncio.TimerHandle | None = None
        try:
            self._multi.add_handle(handle)
            silence = self._loop.call_later(self._limits.read, self._is_silent, handle, running)
            code = await running.ended
            took = Milliseconds((time.perf_counter() - began) * 1000)
            return running.exchange(took, code, handle)
        finally:
            if silence is not None:
                running.silence.cancel() if running.silence else silence.cancel()
            del self._running[handle]
            with suppress(pycurl.error):
                self._multi.remove_handle(handle)
            if len(self._spare) < _SPARE:
                self._spare.append(handle)
            else:
                handle.close()

    async def close(self) -> None:
        for running in list(self._running.values()):
            running.ended.cancel()
        await asyncio.sleep(0)
        if self._clock is not None:
            self._clock.cancel()
        for each in self._spare:
            each.close()
        self._multi.close()
        for each in self._watched:
            self._loop.remove_reader(each)
            self._loop.remove_writer(each)
