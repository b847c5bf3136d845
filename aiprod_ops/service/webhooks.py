"""Events, in the transaction of the change that they tell: both are there when it is committed, or neither (an outbox).

One statement writes the event, a delivery for each endpoint of its user that asks for it, and wakes up who sends. Where
nobody asks for it nothing is written. An endpoint that is disabled because it failed gets its delivery as failed: it
holds nobody up, and can be replayed afterwards.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from aiprod_ops.domain.webhooks import DISABLED, EVENTS, LARGEST_PAYLOAD, TEST, WhyDisabled, probe_after
from aiprod_ops.service.ids import uuid7
from aiprod_ops.units import Seconds

CHANNEL = "aiprod_webhooks"  #: of NOTIFY: there are deliveries to be sent
Transaction = AsyncConnection | AsyncSession

# The endpoints are locked as their foreign keys will be: one that is being removed is waited for, and then left out,
# where it would otherwise break the change that the event tells. A delivery's id begins with the event's time:
# in the order of their ids, deliveries are in that of their events. So they are by `created_at`, which is not the
# transaction's beginning: of two that wait for each other, the later one may have begun first.
_EMIT = text("""
with wanting as (
  select id, is_named, state = 'enabled' or is_named as is_sent
  from webhook_endpoints cross join lateral (select coalesce(id = cast(:to as uuid), false) as is_named) named
  where user_id = cast(:user_id as uuid)
    and (is_named
         or not :alone
            and (state = 'enabled' or why_disabled = :failing)
            and (events = '{}' or cast(:type as text) = any (events)))
  for key share of webhook_endpoints
), event as (
  insert into webhook_events (id, user_id, type, payload, created_at)
  select cast(:id as uuid), cast(:user_id as uuid), cast(:type as text), cast(:payload as bytea), clock_timestamp()
  where exists (select from wanting)
  returning id, created_at
), deliveries as (
  insert into webhook_deliveries (id, event_id, endpoint_id, created_at, state, due_at, ended_at)
  select overlay(gen_random_uuid()::text placing left(event.id::text, 18) from 1)::uuid, event.id, wanting.id,
         event.created_at,
         case when is_sent then 'pending' else 'failed' end,
         clock_timestamp() + case when is_named then cast(:due_in as float8) else 0 end * interval '1 second',
         case when not is_sent then event.created_at end
  from event, wanting
  returning state
)
select event.id::text as id,
       (select pg_notify(:channel, '') where exists (select from deliveries where state = 'pending')) as told
from event /* aiprod-ops: an event of webhooks */
""").bindparams(channel=CHANNEL, failing=WhyDisabled.FAILING.value)
_DISABLE = text("""
update webhook_endpoints
set state = 'disabled', why_disabled = :why, disabled_at = now(), updated_at = now()
where id = cast(:endpoint_id as uuid) and state = 'enabled'
returning user_id::text as user_id, url, failures_in_a_row, disabled_at /* aiprod-ops: an endpoint is disabled */
""")
# What somebody has in hand is his: he hears of it himself. Tests are sent whatever the endpoint's state.
_GIVE_UP = text("""
update webhook_deliveries set state = 'failed', ended_at = now(), lease_until = null, leased_by = null
where id in (
  select d.id from webhook_deliveries d join webhook_events v on v.id = d.event_id
  where d.endpoint_id = cast(:endpoint_id as uuid) and d.state = 'pending' and v.type <> :test
    and (d.lease_until is null or d.lease_until <= now())
  for update of d skip locked)
