"""The port Sender with aiohttp.

The addresses of a name are judged when it was resolved, and each address again when a socket is made for it: so those
that stand in a URL, too, and what is connected to is what was judged.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.typedefs import LooseHeaders
from yarl import URL

from aiprod_ops.domain import urls
from aiprod_ops.domain.exchanges import LARGEST_KEPT, Exchange, NoAnswer, Outgoing, TimeLimits, answered
from aiprod_ops.units import Milliseconds

Resolve = Callable[[str], Awaitable[list[str]]]
#: A kept connection is left before most servers leave it: what is sent into one that ends is lost.
_KEPT_SECONDS = 4
#: Names that resolve at the same time. One whose servers do not answer holds a thread for half a minute.
_RESOLVING = 64


class _PrivateAddress(OSError):
    """No request goes there."""


class AiohttpSender:
    """To be made inside a running loop. `private` is for a lab: it allows http and private addresses. `resolve`
    replaces the system's resolver; `authorities` is a file of certificates that count beside the system's."""

    def __init__(
        self,
        limits: TimeLimits = TimeLimits(),  # noqa: B008
        *,
        private: bool = False,
        resolve: Resolve | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._private = private
        context = ssl.create_default_context()
        if authorities is not None:
            context.load_verify_locations(authorities)
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=_JudgingResolver(resolve, private),
            socket_factory=self._socket,
            ssl=context,
            keepalive_timeout=_KEPT_SECONDS,
            ttl_dns_cache=10,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=4096,
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(total=limits.whole, connect=limits.connect, sock_read=limits.read),
        )

    async def send(self, request: Outgoing) -> Exchange:
        began = time.perf_counter()
        if urls.uncallable(request.url, private=self._private):
            return Exchange(_since(began), error=NoAnswer.URL)
        headers: LooseHeaders = request.headers
        try:
            response = await self._session.post(
                URL(request.url), data=request.body, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Exchange(_since(began), error=_code(error))
        body = await _beginning(response)
        retry_after = response.headers.get("Retry-After", "")
        return answered(_since(began), response.status, retry_after, body)

    async def close(self) -> None:
        await self._session.close()

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, place = address
        if reason := urls.leading("the URL", [str(place[0])], private=self._private):
            raise _PrivateAddress(reason)
        return socket.socket(family, kind, protocol)


class _JudgingResolver(AbstractResolver):
    """Resolves in threads of its own, so that a name that hangs keeps nobody else's from being resolved."""

    def __init__(self, resolve: Resolve | None, private: bool) -> None:
        self._resolve, self._private = resolve or self._by_the_system, private
        self._threads = ThreadPoolExecutor(_RESOLVING, "resolving")

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002  # both kinds
    ) -> list[ResolveResult]:
        addresses = await self._resolve(host)
        if reason := urls.leading(host, addresses, private=self._private):
            raise _PrivateAddress(reason)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]  # fmt: skip

    async def _by_the_system(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """What is kept of the body. A connection with more on it, or a broken one, is not used again."""
    parts: list[bytes] = []
    missing = int(LARGEST_KEPT)
    try:
        while missing and not response.content.at_eof():
            part = await response.content.read(missing)
            parts.append(part)
            missing -= len(part)
    except (aiohttp.ClientError, TimeoutError, OSError):
        missing = 0
    if missing or response.content.at_eof():
        response.release()
    else:
        response.close()
    return b"".join(parts)


def _code(error: Exception) -> NoAnswer:
    cause = getattr(error, "os_error", error)
    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], NoAnswer], ...] = (
        (aiohttp.ConnectionTimeoutError, NoAnswer.CONNECT_TIMEOUT),
        (aiohttp.SocketTimeoutError, NoAnswer.TIMEOUT),
        (TimeoutError, NoAnswer.TOO_SLOW),
        ((aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError), NoAnswer.TLS),
        (aiohttp.ClientConnectorDNSError, NoAnswer.DNS),
        ((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError), NoAnswer.CLOSED),
        (aiohttp.ClientResponseError, NoAnswer.GARBLED),
    )
    if isinstance(cause, _PrivateAddress):
        return NoAnswer.PRIVATE_ADDRESS
    if isinstance(cause, ConnectionRefusedError):
        return NoAnswer.REFUSED
    found = next((code for kind, code in kinds if isinstance(error, kind)), None)
    if found is not None:
        return found
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return NoAnswer.URL
    return NoAnswer.UNREACHABLE if isinstance(error, aiohttp.ClientConnectorError) else NoAnswer.CLOSED


def _since(began: float) -> Milliseconds:
    return Milliseconds((time.perf_counter() - began) * 1000)
