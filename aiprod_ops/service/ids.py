"""Identifiers that grow with time, so that a primary key grows at its right end and a list by id is a list by age."""

import secrets
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """A UUID of version 7 that no other caller gets: milliseconds since 1970, then 74 random bits.

    Source: RFC 9562, section 5.7.
    """
    millisecond, tail = time.time_ns() // 1_000_000, secrets.randbits(74)
    return UUID(int=millisecond << 80 | 7 << 76 | (tail >> 62) << 64 | 1 << 63 | tail & (1 << 62) - 1)


def least(moment: datetime) -> UUID:
    """The least id that may have been given at a moment: ids of what was made before are less.

    >>> least(datetime.fromisoformat("2026-11-28T12:00:00Z"))
    UUID('01a22206-ca00-0000-0000-000000000000')
    """
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