/* aiprod-ops: what waited for an endpoint that is gone */
""").bindparams(test=TEST)
_ENABLE = text("""
with enabled as (
  update webhook_endpoints
  set state = 'enabled', why_disabled = null, disabled_at = null, failures_in_a_row = 0, updated_at = now()
  where id = cast(:endpoint_id as uuid) and state = 'disabled' and why_disabled <> :deleted
  returning id
), probes as (
  update webhook_deliveries d set state = 'cancelled', ended_at = now(), lease_until = null, leased_by = null
  from webhook_events v
  where d.endpoint_id in (select id from enabled) and d.state = 'pending' and v.id = d.event_id and v.type = :probe
)
select pg_notify(:channel, '') from enabled /* aiprod-ops: an endpoint is enabled */
""").bindparams(channel=CHANNEL, probe=DISABLED, deleted=WhyDisabled.DELETED.value)
_DELETE = text("""
with deleted as (
  update webhook_endpoints
  set state = 'disabled', why_disabled = :deleted, disabled_at = now(), updated_at = now()
  where id = cast(:endpoint_id as uuid)
  returning id
)
delete from webhook_secrets using deleted where endpoint_id = deleted.id /* aiprod-ops: an endpoint is deleted */
""").bindparams(deleted=WhyDisabled.DELETED.value)


async def emit_webhook_event(
    transaction: Transaction, user_id: str, event: str, data: BaseModel | Mapping[str, Any]
) -> str | None:
    """Tell a user's endpoints what happened, when this transaction is committed. Returns the event's id, which
    receivers get as `webhook-id`; None where no endpoint asks for it. Raises ValueError for an event that is not in
    EVENTS, or one of those about endpoints, which this library alone tells; and for more than LARGEST_PAYLOAD.
    """
    if event in (TEST, DISABLED):
        raise ValueError(f"{event!r} is told by what happens to an endpoint, not by an application")
    return await _emit(transaction, user_id, event, data)


async def emit_test(transaction: Transaction, user_id: str, endpoint_id: str) -> str | None:
    """Send one endpoint an event that tells nothing, whatever its state: whoever sends lets it through. None where the
    user has no such endpoint."""
    return await _emit(transaction, user_id, TEST, {"endpoint_id": endpoint_id}, to=endpoint_id, alone=True)


async def disable(transaction: Transaction, endpoint_id: str, why: WhyDisabled) -> bool:
    """Send an endpoint nothing any more, and tell its owner's others. One that failed is told as well, as its probe:
    whoever sends lets this delivery through, and calls `enable` when it was taken. What waits for one that is gone has
    failed, and can be sent again should it come back. False where it was disabled already.
    """
    row = (await transaction.execute(_DISABLE, {"endpoint_id": endpoint_id, "why": why.value})).mappings().one_or_none()
    if row is None:
        return False
    data = {"endpoint_id": endpoint_id, "why": why.value} | {name: row[name] for name in row if name != "user_id"}
    if why is WhyDisabled.FAILING:
        await _emit(transaction, row["user_id"], DISABLED, data, to=endpoint_id, due_in=probe_after(0))
    elif why is WhyDisabled.GONE:
        await transaction.execute(_GIVE_UP, {"endpoint_id": endpoint_id})
        await _emit(transaction, row["user_id"], DISABLED, data)
    return True


async def delete(transaction: Transaction, endpoint_id: str) -> None:
    """Send an endpoint nothing any more, and forget its secrets. Its history may be too long for one transaction:
    `webhook_history` deletes it, then the endpoint."""
    await transaction.execute(_DELETE, {"endpoint_id": endpoint_id})


async def enable(transaction: Transaction, endpoint_id: str) -> bool:
    """Send an endpoint what waits for it, and what comes. False where it is enabled."""
    return (await transaction.execute(_ENABLE, {"endpoint_id": endpoint_id})).one_or_none() is not None


def payload(event: str, data: BaseModel | Mapping[str, Any], at: datetime) -> bytes:
    """The bytes that are stored, signed and sent. Source: Standard Webhooks, "Payload structure"."""
    if event not in EVENTS:
        raise ValueError(f"{event!r} is not an event, expected one of: {', '.join(EVENTS)}")
    told = msgspec.Raw(data.model_dump_json().encode()) if isinstance(data, BaseModel) else data
    made = msgspec.json.encode({"type": event, "timestamp": at, "data": told})
    if len(made) > LARGEST_PAYLOAD:
        raise ValueError(f"the event {event} has {len(made)} bytes, expected {LARGEST_PAYLOAD} at the most: tell less")
    return made


async def _emit(
    transaction: Transaction,
    user_id: str,
    event: str,
    data: BaseModel | Mapping[str, Any],
    *,
    to: str | None = None,
    alone: bool = False,
    due_in: Seconds = Seconds(0),
) -> str | None:
    values = {"to": to, "alone": alone, "due_in": due_in, "id": str(uuid7()), "user_id": user_id, "type": event}
    row = {**values, "payload": payload(event, data, datetime.now(UTC))}
    found = (await transaction.execute(_EMIT, row)).one_or_none()
    return None if found is None else str(found.id)
