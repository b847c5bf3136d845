"""Work that is done again and again, by one worker of all at a time: a row says when it is due, its lock who does it.

Whoever is killed meanwhile loses the lock with its connection, and the work is due as before: nothing is left to clear.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)

_KNOWN = text("insert into periodic_work (name) values (:name) on conflict do nothing")
_DUE = text("""
select 1 from periodic_work where name = :name and due_at <= clock_timestamp() for update skip locked
/* aiprod-ops: whether this work is due, and nobody does it */
""")
_DONE = text("""
update periodic_work set due_at = clock_timestamp() + make_interval(secs => :every), ended_at = clock_timestamp()
where name = :name /* aiprod-ops: when this work is due again */
""")


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of it: what to do, in a transaction, how often."""

    name: str
    every: Seconds
    do: Callable[[AsyncConnection], Awaitable[Callable[[], Awaitable[None]] | None]]  #: what to do after the commit


async def run_due(engine: AsyncEngine, works: Sequence[Work]) -> None:
    """Do what is due and nobody else is doing."""
    for work in works:
        async with engine.begin() as transaction:
            await transaction.execute(_KNOWN, {"name": work.name})
            if (await transaction.execute(_DUE, {"name": work.name})).first() is None:
                continue
            after = await work.do(transaction)
            await transaction.execute(_DONE, {"name": work.name, "every": float(work.every)})
        if after is not None:
            await after()
