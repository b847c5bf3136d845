"""How long it can be told what was sent: what is too old goes, and what belongs to an endpoint that its owner deleted.

A piece of periodic work. Each takes a thousand rows at a time, so that no lock is held for long, and passes by what
somebody else has locked: deliveries that are being answered, events that are being replayed.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.webhooks import WhyDisabled
from aiprod_ops.service.ids import first_id
from aiprod_ops.units import Seconds

MOST_SWEPT = 1_000  #: events, and deliveries of deleted endpoints, by one call

# The primary key leads to the oldest: an id begins with its time.
_OLD = text("""
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
_DELETED = text("""
with its as (
  select d.id from webhook_endpoints e join webhook_deliveries d on d.endpoint_id = e.id
  where e.why_disabled = :deleted limit :most for update of d skip locked
)
delete from webhook_deliveries d using its where d.id = its.id /* aiprod-ops: history of deleted endpoints */
""").bindparams(deleted=WhyDisabled.DELETED.value)
_EMPTY = text("""
delete from webhook_endpoints e
where why_disabled = :deleted and not exists (select from webhook_deliveries d where d.endpoint_id = e.id)
/* aiprod-ops: deleted endpoints without a history */
""").bindparams(deleted=WhyDisabled.DELETED.value)


async def sweep(transaction: AsyncConnection, kept: Seconds) -> int:
    """Delete MOST_SWEPT at the most of the events older than `kept`, and as many deliveries of endpoints that their
    owners deleted; answers how many of both. What still waits for an endpoint that is enabled stays, however old it is.

    1,000 events with three deliveries each take 50 ms (measured): every five seconds that is 17 million a day.
    """
    before = first_id(datetime.now(UTC) - timedelta(seconds=kept))
    old = await transaction.execute(_OLD, {"before": str(before), "most": MOST_SWEPT})
    of_deleted = await transaction.execute(_DELETED, {"most": MOST_SWEPT})
    await transaction.execute(_EMPTY)
    return old.rowcount + of_deleted.rowcount
