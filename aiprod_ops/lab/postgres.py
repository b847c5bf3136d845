"""The lab's PostgreSQL: settings, roles and passwords, migration and load, primary and replicas."""

import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection, encrypt_password

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import complaint
from aiprod_ops.errors import ConfigurationError, Failed
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab.data import TABLES, Scale
from aiprod_ops.units import Seconds

if TYPE_CHECKING:
    from alembic.config import Config

DATABASE = "aiprod"
REPLICAS = ("replica1", "replica2")
LOADERS = (("jobs",), ("users", "api_keys", "results", "pipeline_jobs"))  #: about the same work each

#: role → options. Passwords are generated; `aiprod_owner` owns the schema and cannot log in.
ROLES = {
    "postgres": "SUPERUSER LOGIN",
    "aiprod_owner": "NOLOGIN",
    "aiprod_actor": "LOGIN",
    "aiprod_probe": "LOGIN",
    "aiprod_app": "LOGIN",
    "aiprod_backup": "LOGIN REPLICATION",
}
#: In the database, before the schema exists. The probe reads the server's log by SQL.
GRANTS = """
    GRANT aiprod_owner, pg_monitor, pg_signal_backend TO aiprod_actor;
    GRANT pg_monitor, pg_read_all_data TO aiprod_probe;
    GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO aiprod_probe;
    ALTER DEFAULT PRIVILEGES FOR ROLE aiprod_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aiprod_app;
    CREATE EXTENSION pg_stat_statements;
    CREATE EXTENSION pgstattuple;
    CREATE EXTENSION amcheck;
    GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO aiprod_probe;
"""

#: A load that is begun again after a crash needs neither durability nor WAL.
LOADING: dict[str, str | int] = {
    "listen_addresses": "",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "dynamic_shared_memory_type": "mmap",
}
SERVING: dict[str, str | int] = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "max_prepared_transactions": 10,
    "wal_keep_size": "256MB",
    "max_slot_wal_keep_size": "2GB",  # a replica that is stopped for a drill must not fill the disk
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby": "on",
    "archive_mode": "on",
    "archive_timeout": "30s",  # WAL that is written leaves for the archive within this time
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "max_parallel_workers_per_gather": 0,  # one statement must not take both cores of a small machine
    "dynamic_shared_memory_type": "mmap",  # below the data directory: nothing outlives a kill -9
    "shared_preload_libraries": "pg_stat_statements",
    "compute_query_id": "on",
    "track_io_timing": "on",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_min_duration_statement": 20,
    "log_parameter_max_length": -1,
    "log_lock_waits": "on",
    "log_checkpoints": "on",
}
TRUST = "local all all trust\n"  # while it is loaded, in a folder that is closed to everybody else
PASSWORDS = """\
local all         all            scram-sha-256
host  all         all            127.0.0.1/32 scram-sha-256
local replication aiprod_backup  scram-sha-256
host  replication aiprod_backup  127.0.0.1/32 scram-sha-256
"""

FOREIGN_KEYS = """
    SELECT conrelid::regclass::text AS table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
    FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conname
"""


def write_passwords(path: Path, replication: Path) -> dict[str, str]:
    """Make a password for each role that logs in; libpq reads them from these files. Answers them by role."""
    passwords = {role: secrets.token_urlsafe(24) for role, options in ROLES.items() if "NOLOGIN" not in options}
    folders.write(path, "".join(f"*:*:*:{role}:{word}\n" for role, word in passwords.items()), 0o600)
    # The replicas read theirs from a file of their own, because the server may run as another user.
    folders.write(replication, f"*:*:*:aiprod_backup:{passwords['aiprod_backup']}\n", 0o600)
    return passwords


@contextmanager
def session(dsn: str) -> Iterator[connection]:
    """A connection in autocommit mode, closed at the end."""
    try:
        opened = psycopg2.connect(dsn)
    except psycopg2.OperationalError as error:
        raise Failed(f"the lab's server does not answer: {str(error).strip()}") from error
    with closing(opened):
        opened.autocommit = True
        yield opened


