"""One session with one PostgreSQL server: connecting, running a statement, cancelling it, giving up on a silent server.

A probe runs each query in a `READ ONLY` transaction with `SET LOCAL` limits. Session settings would be simpler, but
behind a pooler in transaction mode they stay on a server connection that the application gets next. An actor runs in
autocommit, as CREATE INDEX CONCURRENTLY must, and needs a direct connection for its locks anyway.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as RawConnection  # noqa: N812 - psycopg2 names its class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import make_dsn
from psycopg2.extras import register_uuid

from aiprod_ops.adapters.postgres.dsn import EXAMPLE, Target
from aiprod_ops.adapters.postgres.errors import Ending, connection_error, malformed, statement_error
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import ConfigurationError, OpsError, Unreachable
from aiprod_ops.ports import Names, Values
from aiprod_ops.units import Seconds

_LOCK_TIMEOUT = Seconds(2)  #: of a probe: it must never queue in front of the application
_GRACE = Seconds(5)  #: a server that does not even report its own statement_timeout for so long is silent
_SILENCE = Seconds(1)  #: a server that did not answer for longer is not asked again for as long
_HOLD = "SELECT /* aiprod-ops */ pg_try_advisory_lock(hashtextextended(%(key)s, 0)) AS is_held"
#: What a role's own settings may limit, and since which version: an actor's build is bounded by the watch alone.
_UNLIMITED = {"lock_timeout": 0, "idle_session_timeout": 140000, "transaction_timeout": 170000}
#: What a server says last. Source: appendix A: *_shutdown, database_dropped, the timeouts of idle or long sessions.
_ENDED = ("57P01", "57P02", "57P04", "57P05", "25P03", "25P04")
_KEEPALIVE = {"keepalives": "1", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}


class Session:
    """One connection, opened by the first statement and opened again after it was lost (its locks are gone then)."""

    def __init__(self, target: Target, *, writes: bool, application_name: str, connect_timeout: Seconds) -> None:
        self.target = target
        self.writes = writes
        self._options = {
            "application_name": application_name,
            "connect_timeout": target.parameters.get("connect_timeout") or str(max(2, round(connect_timeout))),
            **{name: target.parameters.get(name, value) for name, value in _KEEPALIVE.items()},
        }
        self._raw: RawConnection | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._held: list[str] = []
        self._statement_timeout = -1
        self._we_cancelled = threading.Event()
        self._we_cut = threading.Event()
        self._moment: RawConnection | None = None  #: the connection whose transaction is held open
        self._not_before = 0.0
        self._last_trouble: OpsError = Unreachable("")

    def run(self, statement: str, values: Values, names: Names, timeout: Seconds) -> list[dict[str, Any]]:
        """Run one statement; its rows, or none. A `timeout` of 0 is no limit."""
        self._we_cancelled.clear()
        self._we_cut.clear()
        started = time.monotonic()
        try:
            return self._awaited(lambda: self._rows(statement, values, names, timeout), timeout)
        except psycopg2.Error as error:
            raise self._translated(error, timeout, Seconds(time.monotonic() - started)) from error

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read within sees one moment."""
        self._awaited(self._begin, Seconds(30))
        try:
            yield
        finally:
            moment, self._moment = self._moment, None
            if moment is not None and not moment.closed:
                self._awaited(lambda: self._end(moment), Seconds(30))

    def _begin(self) -> list[dict[str, Any]]:
        raw = self._moment = self._connected()
        with raw.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return []

    @staticmethod
    def _end(moment: RawConnection) -> list[dict[str, Any]]:
        with suppress(psycopg2.Error):  # the session was lost: so is its transaction
            moment.rollback()
        return []

    def hold(self, key: str) -> bool:
        """Take an advisory lock that lives as long as this session does; it is taken again when the session is."""
        rows = self.run(_HOLD, {"key": key}, {}, Seconds(30))
        if rows[0]["is_held"] and key not in self._held:
            self._held.append(key)
        return bool(rows[0]["is_held"])

    def cancel(self) -> None:
        """From another thread; does nothing when nothing runs."""
        raw = self._raw
        if raw is None or raw.closed:
            return
        self._we_cancelled.set()
        try:
            raw.cancel()
        except psycopg2.Error as error:
            raise Unreachable(f"The cancel request did not reach {self.target}") from error

    def close(self) -> None:
        worker, self._worker = self._worker, None
        self._held.clear()
        if worker is not None:
            worker.shutdown(wait=False)
        self._discard()

    def quote(self, name: Name | str) -> str:
        """An identifier as SQL needs it."""
        identifier = sql.Identifier(name.schema, name.name) if isinstance(name, Name) else sql.Identifier(name)
        return identifier.as_string(self._connected())

    def _quoted(self, statement: str, names: Names, *, has_values: bool) -> str:
        """Fill `{name}` in. A % in an identifier is doubled where the driver looks for `%(x)s`."""
        if "{" not in statement and "}" not in statement:
            return statement
        quoted = {key: self.quote(name) for key, name in names.items()}
        if has_values:
            quoted = {key: text.replace("%", "%%") for key, text in quoted.items()}
        parts = {key: sql.SQL(text) for key, text in quoted.items()}
        return sql.SQL(statement).format(**parts).as_string(self._connected())

    def _connected(self) -> RawConnection:
        if self._raw is None or self._raw.closed:
            self._discard()
            return self._open()
        return self._raw

    def _open(self) -> RawConnection:
        if time.monotonic() < self._not_before:
            raise self._last_trouble
        problem: OpsError | None = None
        started = time.monotonic()
        try:
            raw = psycopg2.connect(make_dsn(**(self.target.parameters | self._options)))
        except psycopg2.Error as error:
            if not malformed(error):
                trouble = connection_error(error, self.target)
                if time.monotonic() - started > _SILENCE:  # who asks several things of it waits once
                    self._not_before, self._last_trouble = time.monotonic() + _SILENCE, trouble
                raise trouble from error
            problem = ConfigurationError(
                f"The {self.target.identity} DSN is not valid: an option has a value that libpq does not accept.",
                hint=f"Check port, sslmode and time-outs. Expected, for example: {EXAMPLE}",
            )
        if problem is not None:  # raised here so that it has no context: libpq's text may quote a part of the password
            raise problem
        register_uuid(conn_or_curs=raw)  # type: ignore[no-untyped-call]  # the stubs leave it so
        self._prepare(raw)
        self._raw, self._statement_timeout = raw, -1
        return raw

    def _prepare(self, raw: RawConnection) -> None:
        if not self.writes:
            raw.set_session(readonly=True, isolation_level="READ COMMITTED")
            return
        raw.autocommit = True
        with raw.cursor() as cursor:
            if raw.server_version >= 140000:
                with suppress(psycopg2.errors.InvalidParameterValue):  # a platform without POLLRDHUP
                    cursor.execute("SET client_connection_check_interval = '1s'")
            for setting, since in _UNLIMITED.items():
                if raw.server_version >= since:
                    cursor.execute(f"SET {setting} = 0")
            for key in self._held:
                cursor.execute(_HOLD, {"key": key})
                if cursor.fetchone() != (True,):
                    raw.close()
                    raise Unreachable(
                        f"Contact to {self.target} was lost, and another session has the lock {key!r} now"
                    )

    def _limit(self, cursor: Cursor, timeout: Seconds) -> None:
        milliseconds = max(1, round(timeout * 1000)) if timeout > 0 else 0
        if not self.writes:
            cursor.execute(
                f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {_LOCK_TIMEOUT * 1000:.0f}; "
                "SET LOCAL idle_in_transaction_session_timeout = '60s'"
            )
        elif milliseconds != self._statement_timeout:
            cursor.execute(f"SET statement_timeout = {milliseconds}")
            self._statement_timeout = milliseconds

    def _rows(self, statement: str, values: Values, names: Names, timeout: Seconds) -> list[dict[str, Any]]:
        if self._moment is not None and (self._moment.closed or self._moment is not self._raw):
            raise Unreachable(f"Contact to {self.target} was lost, and with it the moment that was being read")
        raw = self._connected()
        with self._transaction(raw), raw.cursor() as cursor:
            if not statement.startswith("rollback"):  # a failed transaction takes no SET, only its end
                self._limit(cursor, timeout)
            text = self._quoted(statement, names, has_values=bool(values))
            cursor.execute(text, dict(values) or None)
            if cursor.description is None:
                return []
            columns = [column.name for column in cursor.description]
            return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def _transaction(self, raw: RawConnection) -> Iterator[None]:
        """One of its own, unless it is part of a moment; an actor is in autocommit, where both ends do nothing."""
        try:
            yield
        except BaseException:
            if self._moment is None and not raw.closed:
                with suppress(psycopg2.Error):
                    raw.rollback()
            raise
        if self._moment is None:
            raw.commit()

    def _awaited(self, work: Callable[[], list[dict[str, Any]]], timeout: Seconds) -> list[dict[str, Any]]:
        """Let a thread talk to the server: libpq lets no signal handler run in the thread that waits for an answer.

        The line is cut when not even the server's own time-out arrives: TCP keeps that of a frozen server up.
        A KeyboardInterrupt cancels the statement.
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        answer = self._worker.submit(work)
        try:
            done, _ = wait([answer], timeout + _GRACE if timeout > 0 else None)
            if not done:
                self._cut()
            return answer.result()
        finally:
            if not answer.done():
                with suppress(Unreachable):
                    self.cancel()
                wait([answer], _GRACE)

    def _cut(self) -> None:
        raw = self._raw
        if raw is None or raw.closed:
            return
        self._we_cut.set()
        with suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def _translated(self, error: psycopg2.Error, timeout: Seconds, elapsed: Seconds) -> OpsError:
        ending = Ending(
            self._we_cancelled.is_set(),
            self._we_cut.is_set(),
            elapsed,
            timeout,
            Seconds(0) if self.writes else _LOCK_TIMEOUT,
        )
        if self._raw is None or self._raw.closed or ending.we_cut or _is_lost(error):
            self._discard()
        return statement_error(error, self.target, ending)

    def _discard(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with suppress(psycopg2.Error):
                raw.close()


def _is_lost(error: psycopg2.Error) -> bool:
    """Whether the line broke, or the server ended the session, which the driver may not know yet."""
    broke = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) and error.pgcode is None
    return broke or error.pgcode in _ENDED
