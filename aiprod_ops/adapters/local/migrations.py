"""What an Alembic versions folder declares, found out by running it on a scratch server, and when that still holds."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import complaint, of_major
from aiprod_ops.adapters.local.scratch import scratch, sweep
from aiprod_ops.adapters.postgres.catalog import statement
from aiprod_ops.domain.catalogue.drift import Migrated, Step
from aiprod_ops.domain.plans import digest
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import ConfigurationError, Failed, TimedOut
from aiprod_ops.ports import Database, Kept, Migrations
from aiprod_ops.units import Seconds

Connect = Callable[[str], Database]

_ENGINES = ("aiprod-ops", "alembic", "sqlalchemy", "psycopg2-binary")
_RACY_NS = 100_000_000  #: a file's time is the kernel's last tick
_LONGEST = 500  #: characters of a complaint that are shown


def inputs(migrations: Migrations, postgres_bin: Path | None) -> str:
    """A digest of all that the result follows from, but for files elsewhere that are known only after a run.

    Raises ConfigurationError when the folder cannot be read.
    """
    folder = Path(migrations.folder)
    try:
        files = {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}
    except OSError as error:
        raise ConfigurationError(f"cannot read the migrations in {folder}: {error.strerror}") from error
    engines = {name: metadata.version(name) for name in _ENGINES}
    return digest([migrations, files, engines, sys.version, str(postgres_bin)])


def holds(known: Kept, inputs: str) -> bool:
    """Whether nothing that a result followed from has changed since."""
    return known.inputs == inputs and all(_signature(path) == seen for path, seen in known.files.items())


def current(
    migrations: Migrations, known: Kept | None, postgres_bin: Path | None, connect: Connect, timeout: Seconds
) -> Kept:
    """What the migrations declare; `known` again where nothing has changed since."""
    sweep()
    digest = inputs(migrations, postgres_bin)
    if known is not None and holds(known, digest):
        return known
    return run(migrations, postgres_bin, connect, timeout)


def run(migrations: Migrations, postgres_bin: Path | None, connect: Connect, timeout: Seconds) -> Kept:
    """Run the migrations on a scratch server and read what came of it. Raises Failed, TimedOut, ConfigurationError."""
    if not Path(migrations.folder).is_dir():
        raise ConfigurationError(f"there is no folder {migrations.folder}", hint="`migrations` of the target names it")
    programs = of_major(migrations.major, postgres_bin)
    before, started = inputs(migrations, postgres_bin), time.time_ns() - _RACY_NS
    with scratch(programs) as server:
        _prepare(server, migrations, connect)
        steps, read = _migrate(server, migrations, timeout)
        database = connect(server.dsn("postgres", migrations.database))
        try:
            migrated = _read(database, steps)
        finally:
            database.close()
    own = f"{Path(migrations.folder).resolve()}/"
    read = [path for path in read if not os.path.realpath(path).startswith(own)]
    files = {path: _signature(path) for path in (*read, str(programs.bin / "postgres"))}
    # What was changed while it ran may have been seen before or after: such a result is never used again.
    is_stable = inputs(migrations, postgres_bin) == before and not any(_is_since(path, started) for path in files)
    return Kept(before if is_stable else "", files, migrated)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _signature(path: str) -> str:
    """What changes when a file does, as make and git look at it; empty where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _is_since(path: str, time_ns: int) -> bool:
    # The time of change cannot be set back, as the time of modification can.
    return Path(path).exists() and Path(path).stat().st_ctime_ns >= time_ns


def _prepare(server: PostgresServer, migrations: Migrations, connect: Connect) -> None:
    """Give the server what migrations take for granted: roles, and the database with its search path and extensions."""
    cluster = connect(server.dsn("postgres", "postgres"))
    try:
        for role in migrations.roles:
            cluster.execute("CREATE ROLE {role} NOLOGIN", names={"role": role})
        if migrations.database != "postgres":
            cluster.execute("CREATE DATABASE {database}", names={"database": migrations.database})
        path = {f"schema{number}": schema for number, schema in enumerate(migrations.search_path)}
        if path:
            set_path = "ALTER DATABASE {database} SET search_path = " + ", ".join(f"{{{key}}}" for key in path)
            cluster.execute(set_path, names={"database": migrations.database, **path})
    finally:
        cluster.close()
    _furnish(server, migrations, connect)


