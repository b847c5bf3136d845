"""Building the world of a command: settings, adapters, identities. Adapters are made here and handed inward."""

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aiprod_ops import config
from aiprod_ops.cli.options import Where, pasteable
from aiprod_ops.cli.redaction import has_password, learn, learn_secret
from aiprod_ops.config import PatroniPlace, Settings, Target
from aiprod_ops.engine import registry
from aiprod_ops.engine.registry import Entry
from aiprod_ops.errors import ConfigurationError, OpsError, UsageError
from aiprod_ops.ports import Cluster, Database, Delivery, Endpoint, Operations, Platform, Store
from aiprod_ops.units import Seconds, seconds

if TYPE_CHECKING:
    from aiprod_ops.adapters.local.repository import Repository


def version() -> str:
    """The installed version."""
    return metadata.version("aiprod-ops")


def who() -> str:
    """The person at the terminal: user and host."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def settings_of(where: Where) -> Settings:
    """The settings, with what the command line adds."""
    settings = config.load(where.config)
    if where.target == "lab" and "lab" not in settings.targets and not where.config:
        settings = config.load_lab() or settings  # the lab is always called so, whatever else is configured
    return replace(settings, runbook_folders=(*settings.runbook_folders, *where.runbooks))


def entries_of(where: Where) -> dict[str, Entry]:
    """All runbooks this command line can see."""
    return registry.find(settings_of(where).runbook_folders)


def store_of(where: Where) -> Store:
    """Where plans, journals and evidence are."""
    return _store(settings_of(where))


def _store(settings: Settings) -> Store:
    """A folder, or what the caller of the command line handed in (`cli.call`)."""
    from aiprod_ops.adapters.files import FolderStore

    context = click.get_current_context(silent=True)
    made: Store = ((context and context.obj) or FolderStore)(settings.state)
    return made


def target_of(settings: Settings, where: Where) -> Target:
    """The target the command line means."""
    if where.dsn and where.target:
        raise UsageError("--target and --dsn are two ways to name the instance", hint="give one of them")
    if not where.dsn:
        target = settings.target(where.target)
        return replace(
            target, log=where.log or target.log, postgres_bin=where.postgres_bin or target.postgres_bin,
            actor=where.actor_dsn or target.actor, backup=where.backup_dsn or target.backup,
        )  # fmt: skip
    if has_password(where.dsn) and where.dsn != os.environ.get("AIPROD_OPS_DSN"):
        click.echo("a password on the command line can be read by every user of this machine (process list);"
                   " put it into ~/.pgpass or $AIPROD_OPS_DSN", err=True)  # fmt: skip
    return Target(
        name=_dsn_name(where.dsn),
        probe=where.dsn,
        actor=where.actor_dsn,
        backup=where.backup_dsn,
        log=where.log,
        postgres_bin=where.postgres_bin,
        copies=str(settings.state / "copies"),
    )


def _dsn_name(dsn: str) -> str:
    from aiprod_ops.adapters.postgres.dsn import target

    parts = target(dsn, "probe").parameters
    return f"{parts.get('dbname', '')}@{parts.get('host', 'local')}:{parts.get('port', '5432')}"


def _connect(target: Target, identity: str, name: str) -> Database:
    from aiprod_ops.adapters.postgres.database import PostgresDatabase

    dsn = target.dsn(identity)
    learn(dsn)
    return PostgresDatabase(dsn, writes=identity == "actor", application_name=name, log=target.log)


def _replicas(target: Target) -> dict[str, Database]:
    """The target's other nodes, by host and port. They connect when they are first asked."""
    named = {_dsn_name(dsn).partition("@")[2]: replace(target, probe=dsn) for dsn in target.replicas}
    return {name: _connect(each, "probe", "aiprod-ops") for name, each in named.items()}


def platform_of(settings: Settings, target: Target, operations: Operations) -> Platform:
    """The platform that a target is on."""
    from aiprod_ops.adapters.local.platform import LocalPlatform

    identity = next(name for name in ("backup", "actor", "probe") if getattr(target, name))
    longest = seconds(settings.promises.get("backups.longest"))

    def connect(to: str) -> Database:
        from aiprod_ops.adapters.postgres.database import PostgresDatabase

        return PostgresDatabase(to, writes=True, application_name="aiprod-ops copy", identity=identity)

    if target.platform == "cloudsql":
        return _cloudsql(target, target.dsn(identity), connect, longest, operations)
    if target.platform != "local":
        known = "local, cloudsql"
        raise ConfigurationError(f"target {target.name!r} names the platform {target.platform!r}; there are: {known}")
    return LocalPlatform(
        backup=lambda: target.dsn(identity),
        database=_database(target),
        copies=Path(target.copies or settings.state / "copies"),
        connect=connect,
        postgres_bin=Path(target.postgres_bin) if target.postgres_bin else None,
        data_directory=Path(target.data_directory) if target.data_directory else None,
        longest=longest,
        cluster=_cluster(target),
        known=settings.state / "sources" / f"{quote(target.name, safe='@:')}.json",
        repository=_repository(target, target.dsn(identity)) if target.backups else None,
    )


