"""Sending deliveries of webhooks again: they are made due, so many a second, and whoever delivers takes them up.

Each statement names the deliveries, and how they had ended when they were planned: one that was sent, replayed or
removed by somebody else since is not touched. What was sent is never unsent; what was not is put back as it had ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiprod_ops.actions.row_rights import require_rights
from aiprod_ops.domain.replays import LEAST_SENT, Replayed, Wave, deliveries, refusing
from aiprod_ops.engine.runbook import Amount, Context, Kind
from aiprod_ops.errors import Failed, Unreachable
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds, show

_RIGHTS = {"webhook_deliveries": "SELECT, UPDATE"}
CHANNEL = "aiprod_webhooks"  #: what wakes those who send: as `aiprod_ops.service.webhooks` has it
_WAKE = "select pg_notify(%(channel)s, '')"
_LOOK = "select pg_sleep(0.25)"  #: between two looks; in the server, because there a cancel reaches it

#: Whether one was sent since the plan was made: one that was cancelled has ended, and was not.
_SENT = "exists (select from webhook_attempts a where a.delivery_id = d.id and a.began_at > %(moment)s)"
#: As it had ended when it was planned, and its endpoint takes something: none of those that get no more.
_READY = """
d.state in ('failed', 'delivered') and coalesce(d.ended_at <= %(moment)s, true) and not <sent>
and d.endpoint_id in (select id from webhook_endpoints where state = 'enabled')
and d.endpoint_id <> all(%(held)s::uuid[])
""".replace("<sent>", _SENT)
#: A new round of the same delivery: its id, which the receiver knows it by, stays. Who made it due is kept as who
#: leased it, without a lease, until it is sent: what somebody else made due is not ours to take back.
_MAKE_DUE = """
update webhook_deliveries d
set state = 'pending', attempts = 0, ended_at = null, lease_until = null, leased_by = %(run)s,
    due_at = now() + (o.place - 1) / %(rate)s * interval '1 second'
from unnest(%(ids)s::uuid[]) with ordinality o(id, place)
where d.id = o.id and <ready>
/* aiprod-ops: a wave of deliveries is due again */
""".replace("<ready>", _READY)
_IS_READY = """
select exists (select from webhook_deliveries d where d.id = any(%(ids)s::uuid[]) and <ready>) as is_ready
""".replace("<ready>", _READY)
_WAITS = """
d.state = 'pending' and d.leased_by = %(run)s and (d.lease_until is null or d.lease_until <= now()) and not <sent>
""".replace("<sent>", _SENT)
#: The round has no attempts, and stays so: whoever has one in hand and sends it can write what came of it.
_TAKE_BACK = """
update webhook_deliveries d
set state = case when l.status between 200 and 299 then 'delivered' else 'failed' end,
    lease_until = null, leased_by = null,
    ended_at = least(l.began_at + l.milliseconds * interval '1 millisecond', %(moment)s)
from unnest(%(ids)s::uuid[]) o(id)
left join lateral (
  select * from webhook_attempts a where a.delivery_id = o.id order by a.number desc limit 1) l on true
where d.id = o.id and <waits> and (%(held)s::uuid[] is null or d.endpoint_id = any(%(held)s::uuid[]))
/* aiprod-ops: what was not sent is as it had ended */
""".replace("<waits>", _WAITS)
_IS_WAITING = """
select exists (select from webhook_deliveries d where d.id = any(%(ids)s::uuid[]) and <waits>) as is_waiting
""".replace("<waits>", _WAITS)
_BECAME = """
select d.endpoint_id::text as endpoint, substring(e.url from '^[a-z]+://(?:[^/@]*@)?([^/:?#]+)') as host,
       count(*) as planned, count(*) filter (where s.is_sent) as sent,
       count(*) filter (where s.is_sent and d.state = 'delivered') as delivered,
       count(*) filter (where s.is_sent and d.state in ('failed', 'cancelled')) as failed,
       count(*) filter (where s.is_unsent) as unsent,
       coalesce(extract(epoch from max(now() - d.due_at) filter (where s.is_unsent)), 0)::float8 as overdue
