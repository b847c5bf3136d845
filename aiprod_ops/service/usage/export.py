"""The usage ledger for billing, as CSV or JSON lines: in pieces, so that memory does not grow with the month."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.tiers import month_after

COLUMNS = ("id", "user_id", "job_id", "preset", "seconds", "cost_units", "moment")
ROWS_IN_A_PIECE = 1_000

_ENTRIES = text("""
select id, cast(user_id as text), cast(job_id as text), preset, seconds, cost_units, moment from usage
where moment >= :since and moment < :until and (cast(:user_id as uuid) is null or user_id = :user_id)
order by moment, id /* aiprod-ops: the usage ledger for billing */
""")


async def as_csv(connection: AsyncConnection, month: date, user_id: str | None = None) -> AsyncIterator[bytes]:
    """Entries of a UTC month, oldest first, with a line of names; of all users or of one. Source: RFC 4180."""
    yield _csv([COLUMNS])
    async for piece in _pieces(connection, month, user_id, _csv):
        yield piece


async def as_json_lines(connection: AsyncConnection, month: date, user_id: str | None = None) -> AsyncIterator[bytes]:
    """The same, an object a line."""
    async for piece in _pieces(connection, month, user_id, _json_lines):
        yield piece


async def _pieces(
    connection: AsyncConnection, month: date, user_id: str | None, write: Callable[[Sequence[Sequence[Any]]], bytes]
) -> AsyncIterator[bytes]:
    bounds = [datetime.combine(day, datetime.min.time(), UTC) for day in (month, month_after(month))]
    values = {"since": bounds[0], "until": bounds[1], "user_id": user_id}
    found = await connection.stream(_ENTRIES, values)
    try:
        async for rows in found.partitions(ROWS_IN_A_PIECE):
            yield write([_plain(row) for row in rows])
    finally:
        await found.close()


def _plain(row: Row[Any]) -> tuple[Any, ...]:
    return (*row[:-1], row[-1].astimezone(UTC).isoformat(timespec="microseconds"))


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text_of = io.StringIO()
    csv.writer(text_of).writerows(rows)
    return text_of.getvalue().encode()


def _json_lines(rows: Sequence[Sequence[Any]]) -> bytes:
    return b"".join(msgspec.json.encode(dict(zip(COLUMNS, row, strict=True))) + b"\n" for row in rows)
