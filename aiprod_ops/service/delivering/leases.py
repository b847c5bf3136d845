"""Which deliveries a worker takes: rows that are due are leased to it, endpoint after endpoint.

A walk goes from endpoint to endpoint along an index, and takes from each no more than it may have in flight: one with
10,000 deliveries costs no more than one with ten, and nobody waits behind it. The next walk goes on behind the last
one.

What an endpoint may have in flight are its oldest deliveries that are due. Those of them that are leased stay where
they are, so that a second worker finds no others; nothing has to be counted. (By id where many are due at the same
moment: a row that is leased may move in the index.) An endpoint that is ordered, or has a
rate, is a lane: one worker alone has it (`lanes`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from aiprod_ops.domain.webhooks import DISABLED, TEST, WhyDisabled
from aiprod_ops.service.delivering.allowance import Allowance
from aiprod_ops.units import Seconds

Connection = psycopg.AsyncConnection[Any]
_FIRST = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is leased, with all that is needed to send it. `attempts` are those of this round before it;
    `keys` of signatures, the newest first; `late` is how long it had been due, in seconds."""

    id: str
    event_id: str
    endpoint_id: str
    type: str
    payload: bytes
    attempts: int
    url: str
    keys: list[bytes]
    long_tail: bool
    ordered: bool
    in_flight: int
    per_second: int | None
    is_probe: bool
    late: float


# Rows are looked up one by one (`lateral`, `offset 0`), and never joined: the figures of a table that grows from
# nothing to a backlog within seconds are wrong, and a plan that reads all of it would look cheap.
_LEASED = """
, leased as (
  update webhook_deliveries d
  set lease_until = clock_timestamp() + %(lease)s * interval '1 second', leased_by = %(name)s
  where d.id = any (array (select id from locked))
  returning d.id, d.event_id, d.endpoint_id, d.attempts, d.due_at
)
select l.id::text, l.event_id::text, l.endpoint_id::text, v.type, v.payload, l.attempts, e.url,
       coalesce((select array_agg(s.secret order by s.created_at desc) from webhook_secrets s
                 where s.endpoint_id = e.id and (s.expires_at is null or s.expires_at > now())), '{}') as keys,
       e.long_tail, e.ordered, e.in_flight, e.per_second, e.state = 'disabled' and v.type = %(probe)s as is_probe,
       extract(epoch from clock_timestamp() - l.due_at)::float8 as late
from leased l cross join lateral (select * from webhook_events where id = l.event_id offset 0) v
cross join lateral (select * from webhook_endpoints where id = l.endpoint_id offset 0) e
"""
_FREE = "d.state = 'pending' and (d.lease_until is null or d.lease_until <= now())"
# A lane is told as a row without a delivery.
_WALK = """
with recursive walk as (
  (select endpoint_id from webhook_deliveries where state = 'pending' and endpoint_id > %(after)s
   order by endpoint_id limit 1)
  union all
  select (select d.endpoint_id from webhook_deliveries d where d.state = 'pending' and d.endpoint_id > walk.endpoint_id
          order by d.endpoint_id limit 1)
  from walk where walk.endpoint_id is not null
), picked as materialized (
  select first.id, e.id as endpoint_id, lane.is_lane
  from walk
  cross join lateral (select * from webhook_endpoints where id = walk.endpoint_id and state = 'enabled' offset 0) e
  cross join lateral (select e.ordered or e.per_second is not null as is_lane) lane
  cross join lateral (
    select d.id, d.lease_until from webhook_deliveries d
    where d.endpoint_id = e.id and d.state = 'pending' and d.due_at <= now() order by d.due_at, d.id
    limit coalesce((%(most)s::jsonb ->> e.id::text)::int,
                   case when lane.is_lane then 1 else least(e.in_flight, %(usual)s) end)
  ) first
  where first.lease_until is null or first.lease_until <= now()
  limit %(room)s
), locked as (
  select d.id from picked
  cross join lateral (select d.id from webhook_deliveries d where d.id = picked.id and <free> for update skip locked) d
  where not picked.is_lane
)
<leased>
union all
select null, null, endpoint_id::text, '', '', 0, '', '{}', false, false, 0, null, false, 0 from picked where is_lane
/* aiprod-ops: webhooks that are due */
""".replace("<free>", _FREE).replace("<leased>", _LEASED)
_PROBES = """
with locked as (
  select d.id from webhook_endpoints e join webhook_deliveries d on d.endpoint_id = e.id
  join webhook_events v on v.id = d.event_id
  where e.state = 'disabled' and d.due_at <= now() and <free>
    and (v.type = %(probe)s and e.why_disabled = %(failing)s or v.type = %(test)s)
  limit %(room)s for update of d skip locked
)
<leased> /* aiprod-ops: webhooks for disabled endpoints */
""".replace("<free>", _FREE).replace("<leased>", _LEASED)
# Whoever has a lane's endpoint locked looks, with a new snapshot, at what is there: see `of_lanes`.
_LANES = """
select id::text as endpoint_id, ordered, in_flight, per_second from webhook_endpoints
where id = any (%(ids)s::uuid[]) and state = 'enabled' order by id for no key update skip locked
/* aiprod-ops: lanes of webhooks */
"""
_HEADS = """
select d.id::text, d.endpoint_id::text, d.due_at <= now() as is_due, d.lease_until > now() as is_leased
from unnest(%(ids)s::uuid[], %(orders)s::bool[], %(most)s::int[]) lane (id, is_ordered, most), lateral (
  (select * from webhook_deliveries where endpoint_id = lane.id and state = 'pending' and lane.is_ordered
   order by created_at, id limit lane.most)
  union all
  (select * from webhook_deliveries where endpoint_id = lane.id and state = 'pending' and not lane.is_ordered
   order by due_at, id limit lane.most)
) d /* aiprod-ops: what is first in lanes */
"""
_TAKE = """
with locked as (
  select d.id from webhook_deliveries d where d.id = any (%(ids)s::uuid[]) and <free> for update skip locked
)
<leased> order by l.endpoint_id, array_position(%(ids)s::uuid[], l.id) /* aiprod-ops: lanes are taken */
""".replace("<free>", _FREE).replace("<leased>", _LEASED)
_NEXT = """
select extract(epoch from min(due_at) - clock_timestamp())::float8 from webhook_deliveries
where state = 'pending' and due_at > now() /* aiprod-ops: when the next webhook is due */
"""
_RENEW = """
update webhook_deliveries set lease_until = clock_timestamp() + %(lease)s * interval '1 second'
where id = any (%(ids)s::uuid[]) and leased_by = %(name)s and state = 'pending'
returning id::text /* aiprod-ops: who sends webhooks is alive */
"""
_GIVE_BACK = """
update webhook_deliveries set lease_until = null, leased_by = null
where id = any (%(ids)s::uuid[]) and leased_by = %(name)s and state = 'pending' /* aiprod-ops: webhooks for others */
"""


