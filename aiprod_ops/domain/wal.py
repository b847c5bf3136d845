"""Names of WAL segments: which of them follow one another, and which is missing.

A segment's name is timeline, log and segment, 8 hexadecimal digits each; a log has 4 GB.
Source: PostgreSQL manual, "WAL Internals"; `XLogFileName` in xlog_internal.h.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
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


def branches(history: str) -> dict[str, int]:
    """Of a timeline's history the timelines that it came from, and where it left each: bytes since the beginning.

    Source: `readTimeLineHistory` in timeline.c; a line is a timeline (decimal), an LSN, and why.

    >>> branches("1\\t0/3000060\\tno recovery target specified\\n")
    {'00000001': 50331744}
    """
    lines = (line.split() for line in history.splitlines())
    return {f"{int(words[0]):08X}": position(words[1]) for words in lines if len(words) > 1 and words[0].isdigit()}


def comes_to(names: Iterable[str], segment: str, left: Mapping[str, Mapping[str, int]], size: int = USUAL) -> bool:
    """Whether one of these is the segment, or comes after it: on its own timeline, or on one that left that one no
    earlier (`left` has the branches of each timeline). What another timeline has of the same number is another history.

    >>> comes_to(["000000010000000000000009"], "000000020000000000000005", {})
    False
    """
    least, timeline = number(segment, size), segment[:8]
    return any(
        number(name, size) >= least
        and (name[:8] == timeline or left.get(name[:8], {}).get(timeline, -1) // size >= least)
        for name in names
    )


def size_of(lsn: str, name: str) -> Bytes:
    """How large a segment is when this one holds this LSN; the usual size where that may be.

    >>> size_of("0/18000028", "000000010000000000000006")
    67108864
    """
    fitting = [size for size in (USUAL, *SIZES) if number(name, size) == position(lsn) // size]
    return fitting[0] if fitting else USUAL
