"""End sessions that sit idle in a transaction.

A session that is idle in a transaction keeps its locks and its snapshot: others wait for it, vacuum removes nothing
that it might still see, and a concurrent index build does not end. One that sits there for longer than the limit is
ended. Its transaction is rolled back by the server, and its application has to connect again.

Only the session that was planned is hit: a number (pid) that was given to another session since, or a session that has
begun another transaction since, is left alone.

Source: PostgreSQL manual, "Server Signaling Functions" and "idle_in_transaction_session_timeout".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Action, Context, Estimate, Finding, Kind, Lab, Moving, Plan, Seconds


@dataclass(frozen=True)
class Params:
    limit: Seconds = Seconds(300)  #: how long a session may sit idle in a transaction
    most: int = 20  #: sessions to end in one run; more than that is another problem


@dataclass(frozen=True)
class Session:
    """One session in one transaction. Times are UTC, to the microsecond: with them nobody else is taken for it."""

    pid: int
    backend_start: str
    xact_start: str
    user: str
    application: str

    def __str__(self) -> str:
        return f"{self.user}@{self.pid}"


@dataclass(frozen=True)
class Facts:
    sessions: tuple[Session, ...]
    idle: Moving[dict[str, float]]  #: seconds without a statement, by session


_IDLE = """
select pid, to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') as backend_start,
       to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') as xact_start,
       usename::text as user, application_name as application,
       extract(epoch from clock_timestamp() - state_change)::float8 as seconds
from pg_stat_activity
where starts_with(state, 'idle in transaction') and datname = current_database()
  and not starts_with(application_name, 'aiprod-ops')
order by backend_start, pid
"""
_SAME = """
from pg_stat_activity
where pid = %(pid)s and to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') = %(backend_start)s
  and to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') = %(xact_start)s
  and starts_with(state, 'idle in transaction')
"""

terminate = Kind("terminate-session", Session)


@terminate.shows
def statement(session: Session) -> str:
    return f"SELECT pg_terminate_backend({session.pid})  -- if its transaction still is that of {session.xact_start}"


@terminate.does
def end(ctx: Context, session: Session) -> None:
    """Ask the server, which waits up to five seconds for the session's end."""
    ctx.db.query(f"select pg_terminate_backend(pid, 5000) {_SAME}", _keys(session))


@terminate.is_done
def is_gone(ctx: Context, session: Session) -> bool:
    """A session that works again, or is in another transaction, is no longer the problem, either."""
    return not ctx.db.query(f"select pid {_SAME}", _keys(session))


def _keys(session: Session) -> dict[str, object]:
    return {"pid": session.pid, "backend_start": session.backend_start, "xact_start": session.xact_start}


book = api.Runbook(
    params=Params,
    symptom="Sessions sit idle in a transaction, and others wait for them",
    owner="database",
    risk="moderate",
    actions=(terminate,),
    check_every="5 min",
    drill_every="30 d",
    alerts=("IdleInTransaction",),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs `pg_monitor`: without it the server hides what sessions of others do."""
    rows = ctx.db.query(_IDLE)
    idle = {}
    sessions = []
    for row in rows:
        seconds = row.pop("seconds")
        sessions.append(Session(**row))
        idle[str(sessions[-1])] = seconds
    return Facts(tuple(sessions), idle)


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """The longest, then each that is over the limit."""
    longest = max(facts.idle.values(), default=0.0)
    yield Finding("longest idle in a transaction", longest, "s", warn=params.limit, crit=4 * params.limit)
    for session in _over(facts, params):
        cells = {"session": str(session), "application": session.application, "since": f"{session.xact_start[:19]} UTC"}
        idle = facts.idle[str(session)]
        yield Finding("idle in a transaction", idle, "s", warn=params.limit, crit=4 * params.limit, columns=cells)


def _over(facts: Facts, params: Params) -> list[Session]:
    """A session that was not there when ages were read has none, and is not planned for."""
    return [session for session in facts.sessions if facts.idle.get(str(session), 0.0) > params.limit]


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    for session in _over(facts, params)[: params.most]:
        yield Action(
            "terminate-session", session, basis=session, lock="none", timeout=Seconds(30),
            estimate=Estimate(Seconds(0.1)), irreversible="a session that was ended cannot be brought back",
        )  # fmt: skip


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """A standby has its own sessions; the one that was planned for is the primary."""
    yield Finding("the server is a standby", float(ctx.db.server().is_standby), "", crit=1)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    left = [action.name for action in plan.actions if not is_gone(ctx, terminate.subject(action))]
    yield Finding("sessions that are still there", len(left), "", crit=1, note=", ".join(left))


@book.inject
@contextmanager
def inject(lab: Lab) -> Iterator[None]:
    """The application begins a transaction, reads something, and forgets it."""
    with lab.connect("aiprod_app") as session:
        session.execute("begin")
        session.query("select count(*) from users")
        yield
