"""What is stored: bytes of msgpack behind a byte that tells the format. Never pickle: it runs what it reads."""

import random
from dataclasses import dataclass

import msgspec

from aiprod_ops.units import Ratio, Seconds

#: Of an entry's format. What begins with another byte is of another version of this program: a miss.
_FORMAT = b"\x01"

JITTER = Ratio(0.1)  #: entries that were stored together do not all end together


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`fresh_until` is in seconds since 1970, of the clock of who stored it. `key` is its own: an answer that a broken
    connection gave to another question is not taken for this one's. `versions` are of its tags, in the same order."""

    key: str
    fresh_until: float
    tags: tuple[str, ...]
    versions: tuple[bytes, ...]
    payload: bytes


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Entry).decode


def stored(entry: Entry) -> bytes:
    """As it is kept."""
    return _FORMAT + _encode(entry)


def read(kept: object, key: str) -> Entry | None:
    """The entry of a key; None of what is none, whatever it is."""
    if not isinstance(kept, bytes) or kept[:1] != _FORMAT:
        return None
    try:
        entry = _decode(memoryview(kept)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return entry if entry.key == key and len(entry.tags) == len(entry.versions) else None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long an entry is fresh, and how long it may be served while a new one is computed. An entry that says that
    there is nothing is fresh for `nothing`."""

    fresh: Seconds
    stale: Seconds = Seconds(0)
    nothing: Seconds = Seconds(0)

    def __post_init__(self) -> None:
        if not (0 < self.fresh < float("inf") and 0 <= self.stale < float("inf") and 0 <= self.nothing < float("inf")):
            raise ValueError(f"expected fresh > 0, stale and nothing >= 0, in seconds: {self}")

    def drawn(self) -> Seconds:
        """How long this one is fresh: at random, 10 % more or less."""
        return Seconds(self.fresh * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311
