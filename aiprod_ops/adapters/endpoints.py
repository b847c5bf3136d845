"""How the application finds the primary, where that is no matter of its own DSN: an entry of pgbouncer, or whatever two
commands of the operator show and set (a DNS record, a secret).

An application whose DSN names all servers (`host=a,b target_session_attrs=read-write`) needs nothing of this.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from aiprod_ops.adapters.postgres.dsn import target
from aiprod_ops.adapters.postgres.errors import connection_error
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.ports import Place

_TIMEOUT = 60  # seconds that a command of the operator may take


@dataclass(frozen=True)
class Commands:
    """`show` prints HOST:PORT of the server that takes writes; `point` sets it. In each word `{host}`, `{port}` and
    `{name}` stand for those of the new one."""

    show: tuple[str, ...]
    point: tuple[str, ...]

    def shown(self) -> str:
        """What is set now, as HOST:PORT."""
        return self._run(self.show).strip()

    def lead(self, name: str, place: Place) -> None:
        """Raises Failed with what the command said."""
        values = {"name": name, "host": place.host, "port": str(place.port)}
        self._run(tuple(_filled(word, values) for word in self.point))

    def _run(self, words: tuple[str, ...]) -> str:
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"{words[0]} has not ended after {_TIMEOUT} s") from error
        except OSError as error:
            raise Failed(f"{words[0]} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Failed(f"{words[0]} ended {done.returncode}: {said[-1] if said else 'it said nothing'}")
        return done.stdout


def _filled(word: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        word = word.replace(f"{{{key}}}", value)
    return word


@dataclass(frozen=True)
class PgBouncer:
    """An entry of `[databases]` in pgbouncer's `file`, read again through its `console` (a DSN of its admin)."""

    console: str
    file: Path
    database: str

    def shown(self) -> str:
        """What pgbouncer itself uses now, as HOST:PORT."""
        for row in self._ask("SHOW DATABASES"):
            if row["name"] == self.database:
                return f"{row['host'] or ''}:{row['port']}"
        raise Failed(f"pgbouncer has no database {self.database}", hint=f"look into [databases] of {self.file}")

    def lead(self, name: str, place: Place) -> None:  # noqa: ARG002 - a name is nothing that pgbouncer knows
        """Write the entry and let it be read; connections to the former one end with their transaction."""
        try:
            before = self.file.read_text()
            after = _entry(before, self.database, place, self.file)
            if after != before:
                _replace(self.file, after)
        except OSError as error:
            raise Failed(f"{self.file} cannot be changed: {error.strerror}") from error
        self._ask("RELOAD")
        self._ask(f'RECONNECT "{self.database}"')

    def _ask(self, command: str) -> list[dict[str, object]]:
        try:
            session = psycopg2.connect(self.console)
        except psycopg2.Error as error:
            raise connection_error(error, target(self.console, "pgbouncer")) from error
        try:
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(command)
                if cursor.description is None:
                    return []
                names = [each.name for each in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except psycopg2.Error as error:
            raise Failed(f"pgbouncer refuses {command}: {str(error).strip()}") from error
        finally:
            session.close()


def _entry(text: str, database: str, place: Place, file: Path) -> str:
    """The file with another host and port in the entry; its other parts and all other lines stay as they are."""
    lines, section, found = text.splitlines(keepends=True), "", False
    for n, line in enumerate(lines):
        if match := re.match(r"\s*\[(\w+)\]", line):
            section = match[1]
        name, equals, value = line.partition("=")
        if section == "databases" and equals and name.strip().strip('"') == database:
            kept = re.sub(r"\b(host|port)\s*=\s*('[^']*'|\S+)\s*", "", value.strip())
            lines[n] = f"{name.rstrip()} = host={place.host} port={place.port} {kept}".rstrip() + "\n"
            found = True
    if not found:
        raise Failed(f"{file} has no entry {database} below [databases]")
    return "".join(lines)


def _replace(file: Path, text: str) -> None:
    """In one step, with the same owner and mode: pgbouncer may read it at any moment."""
    there = file.stat()
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(handle, "w") as fresh:
        fresh.write(text)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(name).chmod(there.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.chown(name, there.st_uid, there.st_gid)
    Path(name).replace(file)
