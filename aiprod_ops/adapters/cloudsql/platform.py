"""The platform `cloudsql`: a copy is an instance of its own, cloned or restored through the Admin API, and deleted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from psycopg2.extensions import make_dsn, parse_dsn

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.backups import CloudSqlBackups
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.adapters.cloudsql.cluster import CloudSqlCluster
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.adapters.cloudsql.values import Instance
from aiprod_ops.adapters.cloudsql.waiting import OperationFailed
from aiprod_ops.adapters.cloudsql.zones import CloudSqlZones
from aiprod_ops.adapters.local import migrations as scripts
from aiprod_ops.adapters.local.amcheck import amcheck
from aiprod_ops.adapters.local.programs import of_major
from aiprod_ops.domain.backups import Backup, Origin, successful
from aiprod_ops.domain.instances import Setup, Setups
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import Failed, Held, OpsError, PermissionMissing, Refused, TimedOut, Unreachable, Untried
from aiprod_ops.ports import Clock, Database, Kept, Migrations, Operations, Restored
from aiprod_ops.units import Bytes, Seconds

LABEL = "aiprod-ops-copy"  #: of an instance that may be deleted when its run is no more; the value is the run
PREFIX, AGAIN = "ops-", "ops2-"  #: a clone takes no label of its own at first: its name tells, too
_DELETIONS = 3
_UNHINDERED = "-c default_transaction_read_only=off"  #: what a role or a database forbids is no fault of the copy
_ANSWERS = Seconds(60)  #: an instance that is RUNNABLE answers within this time


@dataclass(frozen=True)
class Place:
    """Where an instance is: its project, its name, and an endpoint that is Google's unless it is said. `ways` are the
    host and the port, as a DSN has them, of instances that are not reached at the address that the API tells."""

    project: str
    instance: str
    endpoint: str = ""
    ways: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Made:
    """What a new instance was made of: '' and None where it is the running one's clone. And in words."""

    backup: str = ""
    until: datetime | None = None
    said: str = ""