from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id,
lateral (select <sent> as is_sent, e.state = 'enabled' and d.state = 'pending' and not <sent> as is_unsent) s
where d.id = any(%(ids)s::uuid[]) group by 1, 2 order by 2, 1
/* aiprod-ops: what became of a replay */
""".replace("<sent>", _SENT)


@dataclass(frozen=True, slots=True)
class Unsent:
    """Deliveries of a wave, of which those are meant that were not sent since the plan was made."""

    number: int
    moment: datetime
    deliveries: tuple[str, ...]

    @classmethod
    def of(cls, wave: Wave) -> "Unsent":
        return cls(wave.number, wave.moment, wave.deliveries)

    def __str__(self) -> str:
        return f"what of wave {self.number} is not sent"


replay_wave = Kind("replay-wave", Wave)
take_back = Kind("take-back-wave", Unsent)


@replay_wave.shows
def _show(wave: Wave) -> str:
    """Counts and a few of them, and nothing that a customer would not want to see: no payload, no path of a URL."""
    hosts = [f"{count:,} to {host}" for host, count in sorted(wave.hosts.items(), key=lambda item: -item[1])]
    more = f", {len(hosts) - 5} more hosts" if len(hosts) > 5 else ""
    rest = len(wave.deliveries) - len(wave.samples)
    return "\n".join(
        (
            f"make {deliveries(len(wave.deliveries))} due again, {wave.rate:g} a second, oldest first: "
            f"{', '.join(hosts[:5])}{more}",
            *(f"  {sample}" for sample in wave.samples),
            *([f"  and {rest:,} more"] if rest > 0 else []),
        )
    )


@replay_wave.needs
def _may_replay(ctx: Context, _wave: Wave) -> None:
    require_rights(ctx.db, _RIGHTS)


@replay_wave.does
def _replay(ctx: Context, wave: Wave) -> None:
    """Make them due, and wait until all were sent and have ended, or were tried and `patience` has passed.

    What an endpoint was not sent that fails again meanwhile is put back at once. Where it takes after all what it was
    sent before, its part of the wave follows. Raises Failed where nobody sends. A server that is away for less than
    `patience` is waited for: it has been told all.
    """
    _make_due(ctx, wave)
    clock, known = ctx.clock, (-1, -1)
    moved = clock.monotonic()
    while True:
        try:
            ctx.db.query(_LOOK)
            became = _became(ctx.db, wave.deliveries, wave.moment)
        except Unreachable:
            if clock.monotonic() - moved >= wave.patience:
                raise
            clock.sleep(Seconds(0.5))
            continue
        if any(each.unsent and each.delivered < each.sent for each in became):
            _hold(ctx, wave)
        unsent, waiting = sum(each.unsent for each in became), sum(each.sent - each.ended for each in became)
        if (unsent, waiting) != known:
            known, moved = (unsent, waiting), clock.monotonic()
        has_waited = clock.monotonic() - moved >= wave.patience
        if not unsent and (has_waited or not waiting):  # what is to be tried again the next wave looks at
            if not _is_ready(ctx, wave):
                return
            _make_due(ctx, wave)
        overdue = max((each.overdue for each in became), default=Seconds(0))
        if unsent and has_waited and overdue >= wave.patience:
            raise Failed(
                f"nobody sends: {deliveries(unsent)} of wave {wave.number} due, the first for "
                f"{show(overdue, 's')}, and none was sent for {show(wave.patience, 's')}",
                hint="does a worker run? aiprod-ops worker; then plan again",
            )


def _make_due(ctx: Context, wave: Wave) -> None:
    ctx.db.execute(_MAKE_DUE, _values(ctx, wave), timeout=Seconds(600))
    ctx.db.query(_WAKE, {"channel": CHANNEL})


def _held(ctx: Context, wave: Wave) -> list[str]:
    """Endpoints that get no more for now: they take too little of what earlier waves sent them, or of all until now."""
    before = refusing(_became(ctx.db, wave.tried, wave.moment), wave.success)
    until_now = _became(ctx.db, (*wave.tried, *wave.deliveries), wave.moment)
    return sorted({each.endpoint for each in (*before, *refusing(until_now, wave.success, LEAST_SENT))})


def _hold(ctx: Context, wave: Wave) -> None:
    """Put back what those were not sent; what a worker has in hand is sent."""
    if held := _held(ctx, wave):
        ctx.db.execute(_TAKE_BACK, {**_unsent(ctx, Unsent.of(wave)), "held": held}, timeout=Seconds(600))


def _is_ready(ctx: Context, wave: Wave) -> bool:
    """Whether one of them can be made due."""
    return bool(ctx.db.query(_IS_READY, _values(ctx, wave))[0]["is_ready"])


@replay_wave.is_done
def _is_replayed(ctx: Context, wave: Wave) -> bool:
    """All were sent, but those that moved, or whose endpoint takes nothing."""
    is_unsent = any(each.unsent for each in _became(ctx.db, wave.deliveries, wave.moment))
    return not is_unsent and not _is_ready(ctx, wave)


@replay_wave.progress
def _amount(ctx: Context, wave: Wave) -> Amount:
    became = _became(ctx.db, wave.deliveries, wave.moment)
    return Amount(f"wave {wave.number} of {wave.of}: {told(became)}", sum(each.sent for each in became), 0)


@replay_wave.reports
def _report(ctx: Context, wave: Wave) -> str:
    """The same, and how many were not: because their endpoint fails again, or because they were taken back."""
    became = _became(ctx.db, wave.deliveries, wave.moment)
    return f"{told(became)}, {len(wave.deliveries) - sum(each.sent for each in became):,} not sent"


@take_back.shows
def _show_taking(unsent: Unsent) -> str:
    return f"of wave {unsent.number}, put back as it had ended what was not sent"


@take_back.needs
def _may_take_back(ctx: Context, _unsent: Unsent) -> None:
    require_rights(ctx.db, _RIGHTS)


@take_back.does
def _take_back(ctx: Context, unsent: Unsent) -> None:
    ctx.db.execute(_TAKE_BACK, _unsent(ctx, unsent), timeout=Seconds(600))


@take_back.is_done
def _is_taken_back(ctx: Context, unsent: Unsent) -> bool:
    """Nothing of it waits to be sent; what somebody has in hand is sent."""
    return not ctx.db.query(_IS_WAITING, _unsent(ctx, unsent))[0]["is_waiting"]


def _unsent(ctx: Context, unsent: Unsent) -> dict[str, Any]:
    return {"run": f"replay {ctx.run}", "ids": list(unsent.deliveries), "moment": unsent.moment, "held": None}


def replayed(database: Database, waves: Iterable[Wave]) -> tuple[Replayed, ...]:
    """What became of the deliveries of some waves of one plan until now, by endpoint."""
    known = list(waves)
    return _became(database, [each for wave in known for each in wave.deliveries], known[0].moment) if known else ()


def told(became: Iterable[Replayed]) -> str:
    """The sums in words."""
    found = list(became)
    sent, delivered, failed = (sum(getattr(each, name) for each in found) for name in ("sent", "delivered", "failed"))
    return f"{sent:,} sent, {delivered:,} delivered, {failed:,} failed again"


def _became(database: Database, deliveries: Iterable[str], moment: datetime) -> tuple[Replayed, ...]:
    rows = database.query(_BECAME, {"ids": list(deliveries), "moment": moment}, timeout=Seconds(60))
    return tuple(Replayed(**row) for row in rows)


def _values(ctx: Context, wave: Wave) -> dict[str, Any]:
    return {
        "run": f"replay {ctx.run}",
        "ids": list(wave.deliveries),
        "held": _held(ctx, wave),
        "moment": wave.moment,
        "rate": wave.rate,
    }
