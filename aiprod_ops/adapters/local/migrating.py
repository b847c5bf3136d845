"""The process in which the migrations run: `python -P -m …local.migrating FOLDER REPORT DSN SECONDS`.

Migrations are somebody's program. They get a process of their own with a clean environment (the caller's doing), no
network but sockets in files where Linux lets us take it away, an alarm that ends it whatever it does, and a thread
that ends it with the caller. In the new user namespace the caller's /proc/PID/environ is closed to it, too. That keeps
accidents away from production. It is no sandbox: the program still reads files as we do, and whoever can write a
migration runs it in production anyway.

The user's env.py is not run: it is what knows production. REPORT gets JSON lines: `{"begin": …}` before a revision,
`{"step": …}` after it, at last `{"done": …}` with every file that was read, or `{"failed": "why"}`.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg2
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_OWN = ("/proc/", "/sys/", "/dev/")

INDEXES = """
    SELECT /* aiprod-ops */ schemaname, indexname, indexdef FROM pg_indexes
     WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'
"""


class Report:
    """The file that the caller reads, also when this process was killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, what: str, value: object) -> None:
        self._file.write(json.dumps({what: value}) + "\n")
        self._file.flush()

    def failed(self, kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        """For `sys.excepthook`: the driver's words where a statement failed, not SQLAlchemy's around them."""
        inner = getattr(error, "orig", None) or error
        self.write("failed", f"{type(inner).__name__}: {str(inner).strip() or kind.__name__}")


class Reading:
    """Which files are read from now on. Source: Python manual, "Audit events table", `open`."""

    def __init__(self, home: Path) -> None:
        self._home = f"{home}/"
        self.files: set[str] = set()
        # Bytecode would hide the source that it was made from, and must not be written into the user's folders.
        sys.dont_write_bytecode, sys.pycache_prefix = True, str(home / "no-bytecode")
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or isinstance(arguments[0], int) or set(arguments[1] or "r") & set("wax+"):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - a link is kept as it is named
        if not path.startswith((*_OWN, self._home)):
            self.files.add(path)


def isolate() -> None:
    """Leave the network, if Linux lets us: where namespaces are refused nothing changes."""
    user, group = os.geteuid(), os.getegid()
    with suppress(AttributeError, OSError):  # another system has no unshare(2)
        if ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                Path("/proc/self", name).write_text(text, encoding="ascii")


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Steps:
    """Reports each revision before and after it ran, with the indexes that it made and took away."""

    def __init__(self, script: ScriptDirectory, report: Report) -> None:
        self._script, self._report = script, report
        self._indexes: dict[tuple[str, str], str] = {}

    def to_head(self, revision: Any, _: object) -> Iterator[Any]:
        for step in self._script._upgrade_revs("head", revision):  # as alembic.command.upgrade does
            self._report.write("begin", step.revision.revision)
            yield step

    def ran(self, ctx: Any, step: Any, heads: object, run_args: object) -> None:  # noqa: ARG002 - called by name
        before, rows = self._indexes, ctx.connection.exec_driver_sql(INDEXES)
        self._indexes = now = {(schema, name): definition for schema, name, definition in rows}
        made = [name for name in sorted(now) if before.get(name) != now[name]]
        gone = sorted(before.keys() - now.keys())
        names = {"made": [_name(*name) for name in made], "gone": [_name(*name) for name in gone]}
        self._report.write("step", {"revision": step.up_revision_id, "after": step.down_revision_ids, **names})


def migrate(script: ScriptDirectory, report: Report, engine: sqlalchemy.Engine) -> None:
    """Run every revision, each in a transaction of its own: a concurrent build cannot be in one."""
    config = Config()
    config.set_main_option("script_location", script.dir.replace("%", "%%"))
    steps = Steps(script, report)
    with EnvironmentContext(config, script, fn=steps.to_head) as environment, engine.connect() as connection:
        environment.configure(connection=connection, transaction_per_migration=True, on_version_apply=steps.ran)
        with environment.begin_transaction():
            environment.run_migrations()


def _name(schema: str, name: str) -> dict[str, str]:
    return {"schema": schema, "name": name}


def main(folder: str, path: str, dsn: str, seconds: str) -> None:
    """Run the migrations and report; a failure is reported, too."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(max(1, round(float(seconds))))
    isolate()
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    report = Report(Path(path))
    sys.excepthook = report.failed
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), poolclass=NullPool
    )
    reading = Reading(Path(path).parent)
    script = ScriptDirectory(folder, version_locations=[folder])
    heads = sorted(script.get_heads())
    if len(heads) == 1:
        migrate(script, report, engine)
        report.write("done", sorted(reading.files))
    elif heads:
        report.write(
            "failed", f"there are {len(heads)} heads, {', '.join(heads)}: join them with `alembic merge heads`"
        )
    else:
        report.write("failed", "there is no revision in it; expected Alembic's versions folder")


if __name__ == "__main__":
    main(*sys.argv[1:])
