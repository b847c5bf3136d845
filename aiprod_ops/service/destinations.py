"""Where a stranger's URL leads now, so that its owner is told at once. It protects nobody from a name that leads
elsewhere a moment later: whoever sends judges again what it connects to, by the same rules (`aiprod_ops.domain.urls`).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiprod_ops.domain import urls
from aiprod_ops.errors import Refused, Unreachable
from aiprod_ops.service.validation import Found, Rule, Violation
from aiprod_ops.units import Seconds

Resolver = Callable[[str], Awaitable[list[str]]]
PATIENCE = Seconds(2)


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL and the addresses that it may be reached at, now."""

    url: str
    host: str
    addresses: tuple[str, ...]


async def resolve(host: str) -> list[str]:
    """All addresses of a name, by the system's resolver; raises Unreachable."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise Unreachable(f"the name {host} does not resolve", hint="look at its DNS records") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def destination(url: str, resolver: Resolver = resolve) -> Destination:
    """Where a URL leads; raises Refused where any of its addresses is none that a request of ours may go to."""
    if (broken := urls.wrong(url)) is not None:
        raise Refused(f"the URL is not called: {broken[1]}", hint="use an https:// URL with a public name")
    host = (urlsplit(url).hostname or "").rstrip(".")
    addresses = await resolver(host)
    if reason := urls.leading(host, addresses):
        raise Refused(reason, hint="use a name with public addresses only")
    if not addresses:
        raise Unreachable(f"the name {host} has no address", hint="look at its DNS records")
    return Destination(url, host, tuple(addresses))


def reachable(field: str, resolver: Resolver = resolve) -> Rule:
    """The same as a rule for `validation`, where a user should be told at once. It does not replace the look at use."""

    async def rule(url: str) -> Found:
        try:
            await destination(url, resolver)
        except Refused as error:
            return [Violation(field, "private_address", None, f"{error.message}.", f"{error.hint}.")]
        except Unreachable as error:
            return [Violation(field, "unresolvable", None, f"{error.message}.", f"{error.hint}.")]
        return []

    return rule
