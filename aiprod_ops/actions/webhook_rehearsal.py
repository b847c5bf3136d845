"""Failed deliveries in a lab, and somebody who marks as sent what waits, for drills.

A worker that runs beside may take one first: it looks up a name that leads nowhere (RFC 2606), and what came of that
changes nothing: the delivery is marked as sent all the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from aiprod_ops.engine.runbook import Lab
from aiprod_ops.ports import Database
from aiprod_ops.service.ids import uuid7

HOST = "rehearsal.aiprod-ops.example"
ENDPOINTS, EACH = 2, 6  #: two endpoints with so many failed deliveries each
_TICK_S, _PATIENCE_S = 0.05, 30.0

_ENDPOINT = """
insert into webhook_endpoints (id, user_id, url, events)
select %(id)s, (select id from users order by id limit 1), 'https://' || %(host)s || '/' || %(number)s,
       array[]::text[]
"""
_FAILED = """
with event as (
  insert into webhook_events (id, user_id, type, payload)
  select %(event)s, (select id from users order by id limit 1), 'job.completed', '\\x7b7d'
  returning id),
delivery as (
  insert into webhook_deliveries (id, event_id, endpoint_id, state, attempts, ended_at)
  select %(delivery)s, id, %(endpoint)s, 'failed', 5, now() from event
  returning id)
insert into webhook_attempts (delivery_id, number, began_at, milliseconds, status)
select id, number, now() - interval '1 minute' + number * interval '1 second', 3, 503
from delivery, generate_series(1, 5) number
"""
#: What a pump does with an answer of 200, without sending anything.
_SEND = """
with waiting as (
  select id from webhook_deliveries where endpoint_id = any(%(endpoints)s::uuid[]) and state = 'pending'
  for update skip locked),
sent as (
  update webhook_deliveries d set state = 'delivered', attempts = attempts + 1, ended_at = clock_timestamp(),
                                  lease_until = null, leased_by = null
  from waiting where d.id = waiting.id
  returning d.id)
insert into webhook_attempts (delivery_id, number, began_at, milliseconds, status)
select id, 1 + (select max(number) from webhook_attempts where delivery_id = sent.id), clock_timestamp(), 3, 200
from sent
on conflict do nothing  -- a worker's attempt, that it wrote meanwhile
returning delivery_id
"""
_REMOVE = """
with gone as (delete from webhook_endpoints where id = any(%(endpoints)s::uuid[]))
delete from webhook_events where id = any(%(events)s::uuid[])
"""
_FLUSH = "select pg_stat_force_next_flush()"  #: whoever compares what was written sees it now, and not seconds later


@contextmanager
def failed_deliveries(lab: Lab, endpoints: int = ENDPOINTS, each: int = EACH) -> Iterator[None]:
    """So many endpoints with so many failed deliveries each, which are delivered as soon as they are due again; all of
    it is removed at the end."""
    ids = [str(uuid7()) for _ in range(endpoints)]
    events = [str(uuid7()) for _ in range(endpoints * each)]
    ready, over = Event(), Event()
    sender = Thread(target=_send, args=(lab, ids, ready, over), name="sender", daemon=True)
    with lab.connect("aiprod_app") as application:
        sender.start()
        try:
            for number, endpoint in enumerate(ids):
                application.execute(_ENDPOINT, {"id": endpoint, "host": HOST, "number": number})
                for event in events[number * each : (number + 1) * each]:
                    application.execute(_FAILED, {"event": event, "delivery": str(uuid7()), "endpoint": endpoint})
            application.query(_FLUSH)
            ready.wait(_PATIENCE_S)  # whoever compares the sessions of others sees its session from the beginning
            yield
        finally:
            over.set()
            sender.join(_PATIENCE_S)
            application.execute(_REMOVE, {"endpoints": ids, "events": events})


def _send(lab: Lab, endpoints: list[str], ready: Event, over: Event) -> None:
    with lab.connect("aiprod_app") as session:
        while not over.wait(_TICK_S):
            _tick(session, endpoints)
            ready.set()


def _tick(session: Database, endpoints: list[str]) -> None:
    if session.query(_SEND, {"endpoints": endpoints}):
        session.query(_FLUSH)
