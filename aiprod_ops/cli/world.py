"""Building the world of a command: settings, adapters, identities. Adapters are made here and handed inward."""

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from aiprod_ops import config
from aiprod_ops.cli.options import Where, pasteable
from aiprod_ops.cli.redaction import has_password, learn
from aiprod_ops.config import Settings, Target
from aiprod_ops.engine import registry
from aiprod_ops.engine.registry import Entry
from aiprod_ops.errors import ConfigurationError, OpsError, UsageError
from aiprod_ops.ports import Database, Delivery, Operations, Platform, Store
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
    dsn, longest = target.dsn(identity), seconds(settings.promises.get("backups.longest"))

    def connect(to: str) -> Database:
        from aiprod_ops.adapters.postgres.database import PostgresDatabase

        return PostgresDatabase(to, writes=True, application_name="aiprod-ops copy", identity=identity)

    if target.platform == "cloudsql":
        return _cloudsql(target, dsn, connect, longest, operations)
    if target.platform != "local":
        known = "local, cloudsql"
        raise ConfigurationError(f"target {target.name!r} names the platform {target.platform!r}; there are: {known}")
    return LocalPlatform(
        backup=dsn,
        database=_database(target),
        copies=Path(target.copies or settings.state / "copies"),
        connect=connect,
        postgres_bin=Path(target.postgres_bin) if target.postgres_bin else None,
        data_directory=Path(target.data_directory) if target.data_directory else None,
        longest=longest,
        known=settings.state / "sources" / f"{quote(target.name, safe='@:')}.json",
        repository=_repository(target, dsn) if target.backups else None,
    )


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
    return CloudSqlPlatform(
        Place(target.project, target.instance, target.endpoint),
        dsn,
        connect,
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
        context = Context(
            probe, target, platform_of(settings, target, operations), SystemClock(), settings.promises, report,
            history_of(store, target.name, settings.promises), replicas, settings.waivers,
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
            for database in (probe, *replicas.values()):
                database.close()


def _delivery(target: Target, probe: Database) -> Delivery | None:
    from aiprod_ops.adapters.local.delivery import MigrationsFolder

    if not target.migrations:
        return None
    return MigrationsFolder(Path(target.migrations), lambda: set(probe.schema().revision.split(",")))
