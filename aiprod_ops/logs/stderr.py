"""PostgreSQL's plain log, as it goes to stderr: a prefix, a severity, a message, continuation lines behind a tab.

Source: PostgreSQL manual, "Error Reporting and Logging"; elog.c, send_message_to_server_log.
"""

from operator import itemgetter
from typing import cast

from aiprod_ops.logs import prefixes
from aiprod_ops.logs.entries import Batch, Call, Entry, Reading, Sessions, remember
from aiprod_ops.logs.lines import Lines

_TOLD = ("duration: ", "statement: ", "execute ", "temporary file: ")
_MAIN = frozenset(prefixes.MAIN)

#: What a call's plain tuple is until it is known that no DETAIL follows; anything else is an Entry.
_Held = tuple[str, str, str, str, str, str, str, int]


class Stderr:
    """Reads blocks of a plain log with one prefix."""

    def __init__(self, reading: Reading, prefix: str) -> None:
        self._reading = reading
        self._lines = Lines(reading)
        self._sessions = Sessions(reading)
        self._pattern = prefixes.entries(prefix)
        self._fields = itemgetter(*(self._pattern.groupindex[name] - 1 for name in prefixes.FIELDS))
        self._open: dict[str, _Held | Entry] = {}  # by session: of what DETAIL or STATEMENT may still tell

    def read(self, block: bytes) -> Batch:
        """What the entries say that are whole now."""
        chunk = self._lines.feed(block)
        start = _last_entry(chunk)
        self._lines.give_back(chunk[start:])
        return self.text(chunk[:start].decode("utf-8", "replace"))

    def end(self) -> Batch:
        """What is left."""
        batch = self.text(self._lines.end().decode("utf-8", "replace"))
        for held in self._open.values():
            self._close(held, batch)
        self._open.clear()
        return batch

    def text(self, text: str) -> Batch:
        """What whole entries say."""
        batch, held, main = Batch(), self._open, _MAIN
        text = text.replace("\r\n", "\n") if "\r\n" in text else text
        for stamp, session, database, application, query_id, severity, duration, prepared, message, other in map(
            self._fields, self._pattern.findall(text.replace("\0", ""))
        ):
            said = message.replace("\n\t", "\n") if "\n" in message else message
            if severity in main:
                if session in held:
                    self._close(held.pop(session), batch)
                one: _Held | Entry
                if duration:
                    one = (stamp, database, duration, prepared, said, "", application, int(query_id or 0))
                elif severity == "LOG" and said.startswith(_TOLD):
                    one = Entry(stamp, session, database, application, said, "", "", int(query_id or 0))
                else:
                    self._reading.entries += 1
                    continue
                if (forgotten := remember(held, session, one)) is not None:
                    self._close(forgotten, batch)
            elif severity and session in held:
                held[session] = _told(held[session], severity, said)
            elif other:
                self._reading.leave_out(other.encode())
        return batch

    def _close(self, held: _Held | Entry, batch: Batch) -> None:
        if isinstance(held, Entry):
            self._sessions.take(held, batch)
        else:
            self._reading.entries += 1
            batch.calls.append(cast("Call", held))


def _told(held: _Held | Entry, severity: str, said: str) -> _Held | Entry:
    """What is held, and what a line after it adds."""
    if isinstance(held, Entry):
        return (
            held._replace(detail=said)
            if severity == "DETAIL"
            else (held._replace(statement=said) if severity == "STATEMENT" else held)
        )
    return (*held[:5], said, *held[6:]) if severity == "DETAIL" else held


def _last_entry(chunk: bytes) -> int:
    """Where the last entry begins, which may go on in the next block."""
    start = len(chunk)
    while start > 0:
        start = chunk.rfind(b"\n", 0, start - 1) + 1
        if chunk[start : start + 1] != b"\t":
            break
    return start
