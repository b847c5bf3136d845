"""Names: of entries, of what they belong to (tags), of the locks of who computes them. All in one namespace.

A tag's key holds its version. An entry holds the versions that its tags had before its computation began, and counts as
long as they are the same: to invalidate a tag is to delete its key. That costs the same however many entries there are,
needs no memory of a server that is full, and what a computation that began before stores later never counts. A version
that the server has lost or evicted is missing, and so the entry counts no longer: it fails to the safe side.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

import msgspec

from aiprod_ops.errors import UsageError

#: The tag of every entry: to invalidate it empties the cache.
EVERYTHING = "*"

_MOST_CHARACTERS = 512  #: of a key that somebody names


@dataclass(frozen=True, slots=True)
class Namespace:
    """What all names begin with. Two services that share a server have two; so have two formats of one's values.

    >>> Namespace("aiprod:cache").tag("job:7")
    'aiprod:cache:tag:job:7'
    """

    prefix: str

    def entry(self, key: str) -> str:
        return f"{self.prefix}:entry:{key}"

    def tag(self, tag: str) -> str:
        return f"{self.prefix}:tag:{tag}"

    def lock(self, key: str) -> str:
        return f"{self.prefix}:lock:{key}"

    def waiting(self, key: str) -> str:
        return f"{self.prefix}:waiting:{key}"

    @property
    def server(self) -> str:
        return f"{self.prefix}:server"

    def channel(self, process: str) -> str:
        return f"{self.prefix}:channel:{process}"


def job(job_id: object) -> str:
    """The tag of a job's entries."""
    return f"job:{job_id}"


def user(user_id: object) -> str:
    """The tag of a user's entries."""
    return f"user:{user_id}"


def key_of(prefix: str, *parts: object) -> str:
    """A short key of what decides the answer: parts that differ in anything, their type included, give another one.

    128 bits: of 2^40 entries two have one key with a probability of 2^-49, and an entry tells the key it is of.

    >>> key_of("job", 1) == key_of("job", "1"), key_of("job", "a", "b") == key_of("job", "ab", "")
    (False, False)
    """
    return f"{prefix}:{hashlib.blake2b(_encode(parts), digest_size=16).hexdigest()}"


def plain(value: Any) -> Any:
    """What msgspec does not know: pydantic's models, known by what they can do. Raises TypeError."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    raise TypeError(f"{type(value).__qualname__} has no way to be encoded")


_encode = msgspec.msgpack.Encoder(enc_hook=plain, order="deterministic").encode


def named(key: str) -> str:
    """A key that somebody gave, as a part of a name. Raises UsageError for what would not be one."""
    if not 0 < len(key) <= _MOST_CHARACTERS or not key.isprintable():
        raise UsageError(
            f"the cache key {key[:40]!r} has {len(key)} characters, expected 1 to {_MOST_CHARACTERS}, all printable",
            hint="name it shorter, or let `cached_endpoint` make the key",
        )
    return f"value:{key}"


def query_of(query: bytes) -> bytes:
    """A query string whose parameters are in order; those of one name stay as they were.

    >>> query_of(b"limit=5&after=x&tag=b&tag=a")
    b'after=x&limit=5&tag=b&tag=a'
    """
    if b"&" not in query:
        return query
    return b"&".join(sorted(query.split(b"&"), key=_name))


def _name(parameter: Any) -> bytes:
    return bytes(parameter).partition(b"=")[0]


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags with places for values: "job:{job_id}", "jobs-of:{user}"."""

    templates: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The values that they need, as they are named there.

        >>> sorted(Tags(("job:{job.id}", "jobs-of:{user}")).names)
        ['job.id', 'user']
        """
        fields = (name for each in self.templates for _, name, _, _ in Formatter().parse(each))
        return frozenset(name for name in fields if name is not None)

    @property
    def roots(self) -> frozenset[str]:
        """The same without what is asked of them."""
        return frozenset(re.split(r"[.\[]", name)[0] for name in self.names)

    def of(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """
        >>> Tags(("job:{job_id}", "jobs-of:{user}")).of({"job_id": 7, "user": "ada"})
        ('job:7', 'jobs-of:ada')
        """
        return tuple(each.format_map(values) for each in self.templates)


NONE = Tags()


def all_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Each tag once, in order, and that of everything."""
    return (EVERYTHING, *sorted(set(tags) - {EVERYTHING}))
