"""Identifiers that grow with time, so that a primary key grows at its right end and a list by id is a list by age."""

import secrets
import time
from datetime import datetime
from uuid import UUID


def uuid7() -> UUID:
    """A UUID of version 7 that no other caller gets: milliseconds since 1970, a fraction of one in 12 bits, 62 random
    bits. Those that one process makes one after the other, with a statement between, are in this order.

    Source: RFC 9562, sections 5.7 and 6.2, method 3.
    """
    millisecond, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    return UUID(int=millisecond << 80 | 7 << 76 | fraction << 64 | 1 << 63 | secrets.randbits(62))


def first_id(moment: datetime) -> UUID:
    """The least UUID of version 7 that can be made at a moment; what was made before is smaller.

    >>> from datetime import UTC
    >>> first_id(datetime(2026, 11, 28, 12, tzinfo=UTC)) < uuid7()
    True
    """
    try:
        milliseconds = max(0, int(moment.timestamp() * 1000))
    except (OverflowError, ValueError):  # the first day of all, in another time zone
        milliseconds = 0
    return UUID(int=milliseconds << 80)
