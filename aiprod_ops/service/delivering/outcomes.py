"""What came of attempts, written for many at once: each attempt as a row, each delivery as what it is now."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.domain.exchanges import Exchange
from aiprod_ops.domain.webhooks import Answer, State, retry_after
from aiprod_ops.service.delivering.leases import Connection, Due
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `pause` is until the next one, where the state is pending; `ended` is when it had ended,
    by this process's monotonic clock: the moment is told by the database's, which all workers share."""

    due: Due
    exchange: Exchange
    state: State
    pause: Seconds
    ended: float

    @property
    def answer(self) -> Answer:
        return Answer(self.exchange.status, self.exchange.retry_after)

    @property
    def asked_pause(self) -> Seconds:
        """What the endpoint asked for, when it refused."""
        return Seconds(0) if self.answer.is_delivered else retry_after(self.exchange.retry_after, datetime.now(UTC))


# Locked first, and in one order: what follows sees the attempts that others have written, and nobody waits in a circle.
_LOCK = """
select id::text from webhook_deliveries where id = any (%(ids)s::uuid[]) order by id for update
/* aiprod-ops: webhooks that were answered */
"""
# An attempt was made, whoever has the delivery by now. Delivered is delivered; any other outcome counts only of whoever
# has it: another worker may be sending it.
_WRITE = """
with told as (
  select * from unnest(%(ids)s::uuid[], %(states)s::text[], %(pauses)s::float8[], %(ages)s::float8[],
                       %(milliseconds)s::int[], %(statuses)s::smallint[], %(errors)s::text[], %(bodies)s::bytea[])
    as told (id, state, pause, age, milliseconds, status, error, body)
), changed as (
  update webhook_deliveries d
  set state = told.state, attempts = d.attempts + 1, lease_until = null, leased_by = null,
      due_at = case told.state when 'pending' then clock_timestamp() + told.pause * interval '1 second'
                               else d.due_at end,
      ended_at = case told.state when 'pending' then null else clock_timestamp() end
  from told
  where d.id = told.id and (d.state = 'pending' and d.leased_by = %(name)s
                            or told.state = 'delivered' and d.state in ('pending', 'cancelled'))
  returning d.id
), attempts as (
  insert into webhook_attempts (delivery_id, number, began_at, milliseconds, status, error, response_body)
  select told.id, 1 + coalesce((select max(number) from webhook_attempts a where a.delivery_id = told.id), 0),
         clock_timestamp() - (told.age + told.milliseconds / 1000.0) * interval '1 second', told.milliseconds,
         told.status, told.error, told.body
  from told where exists (select from webhook_deliveries d where d.id = told.id)
)
select id::text from changed /* aiprod-ops: what came of webhooks */
"""
# An endpoint that is well is not written to.
_COUNT = """
update webhook_endpoints e
set failures_in_a_row = case when told.delivered then 0 else e.failures_in_a_row end + told.failed, updated_at = now()
from unnest(%(ids)s::uuid[], %(delivered)s::bool[], %(failed)s::int[]) told (id, delivered, failed)
where e.id = told.id and e.state = 'enabled'
  and (told.failed > 0 or told.delivered and e.failures_in_a_row > 0)
returning e.id::text, e.failures_in_a_row /* aiprod-ops: failures of endpoints in a row */
"""


async def write(connection: Connection, name: str, outcomes: Sequence[Outcome], now: float) -> dict[str, int]:
    """Write what came of these, all or nothing. Answers of which endpoints so many deliveries have failed in a row,
    where that has changed."""
    given: dict[str, Any] = {
        "ids": [each.due.id for each in outcomes],
        "states": [each.state.value for each in outcomes],
        "pauses": [float(each.pause) for each in outcomes],
        "ages": [now - each.ended for each in outcomes],
        "milliseconds": [round(each.exchange.milliseconds) for each in outcomes],
        "statuses": [each.exchange.status for each in outcomes],
        "errors": [each.exchange.error and each.exchange.error.value for each in outcomes],
        "bodies": [each.exchange.body or None for each in outcomes],
        "name": name,
    }
    async with connection.pipeline(), connection.transaction():
        await connection.execute(_LOCK, given)
        cursor = await connection.execute(_WRITE, given)
        changed = {row[0] for row in await cursor.fetchall()}
        if lost := len(outcomes) - len(changed):
            log.warning("%d deliveries were another's, or had ended, when they were answered", lost)
        counted = runs(each for each in outcomes if each.due.id in changed)
        if not counted:
            return {}
        told = {
            "ids": sorted(counted),
            "delivered": [counted[each].has_delivered for each in sorted(counted)],
            "failed": [counted[each].failed_since for each in sorted(counted)],
        }
        return dict(await (await connection.execute(_COUNT, told)).fetchall())


@dataclass(slots=True)
class Run:
    """Of an endpoint: whether anything was delivered, and how many deliveries have failed since."""

    has_delivered: bool = False
    failed_since: int = 0


def runs(outcomes: Iterable[Outcome]) -> dict[str, Run]:
    """By endpoint, of deliveries that have ended, in the order in which they did. Probes are left out."""
    found: dict[str, Run] = {}
    for each in sorted(outcomes, key=lambda one: one.ended):
        if each.state is State.PENDING or each.due.is_probe:
            continue
        run = found.setdefault(each.due.endpoint_id, Run())
        if each.state is State.DELIVERED:
            run.has_delivered, run.failed_since = True, 0
        else:
            run.failed_since += 1
    return found
