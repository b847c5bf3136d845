"""Exports of Cloud Logging: LogEntry objects, one a line or in an array, pretty-printed or not.

Cloud SQL puts the server's plain log into `textPayload`; agents put fields into `jsonPayload`. `gcloud logging read`
gives an array, the newest entry first. Source: Cloud Logging, "LogEntry"; Cloud SQL, "View instance logs".
"""

import codecs
import json
import re
from typing import Any

from aiprod_ops.logs import prefixes
from aiprod_ops.logs.entries import Batch, Entry, Reading, Sessions
from aiprod_ops.logs.lines import LONGEST
from aiprod_ops.logs.stderr import Stderr

_BETWEEN = re.compile(r"[\s,\[\]\0]*")
_OBJECT_LINE = re.compile(r"\n([ \t]*)\{")
#: Fields of a LogEntry; an object without any of them is something else.
_FIELDS = frozenset(("textPayload", "jsonPayload", "protoPayload", "logName", "insertId", "receiveTimestamp"))
_SAMPLE = 200  # texts that the prefix and the order are told from
_DECODER = json.JSONDecoder(strict=False)


class Cloud:
    """Reads blocks of an export."""

    def __init__(self, reading: Reading, prefix: str = "") -> None:
        self._reading = reading
        self._prefix = prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._sessions = Sessions(reading)
        self._held: list[tuple[str, str]] = []  # timestamp and text, until the prefix is known
        self._plain: Stderr | None = None
        self._head: re.Pattern[str] = re.compile("")
        self._newest_first = False
        self._later: list[str] = []

    def read(self, block: bytes) -> Batch:
        """What the objects say that this block ends."""
        return self._objects(self._decoder.decode(block), is_last=False)

    def end(self) -> Batch:
        """What is left."""
        batch = self._objects(self._decoder.decode(b"", final=True), is_last=True)
        if self._plain is None:
            _join(batch, self._begin())
        if self._plain is not None:
            _join(batch, self._plain.text("".join(reversed(self._later))))
            _join(batch, self._plain.end())
        return batch

    def _objects(self, text: str, *, is_last: bool) -> Batch:
        batch = Batch()
        text, position = self._rest + text, 0
        while True:
            between = _BETWEEN.match(text, position)
            position = between.end() if between else position
            if position >= len(text):
                break
            try:
                found, end = _DECODER.raw_decode(text, position)
            except (json.JSONDecodeError, RecursionError):
                after = _next_object(text, position)
                if after is None and not is_last and len(text) - position < LONGEST:
                    break
                found, end = None, len(text) if after is None else after
            if not isinstance(found, dict) or not self._entry(found, batch):
                self._reading.leave_out(text[position:end].encode("utf-8", "replace"))
            position = end
        self._rest = text[position:]
        return batch

    def _entry(self, found: dict[str, Any], batch: Batch) -> bool:
        """Whether this is a LogEntry, PostgreSQL's or another's."""
        stamp, text, fields = found.get("timestamp", ""), found.get("textPayload"), found.get("jsonPayload")
        if isinstance(text, str):
            self._text(str(stamp), text, batch)
        elif isinstance(fields, dict) and isinstance(fields.get("message"), str):
            self._sessions.take(_entry(fields, str(stamp)), batch)
        else:
            return not _FIELDS.isdisjoint(found)
        return True

    def _text(self, stamp: str, text: str, batch: Batch) -> None:
        text = text.rstrip("\n").replace("\n\t", "\n").replace("\n", "\n\t") + "\n"
        if self._plain is None:
            self._held.append((stamp, text))
            if len(self._held) >= _SAMPLE:
                _join(batch, self._begin())
        else:
            self._line(self._plain, text, batch)

    def _begin(self) -> Batch:
        """Decide on the prefix and the order, and read what was held back for that."""
        held, self._held, batch = self._held, [], Batch()
        prefix = self._prefix or prefixes.detect([text.partition("\n")[0] for _, text in held])
        if not prefix:
            for _, text in held:
                self._reading.leave_out(text.encode("utf-8", "replace"))
            return batch
        self._plain = Stderr(self._reading, prefix)
        self._head = prefixes.entries(prefix)
        self._newest_first = bool(held) and held[0][0] > held[-1][0]
        for _, text in held:
            self._line(self._plain, text, batch)
        return batch

    def _line(self, plain: Stderr, text: str, batch: Batch) -> None:
        """A text without a prefix goes on with the one before it, which in a descending export comes after it."""
        head = self._head.match(text)
        has_prefix = head is not None and head["other"] is None
        self._later.append(text if has_prefix else "\t" + text)
        is_main = head is not None and head["severity"] in prefixes.MAIN
        if is_main and not self._newest_first:  # what came before is whole
            held, self._later = "".join(self._later[:-1]), self._later[-1:]
            _join(batch, plain.text(held))
        elif is_main or len(self._later) > _SAMPLE:
            held, self._later = "".join(reversed(self._later)), []
            _join(batch, plain.text(held))


def _next_object(text: str, position: int) -> int | None:
    """Where the next object begins that is not inside the one at `position`; None if there is none yet."""
    # What does not begin an object is the rest of one that was cut off: then any object is the next.
    own = position - (text.rfind("\n", 0, position) + 1) if text[position] == "{" else LONGEST
    for line in _OBJECT_LINE.finditer(text, position + 1):
        if len(line[1]) <= own:
            return line.end() - 1
    return None


def _entry(fields: dict[str, Any], stamp: str) -> Entry:
    """An entry from the fields of PostgreSQL's own JSON log, or from the names the Ops Agent gives them."""

    def told(*names: str) -> str:
        return next((str(fields[name]) for name in names if fields.get(name) not in (None, "")), "")

    query_id = told("query_id")
    return Entry(
        stamp=told("timestamp") or stamp,
        session=told("session_id", "pid", "tid"),
        database=told("dbname", "database"),
        application=told("application_name"),
        message=told("message"),
        detail=told("detail"),
        statement=told("statement"),
        query_id=int(query_id) if query_id.lstrip("-").isdigit() else 0,
    )


def _join(batch: Batch, further: Batch) -> None:
    batch.calls += further.calls
    batch.plans += further.plans
    batch.spills += further.spills
