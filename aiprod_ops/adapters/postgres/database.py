"""PostgreSQL through psycopg2: implements `ports.Database`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiprod_ops.adapters.postgres import catalog as catalog
from aiprod_ops.adapters.postgres import indexes as indexes
from aiprod_ops.adapters.postgres import pages as pages
from aiprod_ops.adapters.postgres import statements as statistics
from aiprod_ops.adapters.postgres.dsn import target
from aiprod_ops.adapters.postgres.session import Session
from aiprod_ops.domain.catalogue.indexes import Catalogue, FailedBuild
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.usage import NodeUsage
from aiprod_ops.domain.counters import StatementsSnapshot
from aiprod_ops.domain.schema import Name, Schema, TableSize
from aiprod_ops.domain.statements import Logged, Workload
from aiprod_ops.errors import ConfigurationError, Failed, PermissionMissing, Refused, TimedOut
from aiprod_ops.ports import ColumnTexts, Names, Sample, Server, Values
from aiprod_ops.units import Seconds

if TYPE_CHECKING:
    from aiprod_ops.adapters.postgres.server_log import ServerLog

T = TypeVar("T")
_NONE: Mapping[str, Any] = {}
_USUAL = Seconds(30)
_QUICK = Seconds(60)  #: our own statements: readings of the catalogue and of pages
_PATIENCE = Seconds(5)


class PostgresDatabase:
    """One session with one database; the first call connects.

    A probe (`writes=False`) runs all in READ ONLY transactions with a lock time-out of 2 s and refuses `execute`
    An actor runs in autocommit without a lock time-out; it needs a direct connection, not a pooler in transaction mode.
    `log` is a JSON log file of the server or a folder of them, where they can be read as files; `identity` what the
    configuration calls the DSN: actor or probe, unless it is another one's.
    Raises ConfigurationError for a DSN that cannot be read.
    """

    def __init__(
        self, dsn: str, *, writes: bool, application_name: str, log: str = "", connect_timeout: Seconds = _PATIENCE,
        identity: str = "",
    ) -> None:  # fmt: skip
        where = target(dsn, identity or ("actor" if writes else "probe"))
        self._session = Session(
            where, writes=writes, application_name=application_name, connect_timeout=connect_timeout
        )
        self._writes = writes
        self._log = log
        self._application_name, self._dsn, self._patience = application_name, dsn, connect_timeout

    def __repr__(self) -> str:
        return f"PostgresDatabase({self._session.target})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def server(self) -> Server:
        """Raises PermissionMissing with the GRANT where pg_control_system() was revoked from PUBLIC."""
        try:
            return Server(**self._named("server")[0])
        except PermissionMissing as error:
            role = self._named("role")[0]["role"]
            raise PermissionMissing(
                error.message, hint=f"As a superuser: GRANT EXECUTE ON FUNCTION pg_control_system() TO {role};"
            ) from error

    def query(
        self, sql: str, values: Values = _NONE, *, names: Names = _NONE, timeout: Seconds = _USUAL
    ) -> list[dict[str, Any]]:
        """With values a literal % is written %%; with names a literal brace is doubled. A time-out of 0 is none."""
        return self._session.run(sql, values, names, timeout)

    def execute(self, sql: str, values: Values = _NONE, *, names: Names = _NONE, timeout: Seconds = _USUAL) -> None:
        if not self._writes:
            raise Refused(
                f"{self._session.target} is a probe: it only reads", hint="Changes go through the actor identity."
            )
        self._session.run(sql, values, names, timeout)

    def hold(self, key: str) -> bool:
        if not self._writes:
            raise Refused(f"{self._session.target} is a probe: it takes no lock")
        return self._session.hold(key)

    def cancel(self) -> None:
        self._session.cancel()

    def workload(self) -> Workload:
        """From pg_stat_statements; where it is not there, from the JSON log, whose figures are lower bounds."""
        found = statistics.access(self._named)
        if found.is_usable:
            return statistics.workload(self._named, found, datetime.now(UTC))
        from aiprod_ops.adapters.postgres import log as log_reader

        log = self._log_files()
        if log.files:
            return log_reader.workload(log_reader.calls(log.files, log.database), found.missing)
        return statistics.nothing((*found.missing, *log.missing))

    def statements(self) -> StatementsSnapshot:
        return statistics.snapshot(self._named, statistics.access(self._named), datetime.now(UTC))

    def texts(self, query_ids: Sequence[int]) -> dict[int, str]:
        return statistics.texts(self._named, statistics.access(self._named), query_ids)

    def revision(self) -> str:
        return catalog.revision(self._named)

    def schema(self) -> Schema:
        """Raises Failed, naming table and process, while somebody has a table locked against reading."""
        return self._unlocked(lambda: catalog.schema(self._named))

    def sizes(self) -> dict[str, TableSize]:
        return catalog.sizes(self._named)

    def column_values(self, columns: Sequence[tuple[Name, str]]) -> dict[tuple[Name, str], ColumnTexts]:
        return catalog.column_values(self._named, columns)

    def samples(self, query_ids: Sequence[int], most: int = 20) -> list[Sample]:
        if not query_ids or most < 1:
            return []
        from aiprod_ops.adapters.postgres import log as log_reader

        log = self._log_files()
        return log_reader.samples(log_reader.calls(log.files, log.database, query_ids), query_ids, most)

    def logged(self, query_ids: Sequence[int], since: datetime) -> tuple[dict[int, Logged], str]:
        """A log that is rotated away while we read it is no reason to lose what the counters told."""
        from aiprod_ops.adapters.postgres.logged import logged

        if not query_ids and not self._log:
            return {}, ""
        try:
            log = self._log_files()
            missing = " ".join(log.missing) if self._log else ""
            return logged(log.files, log.database, query_ids, since) if query_ids else {}, missing
        except (ConfigurationError, Failed, PermissionMissing, TimedOut) as error:
            return {}, error.told
        except OSError as error:
            return {}, f"The log {self._log} cannot be read: {error.strerror}"

    def catalogue(self) -> Catalogue:
        """Raises Failed, naming table and process, while somebody has a table locked against reading."""
        return self._unlocked(lambda: indexes.catalogue(self._named, self._failed_builds))

    def index_usage(self) -> NodeUsage:
        return indexes.usage(self._named)

    def bloat(self, indexes: Sequence[Name]) -> Inspection:
        return pages.bloat(self._named, indexes)

    def damage(self, indexes: Sequence[Name], *, rows: bool = False, timeout: Seconds = _QUICK) -> Inspection:
        return pages.damage(partial(self._named, timeout=timeout), indexes, rows=rows)

    def moment(self) -> AbstractContextManager[None]:
        return self._session.moment()

    def another(self) -> "PostgresDatabase":
        return PostgresDatabase(
            self._dsn, writes=self._writes, application_name=self._application_name, log=self._log,
            connect_timeout=self._patience, identity=self._session.target.identity,
        )  # fmt: skip

    def close(self) -> None:
        self._session.close()

    def _named(
        self, name: str, values: Values = _NONE, *, names: Names = _NONE, timeout: Seconds = _QUICK
    ) -> list[dict[str, Any]]:
        return self._session.run(catalog.statement(name), values, names, timeout)

    def _log_files(self) -> "ServerLog":
        """The log as files where the configuration says so, else through the server."""
        from aiprod_ops.adapters.postgres.server_log import local_log, server_log

        if self._log:
            database = self._named("log_access")[0]["database"]
            return local_log(Path(self._log), database)
        return server_log(self._named)

    def _failed_builds(self) -> tuple[tuple[FailedBuild, ...], str]:
        from aiprod_ops.adapters.postgres.failed_builds import failed_builds

        log = self._log_files()
        return failed_builds(log.files, log.database), " ".join(log.missing)

    def _unlocked(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Failed as error:
            if "lock timeout" not in error.message:
                raise
            raise self._locked(error) from error

    def _locked(self, error: Failed) -> Failed:
        held = [
            f"{row['relation']} by process {row['pid']} ({row['usename'] or 'a prepared transaction'}, "
            f"{row['state'] or 'not shown'})"
            for row in self._named("lock_holders")
        ]
        return Failed(f"{error.message}: locked {', '.join(held) or 'by somebody'}", hint=error.hint)
