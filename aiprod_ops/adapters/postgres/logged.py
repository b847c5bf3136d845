"""What the server's log knows of statements and their counters do not: the slow end of their calls, and plans."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from aiprod_ops.adapters.postgres.log import CHUNK, MOST_READ, LogFile
from aiprod_ops.domain.statements import Logged
from aiprod_ops.logs.digester import Digester, Wanted
from aiprod_ops.logs.formats import LogReader


def logged(files: Sequence[LogFile], database: str, query_ids: Collection[int], since: datetime) -> dict[int, Logged]:
    """Calls of these statements since a time, by query id; of the newest MOST_READ bytes of the log. `files` are newest
    first."""
    digester = Digester(Wanted(database=database, since=since))
    for file, start in reversed(list(_newest(files))):
        reader = LogReader(digester.reading, "jsonlog")
        for offset in range(start, file.size, CHUNK):
            digester.add(reader.read(file.read(offset, min(CHUNK, file.size - offset))))
        digester.add(reader.end())
    rows = digester.digest().rows
    return {
        row.query_id: Logged(row.calls, row.p95, row.plan, row.clients)
        for row in rows
        if row.is_servers and row.query_id in query_ids and (row.calls or row.plan)
    }


def _newest(files: Sequence[LogFile]) -> Iterator[tuple[LogFile, int]]:
    """Files, and where to begin in them, until they add up to MOST_READ."""
    left = int(MOST_READ)
    for file in files:
        if left <= 0:
            return
        yield file, max(0, file.size - left)
        left -= file.size