class Leases:
    """One worker's, on one connection in autocommit mode."""

    def __init__(self, connection: Connection, name: str, lease: Seconds, lane: int) -> None:
        self._connection, self._lane = connection, lane
        self._who = {"name": name, "lease": float(lease), "probe": DISABLED}
        self._after = _FIRST

    async def take(self, allowed: Allowance, held: Iterable[str]) -> tuple[list[Due], list[str]]:
        """So many deliveries at the most, and the endpoints that are lanes with something due, but those that this
        worker has."""
        most = {**allowed.most, **dict.fromkeys(held, 0)}
        room = allowed.room
        told = {**self._who, "usual": allowed.usual, "most": msgspec.json.encode(most).decode()}
        after, found = self._after, await self._rows(_WALK, {**told, "after": self._after, "room": room})
        if len(found) < room and after != _FIRST:
            # To the end, and not full: the other half of the round.
            found += await self._rows(_WALK, {**told, "after": _FIRST, "room": room - len(found)})
        self._after = max(each.endpoint_id for each in found) if len(found) >= room else _FIRST
        lanes = list(dict.fromkeys(each.endpoint_id for each in found if not each.url))
        return list({each.id: each for each in found if each.url}.values()), lanes

    async def of_lanes(self, endpoint_ids: Sequence[str], allowed: Allowance) -> list[Due]:
        """The first deliveries of lanes, each in its order; none of a lane that another worker has. What is taken waits
        in the worker's hand for its turn: no more than a second's, or than may be in flight."""
        async with self._connection.transaction():
            cursor = await self._connection.execute(_LANES, {"ids": list(endpoint_ids)})
            lanes = await cursor.fetchall()
            if not lanes:
                return []
            sizes = [
                allowed.of(endpoint_id, min(self._lane if ordered else in_flight, per_second or self._lane))
                for endpoint_id, ordered, in_flight, per_second in lanes
            ]
            given = {"ids": [each[0] for each in lanes], "orders": [each[1] for each in lanes], "most": sizes}
            heads = await (await self._connection.execute(_HEADS, given)).fetchall()
            wanted = taken([Head(*row) for row in heads])[: allowed.room]
            return await self._rows(_TAKE, {**self._who, "ids": wanted}) if wanted else []

    async def probes(self, room: int) -> list[Due]:
        """What is sent to endpoints that are disabled: whether they are back, and what their owner asked for."""
        return await self._rows(
            _PROBES, {**self._who, "room": room, "test": TEST, "failing": WhyDisabled.FAILING.value}
        )

    async def next_in(self) -> Seconds | None:
        """How long until the next delivery is due; None where none waits."""
        row = await (await self._connection.execute(_NEXT)).fetchone()
        return None if row is None or row[0] is None else Seconds(max(0.0, row[0]))

    async def renew(self, ids: Sequence[str]) -> set[str]:
        """Say that these are in hand. Answers which of them are, still: the others were taken over, or have ended."""
        cursor = await self._connection.execute(_RENEW, {**self._who, "ids": sorted(ids)})
        return {row[0] for row in await cursor.fetchall()}

    async def give_back(self, ids: Sequence[str]) -> None:
        """Let others send these at once."""
        await self._connection.execute(_GIVE_BACK, {**self._who, "ids": sorted(ids)})

    async def _rows(self, statement: str, given: Mapping[str, Any]) -> list[Due]:
        async with self._connection.cursor(row_factory=class_row(Due)) as cursor:
            await cursor.execute(statement.encode(), given)
            return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Head:
    """One of the first deliveries of a lane."""

    id: str
    endpoint_id: str
    is_due: bool
    is_leased: bool | None


def taken(heads: Sequence[Head]) -> list[str]:
    """What a worker takes of lanes' first deliveries, in their order: those before the first that is not due. Nothing
    of a lane of which anything is leased: somebody else is at it, or was until lately.

    >>> taken([Head("1", "a", True, None), Head("2", "a", False, None), Head("3", "a", True, None)])
    ['1']
    >>> taken([Head("1", "a", True, None), Head("2", "a", True, True), Head("3", "b", True, False)])
    ['3']
    """
    stopped = {each.endpoint_id for each in heads if each.is_leased}
    found = []
    for each in heads:
        if not each.is_due:
            stopped.add(each.endpoint_id)
        if each.endpoint_id not in stopped:
            found.append(each.id)
    return found
