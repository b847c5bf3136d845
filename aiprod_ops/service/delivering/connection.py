"""Connections to PostgreSQL that are made anew when they break, and wake-ups."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import exc

from aiprod_ops.service.delivering.leases import Connection
from aiprod_ops.service.webhooks import CHANNEL
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)
#: A connection that broke, a server that ends or has become a standby, two that waited for each other.
BROKEN = (
    psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction,
    exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError,  # the same, of the engine
)  # fmt: skip
_FIRST_PAUSE, _LONGEST_PAUSE = Seconds(0.1), Seconds(2)
#: Every statement looks up rows by an index: see `leases`. A worker that is stopped in the midst must not keep rows
#: locked.
_OPTIONS = "-c enable_seqscan=off -c jit=off -c statement_timeout=10s -c idle_in_transaction_session_timeout=5s"


async def connect(dsn: str, purpose: str, *, durable: bool = True) -> Connection:
    """A session that may write. Statements are not prepared: a generic plan is the wrong one for a list of ids. What is
    written without being `durable` may be gone after a crash of the server: of a lease that costs a delivery sent
    twice."""
    made: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
        dsn,
        autocommit=True,
        prepare_threshold=None,
        application_name=f"aiprod-ops webhooks: {purpose}",
        options=_OPTIONS + ("" if durable else " -c synchronous_commit=off"),
        connect_timeout=3,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
        tcp_user_timeout=8000,
    )
    return made


async def kept(
    dsn: str,
    purpose: str,
    use: Callable[[Connection], Awaitable[None]],
    broke: Callable[[], None] = lambda: None,
    *,
    durable: bool = True,
) -> None:
    """Use a connection until `use` returns; with a new one, after a pause that grows, whenever it breaks."""
    pause = _FIRST_PAUSE
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with await connect(dsn, purpose, durable=durable) as connection:
                await use(connection)
                return
        except BROKEN as error:
            broke()
            log.warning("webhooks: %s lost its connection, and makes another: %s", purpose, _line(error))
            if clock() - began > 5 * _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = Seconds(min(2 * pause, _LONGEST_PAUSE))


async def wake_at_notices(dsn: str, wake: asyncio.Event) -> None:
    """Set `wake` at each notice, until cancelled. A notice that is lost costs a look. Source: PostgreSQL, NOTIFY."""

    async def listen(connection: Connection) -> None:
        await connection.execute(f"listen {CHANNEL}")
        wake.set()  # of what was told while nobody listened
        async for _ in connection.notifies():
            wake.set()
        raise psycopg.OperationalError("the server ended the session")

    await kept(dsn, "wake-up", listen)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