class CloudSqlPlatform:
    """`dsn` leads to the target, and with another host to its copies; `connect` opens a session with a DSN, `reach` one
    that reads, with the host and the port of a DSN."""

    def __init__(
        self,
        place: Place,
        dsn: str,
        connect: Callable[[str], Database],
        reach: Callable[[str], Database],
        clock: Clock,
        *,
        database: str,
        longest: Seconds,
        operations: Operations,
        postgres_bin: Path | None = None,
    ) -> None:
        self._database = database
        self._place, self._dsn, self._connect, self._reach, self._clock = place, dsn, connect, reach, clock
        self._longest, self._operations, self._postgres_bin = longest, operations, postgres_bin
        self._reading = CloudSqlAdmin(place.project, endpoint=place.endpoint, writes=False)
        self._standing: dict[str, str] = {}  # DSNs of copies that answer

    @cached_property
    def cluster(self) -> CloudSqlCluster:
        return CloudSqlCluster(
            self._place.instance, self._reading, lambda: self._calls, self._clock, self._reach, self._place.ways,
            self._longest,
        )  # fmt: skip

    @cached_property
    def zones(self) -> CloudSqlZones:
        return CloudSqlZones(lambda: self.cluster.names[0], self._reading, lambda: self._calls, self._clock)

    @property
    def database(self) -> str:
        return self._database

    def setups(self) -> Setups:
        """As the Admin API reports. A replica that the instance names and the list does not has nothing told."""
        listed = {each.name: each for each in self._reading.instances()}
        main = listed.get(self._place.instance) or self._reading.instance(self._place.instance)
        replicas = {name: Setup() for name in main.replicas}
        replicas |= {each.name: each.setup for each in listed.values() if each.primary == main.name}
        return Setups(main.name, main.setup, replicas, main.dr_replica)

    @cached_property
    def backups(self) -> CloudSqlBackups:
        return CloudSqlBackups(self._place.instance, self._reading, lambda: self._calls)

    @cached_property
    def _calls(self) -> Calls:
        """With the right to change something: not made before it is needed."""
        admin = CloudSqlAdmin(self._place.project, endpoint=self._place.endpoint)
        return Calls(admin, self._clock, self._longest, self._operations)

    @contextmanager
    def copy(
        self, name: str, report: Callable[[str], None] = lambda _: None, origin: Origin | None = None
    ) -> Iterator[tuple[Database, Restored]]:
        """Clone the instance, or restore one of its backups into a new one; it is deleted when the context ends.

        Raises Untried where the API makes no copy, which says nothing of the backup; Failed where it says that it has
        made one, and that one does not answer.
        """
        copy, started = f"{PREFIX}{name}".lower(), time.monotonic()
        try:
            with _untried():
                try:
                    of = self._made(copy, name, report, origin)
                except OperationFailed as error:  # an INTERNAL_ERROR is mostly Google's own, and does not come again
                    report(f"{error.message}; once more, with a fresh instance")
                    self._removed(copy, report)
                    copy = f"{AGAIN}{name}".lower()
                    of = self._made(copy, name, report, origin)
                made = Seconds(time.monotonic() - started)
                instance = self._calls.admin.instance(copy)
            where = {"host": instance.host, "port": str(instance.port), "dbname": self._database}
            given = parse_dsn(self._dsn)
            options = f"{given.get('options', '')} {_UNHINDERED}".strip()
            dsn = make_dsn(**{**given, **where, "options": options})
            database = self._answering(copy, dsn)
            try:
                self._standing[name] = dsn
                took = Seconds(time.monotonic() - started)
                phases = {"restore": made, "first answer": Seconds(took - made)}
                size = Bytes(int(database.query(_SIZE)[0]["size"]))
                yield database, Restored(name, took, size, (of.said,), of.backup, phases, until=of.until)
            finally:
                database.close()
        finally:
            self._standing.pop(name, None)
            self._removed(copy, report)

    def _made(self, copy: str, run: str, report: Callable[[str], None], origin: Origin | None) -> _Made:
        """Without an origin a clone of what runs, which says nothing of its backups. With one a backup by its id, or
        the newest with the WAL after it, up to a moment: as far as it can be recovered where none is named.

        A clone with a point in time is no copy of the running disk: Google restores the newest backup from before it
        and replays the archived WAL, into an instance of its own.
        Source: https://docs.cloud.google.com/sql/docs/postgres/backup-recovery/pitr
        """
        admin, source = self._calls.admin, self._calls.admin.instance(self._place.instance)
        at = None if origin is None else origin.at or (None if origin.backup else self._latest(source))
        if origin is not None and at is None:
            return self._from_backup(copy, run, report, source, self._chosen(origin))
        if origin is not None and origin.at is not None:
            self._refuse_unreachable(source, origin.at)
        rests_on = None if at is None else self._before(at)
        if origin is not None and origin.backup and (rests_on is None or rests_on.id != origin.backup):
            raise Refused(
                f"Google restores {rests_on.id if rests_on else 'another backup'} for this moment, not {origin.backup}",
                hint="leave out --backup or --at",
            )
        begin = lambda: admin.clone(source.name, copy, at=at)  # noqa: E731
        self._calls.done(begin, "CLONE", copy, report)
        mine = Settings(deletion_protected=False, labels={LABEL: run})
        self._calls.done(lambda: admin.patch(copy, mine), "UPDATE", copy, report)
        if rests_on is None or at is None:
            return _Made(said=f"cloned from {source.name}{f' as of {at.isoformat()}' if at else ''}")
        said = f"cloned from {source.name} as of {at.isoformat()}: its backup {rests_on.id} and the WAL after it"
        return _Made(rests_on.id, at, said)

    def _from_backup(
        self, copy: str, run: str, report: Callable[[str], None], source: Instance, backup: Backup
    ) -> _Made:
        """A backup alone: no WAL takes it further than its own end."""
        new = NewInstance(copy, source.version, source.region, settings=_like(source, run))
        self._calls.done(lambda: self._calls.admin.insert(new), "CREATE", copy, report)
        report(f"restoring the backup {backup.id}")
        begin = lambda: self._calls.admin.restore(copy, backup.id, source.name)  # noqa: E731
        self._calls.done(begin, "RESTORE_VOLUME", copy, report)
        return _Made(backup.id, backup.taken, f"restored from the backup {backup.id} of {source.name}")

    def _refuse_unreachable(self, source: Instance, at: datetime) -> None:
        """Raises Refused for a moment that Google cannot recover to."""
        window = self._reading.recovery_window(source.name) if source.backups.point_in_time else None
        first, last = (window.earliest, window.latest) if window else (None, None)
        if (first and at < first) or (last and at > last):
            raise Refused(
                f"{source.name} can be recovered to moments from {first or 'its first backup'} to {last or 'now'}, "
                f"{at.isoformat(' ', 'seconds')} was asked for",
                hint="ask for one of these",
            )

    def _latest(self, source: Instance) -> datetime | None:
        """The newest moment that can be recovered; None where no WAL is kept."""
        window = self._reading.recovery_window(source.name) if source.backups.point_in_time else None
        return window.latest if window else None

    def _before(self, at: datetime) -> Backup | None:
        """The backup that a moment is recovered from: the newest that had ended, as Google's documentation has it."""
        return next((each for each in reversed(successful(self.backups.listed())) if each.taken <= at), None)

    def _chosen(self, origin: Origin) -> Backup:
        good = successful(self.backups.listed())
        if origin.backup and origin.backup not in {each.id for each in good}:
            known = ", ".join(each.id for each in good[-3:]) or "none"
            raise Refused(f"there is no backup {origin.backup} of {self._place.instance}", hint=f"the newest: {known}")
        if not good:
            raise Refused(f"{self._place.instance} has no backup", hint="take one: aiprod-ops plan take-backup")
        return next((each for each in good if each.id == origin.backup), good[-1])

    def _answering(self, copy: str, dsn: str) -> Database:
        """A session with the copy. RUNNABLE is no proof that it serves: raises Failed where it does not answer.

        That disproves the backup: Google says that it is restored, and nobody could work with it. Could it not be
        reached from here, no copy could ever be: that shows at the first proof, and a backup that does not start must
        never be taken for a network's trouble.
        """
        until = self._clock.monotonic() + min(_ANSWERS, self._longest)
        while True:
            database = self._connect(dsn)
            try:
                database.server()
            except Unreachable as error:
                database.close()
                if self._clock.monotonic() > until:
                    raise Failed(
                        f"the API says that {copy} is there, but it does not answer: {error.message}"
                    ) from error
                self._clock.sleep(Seconds(1))
            else:
                return database

    def _removed(self, copy: str, report: Callable[[str], None]) -> None:
        """Delete a copy, if it is there, trying more than once: it costs money. One that cannot be deleted now is told,
        and the next run finds it."""
        for left in reversed(range(_DELETIONS)):
            try:
                return self._delete(copy, report)
            except OpsError as error:
                if not left or isinstance(error, Refused | PermissionMissing):
                    report(f"the copy {copy} is left, and costs money until the next run removes it: {error.message}")
                    return None
            self._clock.sleep(Seconds(2))
        return None

    def _delete(self, copy: str, report: Callable[[str], None]) -> None:
        found = self._calls.admin.find(copy)
        if found is None:
            return
        if found.deletion_protected:
            off = Settings(deletion_protected=False)
            self._calls.done(lambda: self._calls.admin.patch(copy, off), "UPDATE", copy, report)
        self._calls.done(lambda: self._calls.admin.delete(copy), "DELETE", copy, report)

    def damage(self, name: str, beside: Sequence[Name] = ()) -> list[str]:
        """What pg_amcheck finds, from here: it needs PostgreSQL's programs, and a role that may read all."""
        database = self._connect(self._standing[name])
        try:
            version = database.server().version
        finally:
            database.close()
        return amcheck(of_major(version // 10000, self._postgres_bin), self._standing[name], beside)

    def control(self, name: str) -> dict[str, str]:  # noqa: ARG002
        """No byte of an instance, or of a backup, can be reached: whether amcheck notices damage is not shown here."""
        return {}

    def sweep(self, is_alive: Callable[[str], bool | None]) -> list[str]:
        """Delete copies whose run is not alive any more: what they are doing comes to its end first."""
        oldest = self._clock.now() - timedelta(seconds=2 * self._longest)

        def is_dead(copy: Instance) -> bool:
            alive = is_alive(_run(copy))
            # A run that has no journal here may be another machine's: then only its age tells.
            return copy.created is not None and copy.created < oldest if alive is None else not alive

        dead = [each for each in self._reading.instances() if _run(each) and is_dead(each)]
        gone: list[str] = []
        for each in dead:
            try:
                self._calls.wait_for_others(each.name)
            except Held:
                continue
            self._removed(each.name, lambda _: None)
            gone.append(_run(each))
        return gone

    def attach(self, operation: str, report: Callable[[str], None]) -> None:
        self._calls.attach(operation, report)

    def free(self) -> Bytes | None:
        """Nobody tells how full the disk of an instance is but Cloud Monitoring."""
        return None

    def migrated(self, migrations: Migrations, known: Kept | None, timeout: Seconds) -> Kept:
        return scripts.current(migrations, known, self._postgres_bin, self._connect, timeout)


_SIZE = "select sum(pg_database_size(oid))::bigint as size from pg_database where datallowconn /* aiprod-ops */"


def _run(instance: Instance) -> str:
    """The run that an instance is a copy of; '' where it is none. The name counts as well: a clone may have died
    before it had its label."""
    if LABEL in instance.labels:
        return instance.labels[LABEL]
    prefix, _, name = instance.name.partition("-")
    return name if f"{prefix}-" in (PREFIX, AGAIN) and name[:8].isdigit() else ""


@contextmanager
def _untried() -> Iterator[None]:
    """What the API does not do, or not in time, says nothing of a backup."""
    try:
        yield
    except (Failed, TimedOut) as error:
        raise Untried(error.message, hint=error.hint) from error


def _like(source: Instance, run: str) -> Settings:
    """As large as its source, without backups and protection of its own."""
    return Settings(
        tier=source.tier or None,
        edition=source.edition or None,
        availability="ZONAL",
        disk_gb=source.disk_gb or None,
        deletion_protected=False,
        labels={LABEL: run},
        flags=source.flags or None,
        backups_enabled=False,
        private_network=source.network or None,
        public_address=None if not source.network else False,
    )
