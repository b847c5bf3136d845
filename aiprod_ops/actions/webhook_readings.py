"""What the deliveries of webhooks tell: what waits, what failed, who is sent nothing any more.

Ids are UUIDs of version 7, which begin with the time: so what is young is read by the primary key, without an index of
its own. Of a URL the host is read and nothing else: a path may be a secret.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aiprod_ops.config import Promises
from aiprod_ops.domain.replays import Backlog, Disabled, Ended
from aiprod_ops.errors import Refused
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds, seconds

MOST = 200_000  #: deliveries that are read at once: about 100 MB

_HOST = "substring(e.url from '^[a-z]+://(?:[^/@]*@)?([^/:?#]+)')"
_EXISTS = "select to_regclass('webhook_deliveries') is not null as is_there"
_BACKLOG = """
select count(*) as waiting, count(*) filter (where d.due_at <= now() and not l.is_taken) as due,
       count(*) filter (where l.is_taken) as taken,
       greatest(0, extract(epoch from now() - min(d.due_at) filter (where not l.is_taken)))::float8 as oldest,
       coalesce((array_agg(<host> order by d.due_at)
                 filter (where d.due_at <= now() and not l.is_taken))[1], '') as host
from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id and e.state = 'enabled',
lateral (select coalesce(d.lease_until > now(), false) as is_taken) l
where d.state = 'pending'
/* aiprod-ops: the backlog of webhooks */
""".replace("<host>", _HOST)
#: Tests and probes are sent all the same; what belongs to an endpoint that was deleted goes with it.
_HELD = """
select count(*) as held from webhook_deliveries d
join webhook_endpoints e on e.id = d.endpoint_id and e.state = 'disabled' and e.why_disabled <> 'deleted'
join webhook_events v on v.id = d.event_id and not starts_with(v.type, 'endpoint.')
where d.state = 'pending'
/* aiprod-ops: what waits for endpoints that are disabled */
"""
_DISABLED = """
select e.id::text as id, <host> as host, coalesce(e.why_disabled, '') as why, e.disabled_at as since
from webhook_endpoints e
where e.state = 'disabled' and e.why_disabled not in ('owner', 'gone', 'deleted') and e.disabled_at >= %(since)s
order by e.disabled_at desc, e.id limit 1000
/* aiprod-ops: endpoints that are sent nothing */
""".replace("<host>", _HOST)
#: What is asked for: of one endpoint, by id or host, and of one type of event or one event; tests and probes of
#: endpoints only where they are asked for.
_MEANT = """
(%(endpoint)s = '' or d.endpoint_id::text = %(endpoint)s or <host> = %(endpoint)s)
and (%(event)s = '' and not starts_with(v.type, 'endpoint.') or v.type = %(event)s or v.id::text = %(event)s)
""".replace("<host>", _HOST)
_COUNTS = """
select count(*) filter (where d.state = 'failed' and m.is_meant) as failed,
       count(*) filter (where d.state = 'delivered' and m.is_meant) as delivered,
       extract(epoch from now() - max(d.ended_at) filter (where e.state = 'enabled'))::float8 as last
from webhook_deliveries d
join webhook_endpoints e on e.id = d.endpoint_id and (e.state = 'enabled' or e.why_disabled = 'failing')
join webhook_events v on v.id = d.event_id,
lateral (select <meant> as is_meant) m
where d.id >= %(oldest)s::uuid
/* aiprod-ops: how many deliveries failed */
""".replace("<meant>", _MEANT)
_ENDED = """
select d.id::text as id, d.endpoint_id::text as endpoint, <host> as host, v.type as event,
       d.state, d.created_at, coalesce(d.ended_at, d.created_at) as ended_at,
       case when d.state = 'delivered' then '' else coalesce('HTTP ' || a.status, a.error, 'not sent') end as why,
       case when e.state = 'enabled' then '' else coalesce(e.why_disabled, 'owner') end as disabled
from webhook_deliveries d
join webhook_endpoints e on e.id = d.endpoint_id
join webhook_events v on v.id = d.event_id
left join lateral (
  select status, error from webhook_attempts a where a.delivery_id = d.id order by number desc limit 1) a on true
where d.id >= %(oldest)s::uuid and d.state = any(%(states)s) and <meant>
order by d.id limit %(most)s
/* aiprod-ops: deliveries that have ended */
""".replace("<host>", _HOST).replace("<meant>", _MEANT)
_KNOWN = """
select from webhook_endpoints e where e.id::text = %(endpoint)s or <host> = %(endpoint)s limit 1
""".replace("<host>", _HOST)
_KNOWN_EVENT = "select from webhook_events where id::text = %(event)s"
_NOW = "select now() as moment"


def has_webhooks(database: Database) -> bool:
    """Whether the schema has them: migration 005."""
    return bool(database.query(_EXISTS)[0]["is_there"])


def moment_of(database: Database) -> datetime:
    """The time by the server's clock, which `due_at` goes by."""
    found: datetime = database.query(_NOW)[0]["moment"]
    return found.astimezone(UTC)


def backlog(database: Database, since: datetime, *, endpoint: str = "", event: str = "") -> Backlog:
    """What waits, of all; and how much has failed of what came into being since then, as it is asked for in `ended`."""
    waiting = {**database.query(_BACKLOG)[0], **database.query(_HELD)[0]}
    values = {"oldest": first_id(since), "endpoint": endpoint, "event": event}
    return Backlog(**waiting, **database.query(_COUNTS, values)[0])


def knows(database: Database, endpoint: str) -> bool:
    """Whether there is an endpoint of this id or host."""
    return bool(database.query(_KNOWN, {"endpoint": endpoint}))


def knows_event(database: Database, event: str) -> bool:
    """Whether there is an event of this id."""
    return bool(database.query(_KNOWN_EVENT, {"event": event}))


def disabled(database: Database, since: datetime) -> tuple[Disabled, ...]:
    """Endpoints that were disabled since then because they failed, the latest first; no more than a thousand. Where the
    owner wants it so, or the receiver said that it is gone, there is nothing to be done."""
    return tuple(Disabled(**row) for row in database.query(_DISABLED, {"since": since}))


def ended(
    database: Database, since: datetime, states: Sequence[str], *, endpoint: str = "", event: str = ""
) -> tuple[Ended, ...]:
    """Deliveries that came into being since then and have ended so, oldest first: of one endpoint, by id or host, and
    of one type of event or one event. Tests and probes of endpoints (`endpoint.…`) only where they are asked for.

    Raises Refused where there are more than can be read at once.
    """
    values = {"oldest": first_id(since), "states": list(states), "endpoint": endpoint, "event": event, "most": MOST + 1}
    rows = database.query(_ENDED, values, timeout=Seconds(60))
    if len(rows) > MOST:
        raise Refused(
            f"more than {MOST:,} deliveries have ended like that since {since:%Y-%m-%d %H:%M} UTC",
            hint="ask for fewer: --since 1h, --endpoint HOST, --event TYPE",
        )
    times = ("created_at", "ended_at")
    return tuple(Ended(**{**row, **{name: row[name].astimezone(UTC) for name in times}}) for row in rows)


def approval_time(promises: Promises) -> timedelta:
    """So long a plan may wait for its approval. Raises ConfigurationError where that is missing."""
    return timedelta(seconds=seconds(promises.get("approval.valid_for")))


def first_id(moment: datetime) -> str:
    """What the ids of all that came into being since then are not below. Source: RFC 9562, section 5.7."""
    return str(UUID(int=int(moment.timestamp() * 1000) << 80))
