"""A request that is sent to a stranger's URL, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiprod_ops.units import Bytes, Milliseconds, Seconds

LARGEST_KEPT = Bytes(2048)  #: so much of an answer's body is read; then the connection is closed


class NoAnswer(StrEnum):
    """Why there was no status. These are told to customers, and kept: they do not change."""

    URL = "url"  #: no request is made for such a URL
    DNS = "dns"  #: the name does not resolve
    PRIVATE_ADDRESS = "private_address"  #: it leads, now, to an address that no request goes to
    REFUSED = "refused"  #: nobody listens
    UNREACHABLE = "unreachable"  #: no way there
    TLS = "tls"  #: no agreement, or a certificate that is not the name's
    CONNECT_TIMEOUT = "connect_timeout"
    TIMEOUT = "timeout"  #: connected, then nothing for too long
    TOO_SLOW = "too_slow"  #: something came, but not a whole head in the time for all of it
    CLOSED = "closed"  #: the connection ended before the answer
    GARBLED = "garbled"  #: what came is not HTTP
    UNSIGNED = "unsigned"  #: nothing was sent: there is no secret to sign it with


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Of one request. Source: Standard Webhooks, "Delivery": 15 to 30 seconds."""

    connect: Seconds = Seconds(5)  #: name, TCP and TLS together
    read: Seconds = Seconds(10)  #: between two pieces
    whole: Seconds = Seconds(15)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of it: a status, or why there is none. Once the head has come its status counts: a body that is broken
    off, too long or too slow is kept as far as it came.
    """

    milliseconds: Milliseconds
    status: int | None = None
    error: NoAnswer | None = None
    retry_after: str = ""  #: the header
    body: bytes = b""  #: LARGEST_KEPT at the most

    def without_answer(self) -> "Exchange":
        """The same, told without anything that came from the other side."""
        return Exchange(self.milliseconds, error=NoAnswer.GARBLED)


def answered(milliseconds: Milliseconds, status: int, retry_after: str, body: bytes) -> Exchange:
    """What a head and what is kept of its body are. A status has three digits (RFC 9110, 15): any other is not HTTP,
    whatever a client takes it for.

    >>> answered(Milliseconds(1), 204, "", b"").status, answered(Milliseconds(1), 99999, "", b"").error
    (204, <NoAnswer.GARBLED: 'garbled'>)
    """
    if not 100 <= status <= 999:
        return Exchange(milliseconds, error=NoAnswer.GARBLED)
    return Exchange(milliseconds, status, None, retry_after, body)
