"""What was sent to an endpoint: when, with which answer; and sending it again.

A replay is another round of the same delivery: the receiver knows it by the same `webhook-id`, and may leave out what
it has had.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import RowMapping, Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import OwnedRoute, TheService, Transaction, WebhooksCaller
from aiprod_ops.service.ids import first_id, uuid7
from aiprod_ops.service.operations.views import Page
from aiprod_ops.service.operations.webhook_views import (
    AnsweredAttemptView,
    AttemptView,
    DeliveryState,
    DeliveryView,
    EventName,
    FailedSince,
    Moment,
    ReplayedView,
    SentDeliveryView,
)
from aiprod_ops.service.operations.webhooks import owned, require_enabled
from aiprod_ops.service.tables import webhook_deliveries, webhook_events
from aiprod_ops.service.webhooks import CHANNEL, emit_test

router = APIRouter(prefix="/webhooks/{webhook_id}", tags=["webhooks"], route_class=OwnedRoute)
MOST_REPLAYED = 10_000  #: by one request: longer ones would hold their rows for too long
_LISTED, _TOLD = 20, 1_000  #: attempts of each delivery, the last ones: in a list, and of one

_ATTEMPTS = text("""
select last.* from unnest(cast(:ids as uuid[])) as d(id), lateral (
  select delivery_id::text, number, began_at, milliseconds, status, error,
         case when :answers then response_body end as response_body
  from webhook_attempts where delivery_id = d.id order by number desc limit :most) as last
