"""COPY's binary format: about twice as fast as text, for the server and for Python.

Source: PostgreSQL manual, COPY, "Binary Format"; each field is its length in four bytes, then its bytes.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from struct import pack

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"

_UUID_LENGTH = 16 << 128
_TIME_LENGTH = 8 << 64
EPOCH = 946_684_800  #: PostgreSQL counts from 2000-01-01; seconds since 1970


def text(value: str) -> bytes:
    """A field of type text, or json."""
    data = value.encode()
    return len(data).to_bytes(4, "big") + data


def smallint(value: int) -> bytes:
    """A field of type smallint."""
    return pack(">ih", 2, value)


def uuids(values: Iterable[int]) -> list[bytes]:
    """Fields of type uuid."""
    return [(_UUID_LENGTH | value).to_bytes(20, "big") for value in values]


def times(seconds: Iterable[int], salt: int) -> list[bytes]:
    """Fields of type timestamptz, from seconds since 1970; the microseconds are made up."""
    return [
        (_TIME_LENGTH | (second - EPOCH) * 1_000_000 + (n + salt) * 7919 % 1_000_003 % 1_000_000).to_bytes(12, "big")
        for n, second in enumerate(seconds)
    ]


def records(fields: int, columns: Sequence[Sequence[bytes]]) -> bytes:
    """Rows of so many fields; a column may hold several fields in each of its values."""
    head = fields.to_bytes(2, "big")
    return b"".join(map(b"".join, zip(repeat(head), *columns)))
