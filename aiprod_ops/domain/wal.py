"""Names of WAL segments: which of them follow one another, and which is missing.

A segment's name is timeline, log and segment, 8 hexadecimal digits each; a log has 4 GB.
Source: PostgreSQL manual, "WAL Internals"; `XLogFileName` in xlog_internal.h.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from aiprod_ops.units import Bytes

LOG = 1 << 32  #: bytes
USUAL = Bytes(1 << 24)  #: of a segment, unless initdb was told otherwise
SIZES = tuple(Bytes(1 << exponent) for exponent in range(20, 31))  #: what initdb lets one choose

_SEGMENT = re.compile(r"[0-9A-F]{24}\Z")


@dataclass(frozen=True, slots=True)
class Line:
    """Segments that follow one another, one for each number, and the last name before the first that is missing."""

    names: tuple[str, ...]
    gap: str = ""


def is_segment(name: str) -> bool:
    """Whether it is a whole segment: not a history, nor one that was begun only.

    >>> [is_segment(name) for name in ("000000010000000000000002", "000000010000000000000002.partial")]
    [True, False]
    """
    return _SEGMENT.match(name) is not None


def number(name: str, size: int = USUAL) -> int:
    """Which one it is since the beginning of time, whatever its timeline; times the size it is where it begins (LSN).

    >>> number("000000020000000100000003")
    259
    """
    return int(name[8:16], 16) * (LOG // size) + int(name[16:], 16)


def position(lsn: str) -> int:
    """An LSN in bytes since the beginning of time.

    >>> position("1/10") - LOG
    16
    """
    high, _, low = lsn.partition("/")
    return int(high, 16) * LOG + int(low, 16)


def line(names: Iterable[str], first: str, size: int = USUAL) -> Line:
    """Those from one segment on, as recovery takes them: where a newer timeline begins, the older one has ended.

    >>> line(["000000010000000000000002", "000000010000000000000003", "000000020000000000000003"],
    ...      "000000010000000000000002").names
    ('000000010000000000000002', '000000020000000000000003')
    """
    known = {name for name in names if is_segment(name) and number(name, size) >= number(first, size)}
    begins: dict[str, int] = {}
    for name in known:
        begins[name[:8]] = min(number(name, size), begins.get(name[:8], number(name, size)))
    stays = {
        number(name, size): name
        for name in sorted(known)
        if name[:8] >= first[:8]
        and all(number(name, size) < begin for timeline, begin in begins.items() if timeline > name[:8])
    }
    ordered = tuple(stays[each] for each in sorted(stays))
    for before, after in itertools.pairwise(ordered):
        if number(after, size) != number(before, size) + 1:
            return Line(ordered, before)
    return Line(ordered)


def size_of(lsn: str, name: str) -> Bytes:
    """How large a segment is when this one holds this LSN; the usual size where that may be.

    >>> size_of("0/18000028", "000000010000000000000006")
    67108864
    """
    fitting = [size for size in (USUAL, *SIZES) if number(name, size) == position(lsn) // size]
    return fitting[0] if fitting else USUAL
