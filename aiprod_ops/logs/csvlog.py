"""PostgreSQL's CSV log: one record an entry, of several lines where a quoted field holds them.

Source: PostgreSQL manual, "Using CSV-Format Log Output".
"""

import csv
import re

from aiprod_ops.logs.entries import Batch, Entry, Reading, Sessions
from aiprod_ops.logs.lines import Lines

_RECORD = re.compile(r'(?:[^"\n]++|"[^"]*+")*+\n')
_STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [A-Z+-][\w:]*"
#: In a quoted field quotes are doubled: no text of a user can look like this.
_BEGUN = re.compile(rf'{_STAMP},(?:"[^"\n]*"|),(?:"[^"\n]*"|),\d+,(?:"[^"\n]*"|),[0-9a-f]+\.[0-9a-f]+,\d+,"')
#: The server quotes every text; what has gone through another program may quote only what needs it, or everything.
_LOOKS = re.compile(rf'"?{_STAMP}"?,')
_TELLS = re.compile(r',"?(?:duration|statement|execute|temporary file)[: ]')
_APPLICATION, _QUERY_ID, _FEWEST = 22, 25, 23  # columns; PostgreSQL 12 and older end with the application
_LONGEST_FIELD = 2**30


class CsvLog:
    """Reads blocks of a CSV log."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._lines = Lines(reading)
        self._sessions = Sessions(reading)
        csv.field_size_limit(_LONGEST_FIELD)

    def read(self, block: bytes) -> Batch:
        """What the records say that this block ends."""
        text = self._lines.feed(block).decode("utf-8", "surrogateescape")
        batch = Batch()
        end = self._records(text, batch, is_last=False)
        self._lines.give_back(text[end:].encode("utf-8", "surrogateescape"))
        return batch

    def end(self) -> Batch:
        """What the last record says."""
        batch = Batch()
        self._records(self._lines.end().decode("utf-8", "surrogateescape"), batch, is_last=True)
        return batch

    def _records(self, text: str, batch: Batch, *, is_last: bool) -> int:
        """Read records; answers where the unfinished one begins."""
        position = 0
        while position < len(text):
            whole = _RECORD.match(text, position)
            if whole and self._take(whole[0], batch):
                position = whole.end()
                continue
            next_one = _BEGUN.search(text, position + 1, whole.end() if whole else len(text))
            if next_one is None and whole is None and not is_last:
                break
            end = next_one.start() if next_one else whole.end() if whole else len(text)
            self._reading.leave_out(text[position:end].encode("utf-8", "replace"))
            position = end
        return position

    def _take(self, record: str, batch: Batch) -> bool:
        """Whether this is an entry."""
        if not _LOOKS.match(record):
            return not record.strip("\0 \r\n")
        if _BEGUN.search(record, 1):  # a torn one, that runs into the next
            return False
        if not _TELLS.search(record) and record.count(",") >= _FEWEST - 1:
            self._reading.entries += 1
            return True
        fields = next(csv.reader([record.encode("utf-8", "replace").decode("utf-8", "replace").replace("\0", "")]))
        if len(fields) < _FEWEST or not fields[3].isdigit():
            return False
        query_id = fields[_QUERY_ID].strip() if len(fields) > _QUERY_ID else ""
        self._sessions.take(
            Entry(fields[0], fields[5], fields[2], fields[_APPLICATION], fields[13], fields[14], fields[19],
                  int(query_id) if query_id.lstrip("-").isdigit() else 0),
            batch,
        )  # fmt: skip
        return True