order by last.delivery_id, last.number /* aiprod-ops: the last attempts of deliveries */
""")
# Both lock the events, so that they are not deleted as too old meanwhile (`webhook_history`).
_REPLAY = text("""
with replayed as (
  insert into webhook_deliveries as d (id, event_id, endpoint_id)
  select cast(:id as uuid), v.id, cast(:endpoint_id as uuid)
  from webhook_events v where v.id = cast(:event_id as uuid) and v.user_id = cast(:user_id as uuid)
  for key share
  on conflict (event_id, endpoint_id) do update
  set state = 'pending', attempts = case when d.state = 'pending' then d.attempts else 0 end,
      due_at = now(), ended_at = null, lease_until = null, leased_by = null
  where d.state <> 'pending' or d.lease_until is null or d.lease_until <= now()
  returning d.id
)
select pg_notify(:channel, '') from replayed /* aiprod-ops: a delivery is due again */
""").bindparams(channel=CHANNEL)
# No two are due at the same moment: their order is that of the index, and workers have nothing to sort.
_REPLAY_FAILED = text("""
with chosen as (
  select d.id from webhook_deliveries d join webhook_events v on v.id = d.event_id
  where d.endpoint_id = cast(:endpoint_id as uuid) and d.id >= cast(:oldest as uuid) and d.state = 'failed'
    and (cast(:type as text) is null or v.type = cast(:type as text))
  order by d.id limit :most for update of d skip locked for key share of v skip locked
), replayed as (
  update webhook_deliveries d
  set state = 'pending', attempts = 0, due_at = now() + place * interval '1 microsecond', ended_at = null,
      lease_until = null, leased_by = null
  from (select id, row_number() over (order by id) as place from chosen) its where d.id = its.id
  returning d.id
)
select count(*) as replayed, (select pg_notify(:channel, '') where exists (select from replayed)) as told
from replayed /* aiprod-ops: failed deliveries are due again */
""").bindparams(channel=CHANNEL)


class DeliveriesPage(PageRequest):
    """Which deliveries, and which part of their list."""

    state: DeliveryState | None = Field(None, description="Only deliveries in this state.")
    event: EventName | None = Field(None, description="Only deliveries of this type of event.")
    event_id: Id | None = Field(None, description="Only the delivery of this event: its `webhook-id`.")
    since: Moment | None = Field(None, description="Only deliveries of events since then.")


@router.get("/deliveries")
async def list_deliveries(
    webhook_id: Id,
    page: Annotated[DeliveriesPage, Query()],
    caller: WebhooksCaller,
    transaction: Transaction,
    service: TheService,
) -> Page[DeliveryView]:
    """What an endpoint was and will be sent, newest event first, each with its last attempts."""
    await owned(transaction, caller, webhook_id)
    query = _deliveries(webhook_id)
    if page.state is not None:
        query = query.where(webhook_deliveries.c.state == page.state)
    if page.event is not None:
        query = query.where(webhook_events.c.type == page.event)
    if page.event_id is not None:
        query = query.where(webhook_deliveries.c.event_id == page.event_id)
    oldest = None if page.since is None else str(first_id(page.since))
    if oldest is not None:
        query = query.where(webhook_deliveries.c.id >= oldest)
    filters = {"webhook": webhook_id, "state": page.state, "event": page.event, "event_id": page.event_id,
               "oldest": oldest}  # fmt: skip
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "deliveries", filters)
    rows, cursor = await listing.part(transaction, query, webhook_deliveries.c.id, page)
    return Page(items=await _with_attempts(transaction, rows), next_cursor=cursor)


@router.get("/deliveries/{delivery_id}")
async def get_delivery(
    webhook_id: Id, delivery_id: Id, caller: WebhooksCaller, transaction: Transaction
) -> SentDeliveryView:
    """Exactly what was sent, when, and what was answered."""
    await owned(transaction, caller, webhook_id)
    query = _deliveries(webhook_id).add_columns(webhook_events.c.payload)
    query = query.where(webhook_deliveries.c.id == delivery_id)
    row = (await transaction.execute(query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "The webhook has no delivery with this id.")
    attempts = await _attempts(transaction, [row["id"]], _TOLD, answers=True)
    answered = [AnsweredAttemptView(**{**each, "response_body": _text(each["response_body"])}) for each in attempts]
    return SentDeliveryView(**{**_shown(row), "payload": _text(row["payload"]), "attempts": answered})


@router.post("/replay/{event_id}", status_code=202)
async def replay_event(webhook_id: Id, event_id: Id, caller: WebhooksCaller, transaction: Transaction) -> DeliveryView:
    """Send an event again, also one that was delivered, or that is older than the endpoint. Its `webhook-id` stays."""
    require_enabled(await owned(transaction, caller, webhook_id))
    values = {"id": str(uuid7()), "endpoint_id": webhook_id, "event_id": event_id, "user_id": caller.user_id}
    await transaction.execute(_REPLAY, values)
    return await _delivery_of(transaction, webhook_id, event_id)


@router.post("/replay", status_code=202)
async def replay_failed(
    webhook_id: Id, which: FailedSince, caller: WebhooksCaller, transaction: Transaction
) -> ReplayedView:
    """Send again what has failed since a time, oldest event first: 10,000 at the most."""
    require_enabled(await owned(transaction, caller, webhook_id))
    values = {
        "endpoint_id": webhook_id,
        "oldest": str(first_id(which.since)),
        "type": which.event,
        "most": MOST_REPLAYED,
    }
    count = (await transaction.execute(_REPLAY_FAILED, values)).one().replayed
    return ReplayedView(replayed=count, more=count == MOST_REPLAYED)


@router.post("/test", status_code=202)
async def test_webhook(webhook_id: Id, caller: WebhooksCaller, transaction: Transaction) -> DeliveryView:
    """Send an `endpoint.test` event to an endpoint, whatever it asks for, also to a disabled one. One that was disabled
    because it failed is enabled when it takes it."""
    await owned(transaction, caller, webhook_id)
    event_id = await emit_test(transaction, caller.user_id, webhook_id)
    return await _delivery_of(transaction, webhook_id, str(event_id))


def _deliveries(webhook_id: str) -> Select[Any]:
    query = select(webhook_deliveries, webhook_events.c.type)
    query = query.join(webhook_events, webhook_events.c.id == webhook_deliveries.c.event_id)
    return query.where(webhook_deliveries.c.endpoint_id == webhook_id)


async def _delivery_of(transaction: AsyncConnection, webhook_id: str, event_id: str) -> DeliveryView:
    query = _deliveries(webhook_id).where(webhook_deliveries.c.event_id == event_id)
    rows = (await transaction.execute(query)).mappings().all()
    if not rows:
        raise Problem("NOT_FOUND", "You have no event with this id.")
    return (await _with_attempts(transaction, rows))[0]


async def _with_attempts(transaction: AsyncConnection, rows: Sequence[RowMapping]) -> list[DeliveryView]:
    found = await _attempts(transaction, [row["id"] for row in rows], _LISTED, answers=False)
    attempts: dict[str, list[AttemptView]] = {row["id"]: [] for row in rows}
    for each in found:
        attempts[each["delivery_id"]].append(AttemptView(**each))
    return [DeliveryView(**{**_shown(row), "attempts": attempts[row["id"]]}) for row in rows]


async def _attempts(
    transaction: AsyncConnection, ids: Sequence[str], most: int, *, answers: bool
) -> Sequence[RowMapping]:
    values = {"ids": list(ids), "most": most, "answers": answers}
    return (await transaction.execute(_ATTEMPTS, values)).mappings().all()


def _shown(row: RowMapping) -> dict[str, Any]:
    return {**row, "event": row["type"], "due_at": row["due_at"] if row["state"] == "pending" else None}


def _text(content: Any) -> str | None:
    return None if content is None else bytes(content).decode("utf-8", "replace")