def rows(dsn: str, query: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run one query and answer its rows; none where it has no result."""
    with session(dsn) as opened, opened.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall() if cursor.description else []


def create_roles(server: PostgresServer, passwords: dict[str, str]) -> None:
    """Make roles and database. The server sees only SCRAM verifiers, so no statement shows a password."""
    with session(server.dsn("postgres", "postgres")) as opened, opened.cursor() as cursor:
        for role, options in ROLES.items():
            verb = "ALTER" if role == "postgres" else "CREATE"
            statement = sql.SQL(f"{verb} ROLE {{}} {options}").format(sql.Identifier(role))
            if role in passwords:
                verifier = encrypt_password(passwords[role], role, opened, "scram-sha-256")
                statement += sql.SQL(" PASSWORD {}").format(sql.Literal(verifier))
            cursor.execute(statement)
        create = sql.SQL("CREATE DATABASE {} OWNER aiprod_owner STRATEGY file_copy")
        cursor.execute(create.format(sql.Identifier(DATABASE)))
    rows(server.dsn("postgres", DATABASE), GRANTS)


def migrate(dsn: str, revision: str, *, downgrade: bool = False) -> None:
    """Bring the schema to a revision, as its owner. Raises ConfigurationError for one that does not exist."""
    from alembic import command
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    config = _alembic(revision)
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(dsn, options="-c role=aiprod_owner"),
        poolclass=NullPool,
    )
    with engine.connect() as opened:
        config.attributes["connection"] = opened
        (command.downgrade if downgrade else command.upgrade)(config, revision)


def check_revision(revision: str) -> str:
    """The revision that a name such as `head` stands for; raises ConfigurationError for one that does not exist."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(_alembic(revision)).get_revision(revision)
    return str(found.revision)


def revisions_up_to(revision: str) -> list[Path]:
    """The files of the revisions that lead to this one: what a service of that age has in its repository."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_alembic(revision))
    return [Path(each.path) for each in script.iterate_revisions(revision, "base")]


def _alembic(revision: str) -> "Config":
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    found = find_spec("aiprod_ops.migrations")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("the package aiprod_ops.migrations is not installed", hint="pip install -e .")
    config = Config()
    place = next(iter(found.submodule_search_locations))
    config.set_main_option("script_location", place.replace("%", "%%"))
    try:
        ScriptDirectory.from_config(config).get_revisions(revision)
    except CommandError as error:
        raise ConfigurationError(f"there is no migration to {revision}: {error}") from error
    return config


def load(server: PostgresServer, scale: Scale, steps: Callable[[str], AbstractContextManager[None]]) -> None:
    """Fill the tables from two processes. Foreign keys are dropped meanwhile and validated again afterwards."""
    dsn = server.dsn("postgres", DATABASE)
    with steps("load"):
        keys = rows(dsn, FOREIGN_KEYS)
        rows(dsn, "".join(f"ALTER TABLE {table} DROP CONSTRAINT {name};" for table, name, _ in keys))
        processes.in_parallel(*(partial(_loader, server, dsn, scale, tables) for tables in LOADERS))
    with steps("foreign keys"):
        rows(dsn, "".join(f"ALTER TABLE {table} ADD CONSTRAINT {name} {text} NOT VALID;" for table, name, text in keys))
        work: dict[str, list[str]] = {table: [] for table in TABLES}
        for table, name, _ in keys:
            work[table].append(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        processes.in_parallel(*(partial(_each, dsn, [*work[table], f"VACUUM (ANALYZE) {table}"]) for table in TABLES))


def _each(dsn: str, statements: list[str]) -> None:
    with session(dsn) as opened, opened.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _loader(server: PostgresServer, dsn: str, scale: Scale, tables: tuple[str, ...]) -> None:
    arguments = [dsn, str(scale.jobs), scale.until.isoformat(), *tables]
    command = [sys.executable, "-P", "-m", "aiprod_ops.lab.load", *arguments]
    done = processes.run(command, cwd=server.data.parent, timeout=Seconds(3600))
    if done.returncode != 0:
        raise Failed(f"loading {', '.join(tables)} failed: {complaint(done.stderr)}")


def become_primary(server: PostgresServer, archive: Path) -> None:
    """Configure a loaded, stopped server for replication, and leave it stopped.

    It has to run once: a replica refuses a copy whose control file still says wal_level=minimal.
    """
    server.stop()
    archive.mkdir(mode=0o700)
    server.programs.hand_over(archive)
    server.configure({**SERVING, "archive_command": archive_command(archive)}, PASSWORDS)
    server.start()
    server.stop()


def archive_command(archive: Path) -> str:
    """Keep a segment of WAL in a folder, once, and never half of it."""
    target = f'"{archive}/%f"'
    return f'test -f {target} || {{ cp "%p" "{archive}/%f.part" && mv "{archive}/%f.part" {target}; }}'


def clone(primary: PostgresServer, replica: PostgresServer, slot: str, passfile: Path, archive: Path) -> None:
    """Make a replica from the files of a stopped primary. It archives where its primary does, once it is one."""
    shutil.copytree(primary.data, replica.data, symlinks=True, ignore=shutil.ignore_patterns("postmaster.*", "*.json"))
    upstream = conninfo(primary, "aiprod_backup", slot, passfile)
    archives = {"archive_command": archive_command(archive)}
    replica.configure({**SERVING, **archives, "primary_conninfo": upstream, "primary_slot_name": slot}, PASSWORDS)
    (replica.data / "standby.signal").touch(mode=0o600)
    replica.data.chmod(0o700)
    replica.programs.hand_over(replica.data)


def conninfo(primary: PostgresServer, user: str, slot: str, passfile: Path | None = None) -> str:
    """How a replica reaches its primary, without a password."""
    secret = f" passfile={_quoted(passfile)}" if passfile else ""
    return f"{_keywords(primary)} user={user}{secret} application_name={slot}"


def _keywords(server: PostgresServer) -> str:
    host = server.sockets if server.dsn("x", "x").find("127.0.0.1") < 0 else Path("127.0.0.1")
    return f"host={_quoted(host)} port={server.port}"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def create_slots(dsn: str) -> None:
    """One physical slot a replica: what it has not received yet is kept for it."""
    for slot in REPLICAS:
        rows(dsn, "SELECT pg_create_physical_replication_slot(%(slot)s)", {"slot": slot})
