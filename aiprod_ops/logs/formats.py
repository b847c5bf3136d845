"""Which format a log has, and the reader for it."""

import re
from collections.abc import Callable
from typing import Protocol

from aiprod_ops.errors import UsageError
from aiprod_ops.logs import prefixes
from aiprod_ops.logs.cloud import Cloud
from aiprod_ops.logs.csvlog import CsvLog
from aiprod_ops.logs.entries import Batch, Reading, Unread
from aiprod_ops.logs.jsonlog import JsonLog
from aiprod_ops.logs.stderr import Stderr

FORMATS = ("auto", "stderr", "csvlog", "jsonlog", "cloud")
HEAD = 256 * 1024  #: bytes that a format is told from
_LINES = 400
_BOM = b"\xef\xbb\xbf"
_FIELD = r'(?:"[^"\n]*"|[^",\n]*)'
#: Up to the session and its line: a prefix with commas may begin like it. Another writer may not quote as the server.
_CSV = re.compile(
    r'^"?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [^",\s]+"?,'
    rf'{_FIELD},{_FIELD},"?\d+"?,{_FIELD},"?[0-9a-f]+\.[0-9a-f]+"?,"?\d+"?,',
    re.MULTILINE,
)
_CLOUD = re.compile(r'"(?:textPayload|jsonPayload|logName|insertId|receiveTimestamp|protoPayload)"\s*:')
_JSON = re.compile(r'^\{[ \t]*"timestamp"[ \t]*:[ \t]*"', re.MULTILINE)


class Reader(Protocol):
    """Reads one log, block by block."""

    def read(self, block: bytes) -> Batch: ...

    def end(self) -> Batch: ...


class LogReader:
    """A reader that finds out from the first 256 KiB which format it reads.

    `format` is one of FORMATS; `prefix` is `log_line_prefix` as PostgreSQL's configuration writes it, where the format
    has one. `found` is what was decided; empty until then, and where nothing fits.
    """

    def __init__(self, reading: Reading, format: str = "auto", prefix: str = "") -> None:  # noqa: A002 the option's name
        self.found = ""
        self._head = b""  # all of it until the format is known
        self._reading = reading
        self._format = format
        self._prefix = prefix
        self._reader: Reader | None = None
        self._size, self._entries, self._cut_files = reading.size_bytes, reading.entries, reading.cut_files

    def read(self, block: bytes) -> Batch:
        """What this block tells."""
        self._reading.size_bytes += len(block)
        if self._reader is not None:
            return self._reader.read(block)
        self._head += block
        return self._begin() if len(self._head) >= HEAD else Batch()

    def end(self) -> Batch:
        """What is left when the log ends."""
        batch = self._begin() if self._reader is None else Batch()
        last = self._reader.end() if self._reader else Batch()
        return Batch(batch.calls + last.calls, batch.plans + last.plans, batch.spills + last.spills)

    def settle(self) -> Batch:
        """What there is, when more may not come for a while: the format is told from less, if it can be."""
        if self._reader is not None or b"\n" not in self._head or (reader := self._made()) is None:
            return Batch()
        return self._begin(reader)

    def _begin(self, reader: Reader | None = None) -> Batch:
        self._reader = reader or self._made() or _Unknown(self._reading)
        head, self._head = self._head.removeprefix(_BOM), self._head[:HEAD]
        return self._reader.read(head)

    def unread(self, name: str) -> Unread | None:
        """What to say of a log that has ended and gave not one entry; None of any other, and of an empty one."""
        reading, size = self._reading, self._reading.size_bytes - self._size
        if reading.entries > self._entries or not (size or reading.cut_files > self._cut_files):
            return None
        return Unread(name, size, _format("\n".join(self._lines()), ""))

    def _made(self) -> Reader | None:
        lines = self._lines()
        self.found = self._format if self._format != "auto" else _format("\n".join(lines), self._prefix)
        if self.found != "stderr":
            made: dict[str, Callable[[], Reader]] = {
                "jsonlog": lambda: JsonLog(self._reading),
                "csvlog": lambda: CsvLog(self._reading),
                "cloud": lambda: Cloud(self._reading, self._prefix),
            }
            return made[self.found]() if self.found else None
        prefix = self._prefix or prefixes.detect(lines[:_LINES])
        if prefix is None:
            self.found = ""
            return None
        try:
            return Stderr(self._reading, prefix)
        except ValueError as error:
            raise UsageError(f"--prefix {prefix!r}: {error}", hint="give it as log_line_prefix says it") from error

    def _lines(self) -> list[str]:
        # The same bytes, however the blocks are cut.
        return self._head[:HEAD].lstrip(_BOM + b"\0 \r\n").decode("utf-8", "replace").splitlines()


class _Unknown:
    """What is no log of PostgreSQL: nobody can read it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, block: bytes) -> Batch:
        self._reading.unread_bytes += len(block)
        return Batch()

    def end(self) -> Batch:
        return Batch()


def _format(head: str, prefix: str) -> str:
    start = head.lstrip("\0 \t\r\n")
    if start[:1] in "[{" and _CLOUD.search(head):
        return "cloud"
    for name, pattern in (("jsonlog", _JSON), ("csvlog", _CSV)):
        if pattern.search(head):
            return name
    if _CLOUD.search(head):  # cut at its start
        return "cloud"
    return "stderr" if prefix or prefixes.detect(head.split("\n")[:_LINES]) is not None else ""
