"""Reads go to a replica while it is fresh enough, and to the primary otherwise: sessions of SQLAlchemy, for an API.

Nobody waits for a measurement. Whoever wants to read finds what was measured last and, where that is old, has the next
one begun beside it. A replica is used as long as its staleness stays under the limit even if it stands still from then
on; it is left alone where it does not answer, is no standby any more, belongs to another system, or has what its
primary lacks.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Connection, Engine, TextClause, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from aiprod_ops.service.freshness import Progress, Replayed, fresh_until, position, staleness
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)

_PRIMARY = text("""
select pg_is_in_recovery() as is_standby, (select system_identifier::text from pg_control_system()) as system,
       case when pg_is_in_recovery() then 0 else pg_current_wal_flush_lsn() - '0/0'::pg_lsn end::bigint as flushed,
       extract(epoch from clock_timestamp())::float8 as clock /* aiprod-ops: a primary's progress */
""")
_REPLICA = text("""
select pg_is_in_recovery() as is_standby, (select system_identifier::text from pg_control_system()) as system,
       coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed,
       extract(epoch from pg_last_xact_replay_timestamp())::float8 as committed /* aiprod-ops: a replica's progress */
""")
_ANSWERS = text("""
select pg_is_in_recovery() as is_standby, coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed
/* aiprod-ops: whether a replica may be read from */
""")
#: What is acknowledged is flushed, unless the session says that it need not be.
_TOKEN = text("""
select case current_setting('synchronous_commit') when 'off' then pg_current_wal_insert_lsn()
       else pg_current_wal_flush_lsn() end::text /* aiprod-ops: where a session's writes end */
""")
_POLL = Seconds(0.01)


@dataclass(frozen=True, slots=True)
class Limits:
    """A session never begins with data that are staler than `lag`. Each replica is measured `every` so often while
    somebody reads; one that has not answered for `patience` is not read from, and one that failed not before `retry`.
    """

    lag: Seconds = Seconds(5)
    every: Seconds = Seconds(1)
    patience: Seconds = Seconds(0.5)
    retry: Seconds = Seconds(5)

    def __post_init__(self) -> None:
        if not all(0 < each < float("inf") for each in (self.lag, self.every, self.patience, self.retry)):
            raise ValueError(f"every limit is more than 0 s: {self}")


@dataclass(slots=True)
class Replica:
    """What is known of one replica. Times are of the router's clock."""

    name: str
    engine: Engine
    fresh_until: float = float("-inf")
    replayed: int = 0  #: at least
    why: str = "not measured yet"  #: it is not read from
    measured: float = float("-inf")
    asking: float | None = None  #: since when a measurement has gone on
    banned_until: float = float("-inf")
    before: deque[Progress] = field(default_factory=deque)


