"""When something was logged: PostgreSQL's timestamps, as `log_timezone` writes them."""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)? ?(\S*)")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?")
_KNOWN = ("", "Z", "UTC", "GMT")


@lru_cache(maxsize=4096)
def instant(stamp: str) -> datetime | None:
    """The moment a timestamp names; None for none. An abbreviation other than UTC cannot be told: taken as UTC.

    >>> instant("2026-11-22 00:03:53.599 UTC"), instant("1763772000.5"), instant("-")
    (datetime.datetime(2026, 11, 22, 0, 3, 53, 599000, tzinfo=datetime.timezone.utc), \
datetime.datetime(2025, 11, 22, 0, 40, 0, 500000, tzinfo=datetime.timezone.utc), None)
    """
    match = _STAMP.match(stamp)
    try:
        if match is None:
            return datetime.fromtimestamp(float(stamp), UTC)
        day, time, fraction, zone = match.groups("")
        micro = (fraction + "000000")[:7] if fraction else ""
        return datetime.fromisoformat(f"{day}T{time}{micro}").replace(tzinfo=_zone(zone)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def second(stamp: str) -> datetime | None:
    """The same without the fraction, which is cheap when asked for call after call."""
    if stamp[19:20] == ".":
        stamp = stamp[:19] + " " + stamp.partition(" ")[2].partition(" ")[2]
    return instant(stamp)


def unknown_zone(stamp: str) -> str:
    """The abbreviation of a time zone that cannot be told, such as `CET`; empty where it can."""
    match = _STAMP.match(stamp)
    if match is None or match[4] in _KNOWN or _OFFSET.fullmatch(match[4]):
        return ""
    return match[4]


def _zone(name: str) -> timezone:
    match = _OFFSET.fullmatch(name)
    if match is None:
        return UTC
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return timezone(offset if match[1] == "+" else -offset)
