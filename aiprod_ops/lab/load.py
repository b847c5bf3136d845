"""Load tables of made-up data by COPY: one process, one connection, one table after the other.

Runs as `python -P -m aiprod_ops.lab.load DSN JOBS UNTIL TABLE…`, so that two can run side by side.
"""

import sys
from collections.abc import Iterator
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection

from aiprod_ops.lab import data


class _Pipe:
    """A file that COPY reads: what the generator makes, in pieces of the size that is asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def load(session: connection, table: str, scale: data.Scale) -> None:
    """Fill one table, in one transaction.

    Emptied in the same transaction, its rows can be written frozen, and without WAL where the server's wal_level is
    minimal. Source: PostgreSQL manual, COPY, FREEZE; "Populating a Database".
    """
    name = sql.Identifier(table)
    with session, session.cursor() as cursor:
        cursor.execute(sql.SQL("TRUNCATE {}").format(name))
        cursor.copy_expert(
            sql.SQL("COPY {} FROM STDIN WITH (FREEZE)").format(name), _Pipe(data.lines(table, scale)), size=1 << 20
        )


def main(arguments: list[str]) -> None:
    """Load the tables named."""
    dsn, jobs, until, *tables = arguments
    scale = data.Scale(int(jobs), datetime.fromisoformat(until))
    session = psycopg2.connect(dsn)
    for table in tables:
        load(session, table, scale)
    session.close()


if __name__ == "__main__":
    main(sys.argv[1:])
