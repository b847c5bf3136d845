"""Load tables of made-up data by COPY: one process, one connection, one table after the other.

Runs as `python -P -m aiprod_ops.lab.load DSN JOBS UNTIL TABLE…`, so that two can run side by side.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection, cursor

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


CONSTRAINTS = """
    SELECT quote_ident(conname), pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = %(table)s::regclass AND contype IN ('p', 'u', 'c')
    ORDER BY contype DESC, conname
"""


def load(session: connection, table: str, scale: data.Scale) -> None:
    """Fill one table, in one transaction; its own constraints are dropped meanwhile, and checked once at the end.

    Emptied in the same transaction, its rows can be written frozen, and without WAL where the server's wal_level is
    minimal. Source: PostgreSQL manual, COPY, FREEZE; "Populating a Database".
    """
    name = sql.Identifier(table)
    copy = sql.SQL("COPY {} FROM STDIN WITH (FORMAT binary, FREEZE)").format(name)
    with session, session.cursor() as cursor:
        cursor.execute(CONSTRAINTS, {"table": table})
        constraints = cursor.fetchall()
        _alter(cursor, name, [f"DROP CONSTRAINT {constraint}" for constraint, _ in constraints])
        cursor.execute(sql.SQL("TRUNCATE {}").format(name))
        cursor.copy_expert(copy, _Pipe(data.pieces(table, scale)), size=1 << 20)  # type: ignore[arg-type]  # it only reads
        _alter(cursor, name, [f"ADD CONSTRAINT {constraint} {definition}" for constraint, definition in constraints])


def _alter(cursor: cursor, table: sql.Identifier, parts: list[str]) -> None:
    # The server wrote these parts itself, quoted.
    cursor.execute(sql.SQL("ALTER TABLE {} ").format(table) + sql.SQL(", ").join(map(sql.SQL, parts)))


def main(arguments: list[str]) -> None:
    """Load the tables named."""
    dsn, jobs, until, *tables = arguments
    scale = data.Scale(int(jobs), datetime.fromisoformat(until))
    try:
        with closing(psycopg2.connect(dsn)) as session:
            for table in tables:
                load(session, table, scale)
    except psycopg2.Error as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
