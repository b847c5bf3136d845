"""Whole responses as they are stored: status, headers, body; which may be stored, and when "not modified" is enough."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from aiprod_ops.service.caching.asgi import Message

Headers = Sequence[tuple[bytes, bytes]]

#: What describes the body. All else is of one request (its id, its limits, its date) or of one connection.
_KEPT = frozenset(
    b"content-type content-language content-disposition content-encoding content-location cache-control etag "
    b"last-modified link vary x-content-type-options deprecation sunset".split()
)
_UPDATED = frozenset((b"cache-control", b"content-location", b"etag", b"vary"))
#: A response that varies with these is told apart by who asks, where that is known.
WHOSE = frozenset((b"authorization", b"x-api-key"))


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A response without what is of one request only. The names of headers are in lower case; `at` is when it was made,
    in seconds since 1970."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    at: float = 0.0

    @property
    def is_missing(self) -> bool:
        return self.status == 404

    def messages(self, cache: bytes, asked: Sequence[bytes]) -> tuple[Message, Message]:
        """To a client that has the entity tags `asked`; `cache` is how it was found. A 304 has the headers that a 200
        would have had to update what the client has (RFC 9110, 15.4.5). Its age is told (RFC 9111, 4): a client that
        keeps it for `max-age` counts from when it was made."""
        age = (b"age", b"%d" % max(0.0, time.time() - self.at)) if cache != b"miss" else None
        told = [(b"x-cache", cache), *([age] if age else [])]
        if asked and self.matches(asked):
            kept = [each for each in self.headers if each[0] in _UPDATED]
            start = {"type": "http.response.start", "status": 304, "headers": [*kept, *told]}
            return start, {"type": "http.response.body", "body": b""}
        length = (b"content-length", b"%d" % len(self.body))
        start = {"type": "http.response.start", "status": self.status, "headers": [*self.headers, length, *told]}
        return start, {"type": "http.response.body", "body": self.body}

    def matches(self, asked: Iterable[bytes]) -> bool:
        """Whether the client has this one: its If-None-Match lists the entity tag, compared weakly (RFC 9110, 13.1.2).

        >>> Stored(200, ((b"etag", b'"a"'),), b"").matches([b'"b", W/"a"']), Stored(404, (), b"").matches([b"*"])
        (True, False)
        """
        mine = next((value for name, value in self.headers if name == b"etag"), None)
        if mine is None or self.status != 200:
            return False
        listed = [each.strip() for line in asked for each in line.split(b",")]
        return b"*" in listed or mine.removeprefix(b"W/") in [each.removeprefix(b"W/") for each in listed]


_encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Stored).decode


def payload(response: Stored) -> bytes:
    return _encode(response)


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides whether a response may be stored. `varies` are the request headers that are a part of the key, in
    lower case; a public one is the same for all who ask."""

    is_public: bool
    varies: tuple[bytes, ...] = ()

    def refusal(self, status: int, headers: Headers) -> str:
        """Why a response is not stored; '' where it may be (RFC 9111, 3, and 5.2.2).

        >>> Rules(is_public=False).refusal(200, [(b"Set-Cookie", b"a=1")])
        'it sets a cookie'
        >>> Rules(is_public=True).refusal(200, [(b"cache-control", b"private, max-age=5")])
        'it is private, and its key names no user'
        """
        if status != 404 and (not 200 <= status < 300 or status == 206):
            return f"its status is {status}"
        said = [(name.lower(), value.lower()) for name, value in headers]
        if any(name == b"set-cookie" for name, _ in said):
            return "it sets a cookie"
        asked = _listed(said, b"cache-control")
        if b"no-store" in asked:
            return "it says no-store"
        if self.is_public and b"private" in asked:
            return "it is private, and its key names no user"
        vary = _listed(said, b"vary") - set(self.varies) - (set() if self.is_public else WHOSE)
        return f"it varies with {b', '.join(sorted(vary)).decode('latin-1')}" if vary else ""


def _listed(headers: Headers, wanted: bytes) -> set[bytes]:
    """The members of a header's list, without arguments."""
    members = (each for name, value in headers if name == wanted for each in value.split(b","))
    return {each.split(b"=")[0].strip() for each in members} - {b""}


def kept(status: int, headers: Headers, body: bytes) -> Stored:
    """As it is stored, with a strong entity tag where it has none."""
    mine = tuple((name.lower(), value) for name, value in headers if name.lower() in _KEPT)
    if status == 200 and not any(name == b"etag" for name, _ in mine):
        mine += ((b"etag", b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode()),)
    return Stored(status, mine, body, time.time())