def _cluster(target: Target) -> Cluster | None:
    from aiprod_ops.adapters.local.cluster import LocalCluster
    from aiprod_ops.adapters.local.instance import PostgresServer
    from aiprod_ops.adapters.local.members import Member
    from aiprod_ops.adapters.local.programs import find
    from aiprod_ops.adapters.postgres.dsn import target as read

    if target.patroni is not None:
        return _patroni(target, target.patroni)
    if not target.servers:
        return None

    def admin_of(to: str) -> Database:
        from aiprod_ops.adapters.postgres.database import PostgresDatabase

        return PostgresDatabase(to, writes=True, application_name="aiprod-ops", identity="admin")

    programs = find(Path(target.postgres_bin) if target.postgres_bin else None)
    members = {}
    for name, place in target.servers.items():
        admin, data = read(place.admin, f"admin of {name}"), Path(place.data_directory)
        if has_password(place.upstream):
            raise ConfigurationError(
                f"target {target.name!r}: upstream of {name} has a password, which the server would write to its log",
                hint="upstream = \"user=replicator passfile='/etc/aiprod/replication.pgpass'\"",
            )
        if has_password(place.admin):
            learn(place.admin)
        log = Path(place.log) if place.log else data.with_name(f"{data.name}.log")
        sockets = Path(admin.host) if admin.host.startswith("/") else data  # of a server that is reached by TCP: unused
        server = PostgresServer(programs, data, sockets, int(admin.port or 5432), log)
        members[name] = Member(name, server, place.admin, place.upstream)
    return LocalCluster(members, admin_of)


def _patroni(target: Target, place: PatroniPlace) -> Cluster:
    """It reads the servers with the probe identity: what changes something is Patroni."""
    from aiprod_ops.adapters.patroni.api import PatroniApi
    from aiprod_ops.adapters.patroni.cluster import PatroniCluster, address

    def login() -> tuple[str, str]:
        if not place.user:
            return "", ""
        secret = place.secret()
        learn_secret(secret)
        return place.user, secret

    urls = {name: member.api.rstrip("/") for name, member in place.members.items()}
    places = {name: (address(urls[name]), address(f"//{member.postgres}")) for name, member in place.members.items()}
    ways = _patroni_places(place)
    return PatroniCluster(
        places,
        PatroniApi(urls, login, ca=place.ca),
        lambda name: _reach(target, ways[name]),
        watchdog=place.watchdog,
    )


def _patroni_places(place: PatroniPlace) -> dict[str, str]:
    """Host and port of each member's server, as a DSN has them."""
    from aiprod_ops.adapters.patroni.cluster import address

    found = {name: address(f"//{member.postgres}") for name, member in place.members.items()}
    return {name: f"host={host} port={port}" for name, (host, port) in found.items()}


def _reach(target: Target, place: str) -> Database:
    """A session with the probe identity, with the host and the port of another DSN."""
    from aiprod_ops.adapters.postgres.dsn import at

    return _connect(replace(target, probe=at(target.dsn("probe"), place)), "probe", "aiprod-ops")


class _Nodes(Mapping[str, Database]):
    """Each server of a target by its name, with the probe identity. Where an API tells them it is asked when somebody
    wants to know: most commands do not."""

    def __init__(self, target: Target, places: Callable[[], Mapping[str, str]]) -> None:
        self._target, self._places = target, places
        self._known: dict[str, Database] | None = None

    def _all(self) -> dict[str, Database]:
        if self._known is None:
            self._known = {name: _reach(self._target, place) for name, place in self._places().items()}
        return self._known

    def __getitem__(self, name: str) -> Database:
        """One that is not known may have been made since."""
        known = self._all()
        if name not in known:
            new = {each: place for each, place in self._places().items() if each not in known}
            known.update({each: _reach(self._target, place) for each, place in new.items()})
        return known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def close(self) -> None:
        for database in (self._known or {}).values():
            database.close()