def _furnish(server: PostgresServer, migrations: Migrations, connect: Connect) -> None:
    """Make the schemas of the search path and the extensions that no migration makes: somebody else made them there."""
    text = "\n".join(path.read_text("utf-8", "replace") for path in _files(Path(migrations.folder)))
    schemas = [name for name in migrations.search_path if not _makes(text, "SCHEMA", name)]
    database = connect(server.dsn("postgres", migrations.database))
    try:
        for schema in schemas:
            database.execute("CREATE SCHEMA IF NOT EXISTS {schema}", names={"schema": schema})
        for extension, schema in migrations.extensions.items():
            if schema == "pg_catalog" or _makes(text, "EXTENSION", extension):
                continue
            names = {"extension": extension, "schema": schema}
            with suppress(Failed):  # it is not here, or not without its library: a migration that needs it will say so
                database.execute("CREATE SCHEMA IF NOT EXISTS {schema}", names=names)
                database.execute("CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA {schema}", names=names)
    finally:
        database.close()


def _makes(text: str, what: str, name: str) -> bool:
    """Whether migrations make something of this name, as SQL or as SQLAlchemy's CreateSchema, as far as text tells."""
    made = "\n".join(re.findall(rf"CREATE\s*{what}\b[^;\n]*", text, re.IGNORECASE))
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", made) is not None


def _migrate(server: PostgresServer, migrations: Migrations, timeout: Seconds) -> tuple[tuple[Step, ...], list[str]]:
    """Run the process `migrating`; the steps that it made and the files that it read."""
    home = server.data.parent
    report = home / "report.jsonl"
    report.touch(mode=0o600)
    dsn = server.dsn("postgres", migrations.database)
    arguments = [migrations.folder, str(report), dsn, str(timeout)]
    # PYTHONUSERBASE follows from the home directory, and it may be where this package is.
    base = str(sysconfig.get_config_var("userbase"))
    env = {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home), "PYTHONUSERBASE": base}
    try:
        done = processes.run(
            [sys.executable, "-P", "-m", "aiprod_ops.adapters.local.migrating", *arguments],
            cwd=home,
            env=env,
            timeout=Seconds(timeout + 5),
            inherits=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_long(_lines(report), migrations, timeout) from error
    lines = _lines(report)
    if done.returncode == -signal.SIGALRM:
        raise _too_long(lines, migrations, timeout)
    said = {key: value for line in lines for key, value in line.items()}
    if "done" not in said:
        ending = f"it ended the process (exit {done.returncode}): {complaint(done.stderr)}"
        why = str(said.get("failed", ending))
        raise Failed(f"{_where(said, migrations)} does not run on an empty server: {_short(why)}", hint=_hint(why))
    return tuple(msgspec.convert(line["step"], Step) for line in lines if "step" in line), said["done"]


def _lines(report: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in report.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]


def _where(said: dict[str, Any], migrations: Migrations) -> str:
    return f"revision {said['begin']}" if "begin" in said else f"the migrations folder {migrations.folder}"


def _too_long(lines: list[dict[str, Any]], migrations: Migrations, timeout: Seconds) -> TimedOut:
    said = {key: value for line in lines for key, value in line.items()}
    return TimedOut(f"{_where(said, migrations)} did not end on an empty server within {timeout:g} s")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _hint(why: str) -> str:
    if "ModuleNotFound" in why:
        return "install what the migrations import beside aiprod-ops"
    if "extension" in why:
        return "name PostgreSQL programs that have this extension with `postgres_bin`"
    return ""


def _read(database: Database, steps: tuple[Step, ...]) -> Migrated:
    """The schema that came of it, without the tables of extensions: no migration declares their indexes."""
    others = {Name(row["schema"], row["table"]) for row in database.query(statement("extension_tables"))}
    schema = database.schema()
    tables = tuple(table for table in schema.tables if table.name not in others)
    return Migrated(replace(schema, tables=tables), database.server().version, steps)
