"""PostgreSQL's plain log, as it goes to stderr: a prefix, a severity, a message, continuation lines behind a tab.

Source: PostgreSQL manual, "Error Reporting and Logging"; elog.c, send_message_to_server_log.
"""

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from aiprod_ops.logs import prefixes
from aiprod_ops.logs.entries import CALL, Batch, Call, Entry, Reading, Sessions, remember
from aiprod_ops.logs.lines import Lines

_TOLD = ("duration: ", "statement: ", "execute ", "temporary file: ")
_FIELDS = ("stamp", "session", "database", "application", "query_id", "severity", "message", "other")
_FURTHER = {"DETAIL": "detail", "STATEMENT": "statement"}
_MAIN = frozenset(prefixes.MAIN)


class Stderr:
    """Reads blocks of a plain log with one prefix."""

    def __init__(self, reading: Reading, prefix: str) -> None:
        self._reading = reading
        self._lines = Lines(reading)
        self._sessions = Sessions(reading)
        self._pattern = prefixes.entries(prefix)
        self._fields = _picker(self._pattern)
        self._open: dict[str, Entry] = {}  # by session: what DETAIL or STATEMENT may still be said of

    def read(self, block: bytes) -> Batch:
        """What the entries say that are whole now."""
        chunk = self._lines.feed(block)
        start = _last_entry(chunk)
        self._lines.give_back(chunk[start:])
        return self.text(chunk[:start].decode("utf-8", "replace"))

    def end(self) -> Batch:
        """What is left."""
        batch = self.text(self._lines.end().decode("utf-8", "replace"))
        for entry in self._open.values():
            self._close(entry, batch)
        self._open.clear()
        return batch

    def text(self, text: str) -> Batch:
        """What whole entries say."""
        batch = Batch()
        text = text.replace("\r\n", "\n") if "\r\n" in text else text
        open_ones, further, main = self._open, _FURTHER, _MAIN
        for stamp, session, database, application, query_id, severity, message, other in map(
            self._fields, self._pattern.findall(text.replace("\0", ""))
        ):
            if severity in main:
                if session in open_ones:
                    self._close(open_ones.pop(session), batch)
                if severity == "LOG" and message.startswith(_TOLD):
                    said = message.replace("\n\t", "\n") if "\n" in message else message
                    entry = Entry(stamp, session, database, application, said, "", "", int(query_id or 0))
                    if (forgotten := remember(open_ones, session, entry)) is not None:
                        self._close(forgotten, batch)
                else:
                    self._reading.entries += 1
            elif severity in further:
                if session in open_ones:
                    told = {further[severity]: message.replace("\n\t", "\n")}
                    open_ones[session] = open_ones[session]._replace(**told)
            elif other:
                self._reading.leave_out(other.encode())
        return batch

    def _close(self, entry: Entry, batch: Batch) -> None:
        if found := CALL.match(entry.message):
            duration, prepared, text = found.groups("")
            self._reading.entries += 1
            batch.calls.append(
                Call(entry.stamp, entry.database, duration, prepared, text, entry.detail, entry.application,
                     entry.query_id)
            )  # fmt: skip
        else:
            self._sessions.take(entry, batch)


def _picker(pattern: re.Pattern[str]) -> Callable[[tuple[str, ...]], Any]:
    """The fields in their order from a tuple of `findall`; empty for what the prefix does not hold."""
    places = pattern.groupindex
    if len(places) == len(_FIELDS):
        return itemgetter(*(places[name] - 1 for name in _FIELDS))
    wanted = [places.get(name, 0) - 1 for name in _FIELDS]
    return lambda groups: [groups[place] if place >= 0 else "" for place in wanted]


def _last_entry(chunk: bytes) -> int:
    """Where the last entry begins, which may go on in the next block."""
    start = len(chunk)
    while start > 0:
        start = chunk.rfind(b"\n", 0, start - 1) + 1
        if chunk[start : start + 1] != b"\t":
            break
    return start