def _nodes(target: Target, platform: Platform) -> _Nodes:
    if target.platform == "cloudsql":
        from aiprod_ops.adapters.cloudsql.platform import CloudSqlPlatform

        if isinstance(platform, CloudSqlPlatform):
            return _Nodes(target, platform.cluster.places)
    if target.patroni is not None:
        places = _patroni_places(target.patroni)
        return _Nodes(target, lambda: places)
    return _Nodes(target, lambda: {name: place.admin for name, place in target.servers.items()})


def _endpoint(target: Target) -> Endpoint | None:
    from aiprod_ops.adapters.endpoints import Commands, PgBouncer

    if target.writes is None:
        return None
    if target.writes.pgbouncer:
        return PgBouncer(target.writes.pgbouncer, Path(target.writes.file), target.writes.database)
    return Commands(target.writes.show, target.writes.point)


def _cloudsql(
    target: Target, dsn: str, connect: Callable[[str], Database], longest: Seconds, operations: Operations
) -> Platform:
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.adapters.cloudsql.platform import CloudSqlPlatform, Place

    if not (target.project and target.instance):
        raise ConfigurationError(
            f"target {target.name!r} is on Cloud SQL, but names no instance there",
            hint='add project = "…" and instance = "…" to its configuration',
        )
    ways = {name: place.admin for name, place in target.servers.items()}
    return CloudSqlPlatform(
        Place(target.project, target.instance, target.endpoint, ways),
        dsn,
        connect,
        lambda place: _reach(target, place),
        SystemClock(),
        database=_database(target),
        longest=longest,
        operations=operations,
        postgres_bin=Path(target.postgres_bin) if target.postgres_bin else None,
    )


def _repository(target: Target, backup: str) -> "Repository":
    from aiprod_ops.adapters.local.base_backups import version_of
    from aiprod_ops.adapters.local.folder_repository import FolderRepository
    from aiprod_ops.adapters.local.programs import find, of_major
    from aiprod_ops.adapters.postgres.dsn import without_password

    if target.backups.startswith(config.PGBACKREST):
        from aiprod_ops.adapters.pgbackrest.program import Program
        from aiprod_ops.adapters.pgbackrest.repository import PgBackRest

        return PgBackRest(Program(target.backups.removeprefix(config.PGBACKREST)))
    place = Path(target.postgres_bin) if target.postgres_bin else None
    major = version_of(Path(target.backups))
    programs = of_major(major, place) if major else find(place)
    archive = Path(target.archive) if target.archive else None
    dsn, env = without_password(backup)
    return FolderRepository(programs, Path(target.backups), archive, dsn, env)


def _database(target: Target) -> str:
    from aiprod_ops.adapters.postgres.dsn import target as read

    return str(read(target.dsn("probe"), "probe").parameters.get("dbname", ""))


@contextmanager
def open_world(where: Where, *, why: str = "", trigger: str = "command", quiet: bool = False) -> Iterator[Any]:
    """A World on the target the command line means; its probe session is closed at the end."""
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli.progress import Progress
    from aiprod_ops.engine.history import history_of
    from aiprod_ops.engine.journal import OperationLog
    from aiprod_ops.engine.runbook import Context
    from aiprod_ops.engine.world import World

    settings = settings_of(where)
    target = target_of(settings, where)
    probe = _connect(target, "probe", "aiprod-ops")
    replicas = _replicas(target)
    with Progress(quiet=quiet) as report:
        store, operations = _store(settings), OperationLog()
        platform = platform_of(settings, target, operations)
        nodes = _nodes(target, platform)
        context = Context(
            probe, target, platform, SystemClock(), settings.promises, report,
            history_of(store, target.name, settings.promises), replicas, nodes, _endpoint(target), settings.waivers,
        )  # fmt: skip
        try:
            yield World(
                context=context,
                store=store,
                open_actor=lambda run: _connect(target, "actor", f"aiprod-ops {run}"),
                open_probe=lambda: _connect(target, "probe", "aiprod-ops watch"),
                by=who(),
                version=version(),
                why=why,
                trigger=trigger,
                delivery=_delivery(target, probe),
                operations=operations,
            )
        except OpsError as error:
            # The next command has to find the same instance.
            error.hint = pasteable(error.hint, where)
            raise
        finally:
            nodes.close()
            for database in (probe, *replicas.values()):
                database.close()


def _delivery(target: Target, probe: Database) -> Delivery | None:
    from aiprod_ops.adapters.local.delivery import MigrationsFolder

    if not target.migrations:
        return None
    return MigrationsFolder(Path(target.migrations), lambda: set(probe.schema().revision.split(",")))
