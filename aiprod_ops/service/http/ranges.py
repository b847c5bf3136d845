"""A part of a representation, as a client asks for it to go on with a download.

Source: RFC 9110, sections 13.1.5 (If-Range), 14.1.2 (byte ranges), 14.2 (Range).
"""

import re

from aiprod_ops.service.http.problems import Problem

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked(header: str | None, if_range: str | None, tag: str, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; None where the whole is to be sent. Several ranges are answered with
    the whole, as is what is no range. Raises Problem RANGE_NOT_SATISFIABLE.

    >>> asked("bytes=10-", None, "", 100), asked("bytes=-10", None, "", 100), asked("bytes=0-4", '"old"', '"new"', 100)
    ((10, 100), (90, 100), None)
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or (if_range is not None and if_range != tag):
        return None
    first, last = found.groups()
    if not first:
        begin, end = (size - min(size, int(last)), size) if last else (size, size)
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < begin:
            return None
    if begin >= size or begin >= end:
        raise Problem(
            "RANGE_NOT_SATISFIABLE",
            f"There are {size} bytes, the range begins after them.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return begin, end
