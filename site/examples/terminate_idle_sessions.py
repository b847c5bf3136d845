"""End sessions that sit idle in a transaction.

A session that began a transaction and then does nothing keeps its locks, and keeps VACUUM from removing what was
deleted since. Others wait for it, and tables grow. What it had not committed is rolled back when it is ended; its
client sees a lost connection.

A session is ended only while it is still in the very transaction that was planned. One that went on by itself is left
alone, and a process id that the server has given to somebody else is never hit.

Source: PostgreSQL manual, "The Statistics Collector", pg_stat_activity; "Server Signaling Functions".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import Action, Context, Estimate, Finding, Kind, Lab, Moving, Plan, Seconds

_IDLE = """
select pid, backend_start, xact_start, coalesce(usename, '') as user, coalesce(application_name, '') as application,
       extract(epoch from clock_timestamp() - state_change)::float8 as idle
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
  and state in ('idle in transaction', 'idle in transaction (aborted)') and xact_start is not null
  and application_name not like 'aiprod-ops%'
order by backend_start, pid
"""

_HIDDEN = """
select count(*) as sessions from pg_stat_activity
where datname = current_database() and query = '<insufficient privilege>'
"""

_STILL = """
select state, query = '<insufficient privilege>' as is_hidden from pg_stat_activity
where pid = %(pid)s and (query = '<insufficient privilege>'
                         or (backend_start = %(backend_start)s and xact_start = %(xact_start)s))
"""

_END = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where pid = %(pid)s and backend_start = %(backend_start)s and xact_start = %(xact_start)s
  and state in ('idle in transaction', 'idle in transaction (aborted)')
"""


@dataclass(frozen=True)
class Params:
    limit: Seconds = Seconds(300)  #: idle in a transaction for longer than this is too long
    most: int = 20  #: more sessions than this are no accident: refuse, and look at the application
    spare: str = "pg_dump"  #: application that is never ended


@dataclass(frozen=True)
class Session:
    """One transaction of one session. The times make sure that nobody else is meant by the same process id."""

    pid: int
    backend_start: datetime
    xact_start: datetime
    user: str
    application: str

    def __str__(self) -> str:
        return f"{self.application or 'session'} of {self.user}, pid {self.pid}"


@dataclass(frozen=True)
class Facts:
    sessions: tuple[Session, ...]
    idle: Moving[dict[str, float]]  # seconds, by session
    hidden: Moving[int]  # sessions that this role may not look at


terminate = Kind("terminate-session", Session)


@terminate.shows
def statement(session: Session) -> str:
    return (
        f"SELECT pg_terminate_backend({session.pid})  -- only in its transaction of {session.xact_start:%H:%M:%S} UTC"
    )


@terminate.does
def end(ctx: Context, session: Session) -> None:
    ctx.db.execute(_END, _values(session), timeout=Seconds(10))


@terminate.is_done
def is_over(ctx: Context, session: Session) -> bool | None:
    """Also when it went on by itself: what held the locks is gone. None when this role may not look at it."""
    rows = ctx.db.query(_STILL, _values(session))
    return None if rows and rows[0]["is_hidden"] else not rows


book = api.Runbook(
    params=Params,
    symptom="Statements wait for locks; somebody began a transaction and left",
    risk="moderate",
    owner="database",
    check_every="5 min",
    drill_every="30 d",
    alerts=("IdleInTransaction",),
    actions=(terminate,),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs `pg_monitor`: without it, other users' sessions cannot be looked at."""
    rows = ctx.db.query(_IDLE)
    found = {_session(row): float(row["idle"]) for row in rows if row["application"] != params.spare}
    hidden = int(ctx.db.query(_HIDDEN)[0]["sessions"])
    return Facts(tuple(found), {str(session): idle for session, idle in found.items()}, hidden)


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """The longest, then one line for each session that is over the limit."""
    longest = max(facts.idle.values(), default=0.0)
    yield Finding("longest idle in a transaction", longest, "s", warn=params.limit, crit=4 * params.limit)
    if facts.hidden:
        yield Finding("sessions", None, note=f"{facts.hidden} are hidden; GRANT pg_monitor TO this role")
    for session in _too_long(facts, params):
        idle = facts.idle[str(session)]
        cells = {
            "user": session.user,
            "application": session.application,
            "pid": str(session.pid),
            "idle": api.show(idle, "s"),
        }
        yield Finding("idle in a transaction", idle, "s", params.limit, 4 * params.limit, columns=cells)


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    for session in _too_long(facts, params):
        yield Action(
            "terminate-session",
            session,
            irreversible="an ended session's uncommitted work is rolled back",
            estimate=Estimate(Seconds(1)),
            timeout=Seconds(30),
        )


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again right before each one: nobody is cut off in the middle of work."""
    states = [ctx.db.query(_STILL, _values(terminate.subject(action))) for action in plan.actions]
    busy = sum(rows[0]["state"] == "active" for rows in states if rows)
    yield Finding("planned sessions that went back to work", busy, crit=1)
    yield Finding("sessions that would be ended", len(plan.actions), crit=params.most + 1)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """The planned transactions are over."""
    left = [action.name for action in plan.actions if not is_over(ctx, terminate.subject(action))]
    yield Finding("planned transactions still open", len(left), crit=1, note=", ".join(left))


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """A client that begins a transaction and does nothing. Drill with `--limit 0s`: the drill does not wait."""
    with lab.connect("aiprod_app") as client:
        client.execute("begin")
        client.execute("select 1")
        yield


def _session(row: dict[str, Any]) -> Session:
    """Times in UTC: two roles may have two time zones, and the plan's digest must not depend on it."""
    began, started = (row[name].astimezone(UTC) for name in ("backend_start", "xact_start"))
    return Session(row["pid"], began, started, row["user"], row["application"])


def _values(session: Session) -> dict[str, object]:
    return {"pid": session.pid, "backend_start": session.backend_start, "xact_start": session.xact_start}


def _too_long(facts: Facts, params: Params) -> list[Session]:
    """A session that came after the plan was made has no age in it, and is left alone."""
    return [session for session in facts.sessions if facts.idle.get(str(session), -1.0) >= params.limit]
