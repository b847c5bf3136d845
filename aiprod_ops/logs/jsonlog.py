"""PostgreSQL's JSON log (15 and newer): one object a line.

Source: PostgreSQL manual, "Using JSON-Format Log Output". msgspec decodes a whole block at once, and makes objects only
of the keys that are wanted; only a block with a damaged line is read line by line.
"""

import re
from typing import cast

import msgspec

from aiprod_ops.logs.entries import CALL, Batch, Call, Entry, Reading, Sessions
from aiprod_ops.logs.lines import Lines

_START = re.compile(rb'\{\s*"timestamp"\s*:\s*"')


class _Said(msgspec.Struct, gc=False):
    message: str
    timestamp: str = ""
    dbname: str = ""
    session_id: str = ""
    application_name: str = ""
    detail: str = ""
    statement: str = ""
    query_id: int = 0


_DECODER = msgspec.json.Decoder(_Said)


class JsonLog:
    """Reads blocks of a JSON log."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._lines = Lines(reading)
        self._sessions = Sessions(reading)

    def read(self, block: bytes) -> Batch:
        """What the lines say that this block ends."""
        return self._batch(self._lines.feed(block))

    def end(self) -> Batch:
        """What the last line says, which no newline ended."""
        return self._batch(self._lines.end())

    def _batch(self, chunk: bytes) -> Batch:
        try:
            entries = _DECODER.decode_lines(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError):
            entries = [each for line in chunk.split(b"\n") for each in self._damaged(line)]
        match = CALL.match
        calls = [
            (said.timestamp, said.dbname, *found.groups(""), said.detail, said.application_name, said.query_id)
            for said in entries
            if (found := match(said.message))
        ]
        batch = Batch(cast("list[Call]", calls))
        if len(calls) < len(entries):
            for said in entries:
                if not match(said.message):
                    self._sessions.take(_entry(said), batch)
        self._reading.entries += len(calls)
        return batch

    def _damaged(self, line: bytes) -> list[_Said]:
        """A line, or what is left of it where another one was torn off and runs into it."""
        line = line.strip(b"\0 \r\t")
        if not line:
            return []
        try:
            return [_DECODER.decode(line.decode("utf-8", "replace").encode())]
        except msgspec.DecodeError:
            start = max((found.start() for found in _START.finditer(line)), default=0)
            if not start:
                self._reading.leave_out(line)
                return []
            return [*self._damaged(line[:start]), *self._damaged(line[start:])]


def call(line: bytes) -> Call | None:
    """The call that one line tells of, if it does."""
    reading = Reading()
    found = JsonLog(reading).read(line + b"\n").calls
    return Call(*found[0]) if found else None


def _entry(said: _Said) -> Entry:
    return Entry(
        said.timestamp, said.session_id, said.dbname, said.application_name, said.message, said.detail,
        said.statement, said.query_id,
    )  # fmt: skip
