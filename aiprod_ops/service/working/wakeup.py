"""A wake-up for who waits for jobs: PostgreSQL's NOTIFY, on a connection of its own. A lost one costs a look, no job.

Source: PostgreSQL manual, NOTIFY: delivered at commit, to who listens; nothing is kept for who does not.
"""

import asyncio
import logging

import psycopg

from aiprod_ops.service.working.claims import CHANNEL

log = logging.getLogger(__name__)
NAME = "aiprod-ops worker: wake-up"  #: of the session: so many are there, so many workers run
_RETRY_SECONDS = 1


async def listen(dsn: str, wake: asyncio.Event) -> None:
    """Set `wake` at each notification, until cancelled; a broken connection is made anew."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, connect_timeout=5, application_name=NAME
            ) as connection:
                await connection.execute(f"listen {CHANNEL}")
                wake.set()  # what was told while nobody listened
                async for _ in connection.notifies():
                    wake.set()
        except psycopg.OperationalError as error:
            log.warning("no wake-ups, only looks: %s", str(error).partition("\n")[0])
        await asyncio.sleep(_RETRY_SECONDS)