class ReadRouter:
    """Sessions for reading. Safe for threads; `close` it with the engines that it was given.

    `sessions` makes the sessions; `clock` is in seconds and never goes back.
    """

    def __init__(
        self,
        primary: Engine,
        replicas: Sequence[Engine],
        limits: Limits = Limits(),
        *,
        sessions: sessionmaker[Session] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._primary, self._limits, self._clock = primary, limits, clock
        self._sessions = sessions or sessionmaker()
        self._replicas = [Replica(_name(engine), engine) for engine in replicas]
        self._lock, self._turns = threading.Lock(), itertools.count()

    @classmethod
    def of(cls, primary: str, replicas: Sequence[str], limits: Limits = Limits(), **options: Any) -> Self:
        """From URLs; `options` are create_engine's. A server that is gone is given up after two seconds."""
        given = {"connect_timeout": 2, "keepalives_idle": 5, "tcp_user_timeout": 5000}
        # A standby refuses to be told that a transaction is not read-only, which the pool's reset would do.
        reads = {**given, "options": "-c default_transaction_read_only=on"}
        engines = [create_engine(url, connect_args=reads, **options) for url in replicas]
        main = create_engine(primary, connect_args=given, **{"pool_pre_ping": True, **options})
        return cls(main, engines, limits)

    # Reading

    @contextmanager
    def reading(self, after: str = "", *, wait: Seconds = Seconds(0)) -> Iterator[Session]:
        """A session that only reads, on a replica if one may be read from; with `after`, a `token`, only if it has what
        was written until then, for which it is waited a little. What is no token is read from the primary.

        `session.info["server"]` tells which server it is. Whatever fails within the session is its caller's; a replica
        that was lost is not used again before it was measured anew.
        """
        replica, connection = self._connected(after, wait)
        try:
            with self._sessions(bind=connection) as session:
                session.info["server"] = replica.name if replica else _name(self._primary)
                yield session
        except DBAPIError as error:
            if replica is not None and error.connection_invalidated:
                self._ban(replica, "it was lost in a session")
            raise
        finally:
            connection.close()

    def token(self, session: Session) -> str:
        """Where the writes end that a session on the primary has committed: what `reading(after=…)` wants to see."""
        return str(session.execute(_TOKEN).scalar_one())

    def pick(self, after: str = "") -> str | None:
        """The name (host:port) of a replica that may be read from, by what was measured last, None for the primary: for
        who has engines of another kind (asynchronous ones, say). Asks nobody."""
        return next((each.name for each in self._candidates(after)), None)

    @property
    def replicas(self) -> dict[str, str]:
        """Each replica by name, and why it is not read from now; '' where it is."""
        now = self._clock()
        return {each.name: self._refused(each, now) for each in self._replicas}

    def close(self) -> None:
        """Dispose of the engines."""
        for engine in (self._primary, *(each.engine for each in self._replicas)):
            engine.dispose()

    def _connected(self, after: str, wait: Seconds) -> tuple[Replica | None, Connection]:
        wanted = position(after) if after else 0
        deadline = self._clock() + wait
        for replica in self._candidates(after):
            try:
                connection = replica.engine.connect()
            except (DBAPIError, PoolTimeout) as error:
                self._ban(replica, f"no contact: {type(error).__name__}")
                continue
            try:
                if self._serves(replica, connection, wanted or 0, deadline) and self._is_fresh(replica):
                    return replica, connection
            except DBAPIError:
                self._ban(replica, "it does not answer")
            except BaseException:
                connection.close()
                raise
            connection.close()
        return None, self._primary.connect().execution_options(postgresql_readonly=True)

    def _serves(self, replica: Replica, connection: Connection, wanted: int, deadline: float) -> bool:
        """Whether it still is a standby, and has what is wanted: one look, which also proves that it lives."""
        while True:
            seen = connection.execute(_ANSWERS).one()
            connection.rollback()
            if not seen.is_standby:
                self._ban(replica, "it is no standby")
                return False
            if seen.replayed >= wanted:
                return True
            if self._clock() >= deadline:
                return False
            time.sleep(_POLL)

    def _is_fresh(self, replica: Replica) -> bool:
        """Still, after a connection was waited for."""
        return not self._refused(replica, self._clock())

    # Choosing

    def _candidates(self, after: str) -> list[Replica]:
        """Those that may be read from, another one first each time; measurements that are due are begun beside it.
        What a token asks for may have come meanwhile: whether it has, the replica is asked."""
        now = self._clock()
        for each in self._replicas:
            if self._is_due(each, now):
                threading.Thread(target=self._measure, args=(each,), daemon=True, name="aiprod-ops reading").start()
        usable = [each for each in self._replicas if not self._refused(each, now)]
        if not usable:
            return []
        turn = next(self._turns) % len(usable)
        turned = usable[turn:] + usable[:turn]
        wanted = position(after) if after else 0
        return [] if wanted is None else sorted(turned, key=lambda each: each.replayed < wanted)

    def _refused(self, each: Replica, now: float) -> str:
        """Why a replica is not read from; '' where it is."""
        with self._lock:
            if now < each.banned_until:
                return each.why
            if each.asking is not None and now - each.asking > self._limits.patience:
                return "it has not answered in time"
            return "" if now <= each.fresh_until else each.why or "measured too long ago"

    def _is_due(self, each: Replica, now: float) -> bool:
        with self._lock:
            is_old = now - each.measured >= self._limits.every
            if each.asking is not None or now < each.banned_until or not is_old:
                return False
            each.asking = now
            return True

    def _ban(self, each: Replica, why: str) -> None:
        log.warning("a replica is not read from", extra={"replica": each.name, "why": why})
        with self._lock:
            each.banned_until = self._clock() + self._limits.retry
            each.fresh_until, each.why = float("-inf"), why
        each.engine.dispose()  # what it has open is as dead

    # Measuring

    def _measure(self, each: Replica) -> None:
        """In a thread of its own: it may hang as long as it likes."""
        asked = self._clock()
        try:
            # One after the other: a replica that hangs must leave no transaction open on the primary.
            first, seen, last = (
                _row(engine, query)
                for engine, query in ((self._primary, _PRIMARY), (each.engine, _REPLICA), (self._primary, _PRIMARY))
            )
            progress = Progress(first.flushed, first.clock)
            why = _wrong(first, seen, last)
            stale = None if why else staleness(progress, Replayed(seen.replayed, seen.committed), each.before)
            with self._lock:
                each.replayed, each.fresh_until = seen.replayed, fresh_until(asked, stale, self._limits.lag)
                each.why = why or _behind(stale, self._limits.lag)
                self._remember(each, progress)
        except (SQLAlchemyError, OSError) as error:
            with self._lock:  # what was measured before counts until it is too old
                each.why = f"no contact: {type(error).__name__}"
        finally:
            with self._lock:
                each.asking, each.measured = None, asked

    def _remember(self, each: Replica, progress: Progress) -> None:
        """What may still bound a staleness under the limit. LSNs that went back are of another primary."""
        if each.before and progress.flushed < each.before[-1].flushed:
            each.before.clear()
        while each.before and progress.clock - each.before[0].clock > self._limits.lag:
            each.before.popleft()
        each.before.append(progress)


def _row(engine: Engine, query: TextClause) -> Any:
    with engine.connect() as connection:
        return connection.execute(query).one()


def _wrong(first: Any, seen: Any, last: Any) -> str:
    """Why what was measured says nothing of how stale a replica is. The primary is asked before and after it."""
    if first.is_standby or last.is_standby:
        return "no primary answers"
    if not seen.is_standby:
        return "it is no standby"
    if seen.system != first.system:
        return "it is of another system"
    return "it has what its primary lacks" if seen.replayed > last.flushed else ""


def _behind(stale: Seconds | None, limit: Seconds) -> str:
    if stale is None:
        return "nothing tells how far it is behind"
    return f"{stale:.1f} s behind" if stale > limit else ""


def _name(engine: Engine) -> str:
    """Host and port, never a password; of a socket its folder, of several hosts each."""
    url = engine.url
    hosts = url.host or url.query.get("host", "local")
    if not isinstance(hosts, str):
        return ",".join(hosts)
    return f"{hosts}:{url.port or url.query.get('port', 5432)}"
