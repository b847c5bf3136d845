"""Standard output, when it cannot be written: to a full disk, say."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from aiprod_ops.errors import Exit

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UNKNOWN = 3
_LOOKING = ("check", "evidence")
_ACTING = ("run", "resume", "rollback", "prove", "drill", "conform", "docs", "lab")


class Lossy(io.FileIO):
    """A file whose failure stops nobody: what acts goes on, and the end tells. `lost` is what was said to the first
    write that failed. A reader who went away is no failure: BrokenPipeError passes."""

    lost: str = ""

    def write(self, data: "ReadableBuffer", /) -> int:
        if not self.lost:
            try:
                return super().write(data)
            except BrokenPipeError:
                raise
            except OSError as error:
                self.lost = error.strerror or str(error)
        return memoryview(data).nbytes


def lossy(stream: TextIO | None) -> tuple[TextIO, Lossy]:
    """The same text stream over a file that is lossy; None is one that the caller had closed."""
    if stream is None:
        raw = Lossy(os.devnull, "wb")
        raw.lost = "it is closed"
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8"), raw
    raw = Lossy(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=stream.isatty()), raw


def code_without_result(code: int, command: str) -> int:
    """The exit code of a command whose result was lost: what was done is done, what was only looked for is not known.

    >>> [int(code_without_result(0, command)) for command in ("check", "digest", "run")]
    [3, 10, 0]
    """
    if command in _LOOKING:
        return _UNKNOWN
    return code if command in _ACTING or code not in (0, 1) else int(Exit.REFUSED)


def tell_lost(lost: str, command: str) -> None:
    """One line on stderr, and the next step."""
    again = "aiprod-ops runs list" if command in _ACTING else "make room where it leads, then try again"
    sys.stderr.write(f"aiprod-ops: standard output: {lost}: the result is not there\n  next: {again}\n")
