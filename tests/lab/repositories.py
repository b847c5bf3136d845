"""Servers that archive, each with a repository of stored backups: what the tests of repositories share."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from command_line import lone_server, short_folder, until

from aiprod_ops.adapters.local.folder_repository import FolderRepository
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.platform import LocalPlatform
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.adapters.local.repository import Repository
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.adapters.pgbackrest.repository import PgBackRest
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.backups import Backup, Origin, State
from aiprod_ops.lab import postgres

SYSTEM = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN", "")
HAS_PGBACKREST = bool(SYSTEM and shutil.which("pgbackrest"))
PASSPHRASE = "correct-horse-battery-staple"
STANZA = "main"


def connect(dsn: str) -> PostgresDatabase:
    return PostgresDatabase(dsn, writes=True, application_name="test")


@dataclass
class Site:
    """A server, its repository, and what happened to it: rows in the table `marks`, each with the time after it."""

    kind: str
    folder: Path
    server: PostgresServer
    repository: Repository
    config: str  #: of the target, as the configuration file has it
    env: Mapping[str, str] = field(default_factory=dict)
    backups: list[str] = field(default_factory=list)
    moments: dict[str, datetime] = field(default_factory=dict)
    lsns: dict[str, str] = field(default_factory=dict)  #: right after each mark
    holds: dict[str, str] = field(default_factory=dict)  #: the WAL segment that each mark is in

    @property
    def dsn(self) -> str:
        return self.server.dsn("postgres", "postgres")

    @property
    def copies(self) -> Path:
        return self.folder / "copies"

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        return postgres.rows(self.dsn, text)

    def platform(self, copies: Path | None = None) -> LocalPlatform:
        return LocalPlatform(
            lambda: self.dsn, copies or self.copies, connect, postgres_bin=Path(SYSTEM) if SYSTEM else None,
            repository=self.repository,
        )  # fmt: skip

    def restored(self, origin: Origin) -> tuple[list[str], tuple[str, ...], str]:
        """The marks of a copy, the checks it passed, and the backup it came from."""
        with self.platform().copy("copy", origin=origin) as (database, restored):
            marks = [str(row["name"]) for row in database.query("SELECT name FROM marks ORDER BY name")]
        assert not list(self.copies.iterdir())
        return marks, restored.checks, restored.backup

    def mark(self, name: str) -> None:
        """A committed row, the moment after it, and the WAL of both in the archive."""
        self.sql(f"INSERT INTO marks VALUES ('{name}')")
        [(moment, lsn)] = self.sql("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")
        self.lsns[name] = str(lsn)
        self.moments[name] = moment.astimezone(UTC)
        self.holds[name] = self.archived()

    def archived(self) -> str:
        """Close the segment and wait until it is in the archive; its name."""
        [(name,)] = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        until(lambda: self.segments(str(name)), f"{name} is not archived")
        return str(name)

    def segments(self, name: str = "") -> list[Path]:
        """The files of stored WAL segments, by name."""
        pattern = f"**/{name or '0000'}*"
        found = [
            path
            for path in self.archive.glob(pattern)
            if path.is_file() and len(path.name.split("-")[0]) == 24 and path.suffix != ".tmp"
        ]
        return sorted(found, key=lambda path: path.name)

    @property
    def archive(self) -> Path:
        return self.folder / "archive" if self.kind == "folder" else self.folder / "repo" / "archive" / STANZA

    def stored(self, backup: str, relation: str) -> Path:
        """The file that keeps a relation's first segment in a backup."""
        [(path,)] = self.sql(f"SELECT pg_relation_filepath('{relation}')")
        if self.kind == "folder":
            return self.folder / "backups" / backup / str(path)
        [found] = (self.folder / "repo" / "backup" / STANZA / backup / "pg_data").glob(f"{path}*")
        return found

    def manifests(self, backup: str) -> list[Path]:
        """All files without which the manifest is not known."""
        if self.kind == "folder":
            return [self.folder / "backups" / backup / "backup_manifest"]
        place = self.folder / "repo" / "backup" / STANZA / backup
        return [place / "backup.manifest", place / "backup.manifest.copy"]

    def running(self) -> list[Backup]:
        return [each for each in self.repository.listed() if each.state is State.RUNNING]

    def configuration(self) -> Path:
        """A configuration file with this server as the target `here`."""
        values = {"probe": self.dsn, "backup": self.dsn, "postgres_bin": SYSTEM, "environment": "test"}
        file = self.folder / "ops.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value]
        file.write_text("\n".join(["[targets.here]", *lines, self.config]) + "\n")
        return file


@contextmanager
def altered(*paths: Path) -> Iterator[None]:
    """Files whose content the test changes, or which it removes; they are put back."""
    before = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def flip(path: Path, at: int = -1) -> None:
    """One byte: this one, or the one in the middle."""
    content = bytearray(path.read_bytes())
    content[at if at >= 0 else len(content) // 2] ^= 0x5A
    path.write_bytes(content)


@contextmanager
def site_of(kind: str) -> Iterator[Site]:
    """`folder`, `pgbackrest` (plain files: nothing but its checksums finds damage), or `encrypted` (and compressed)."""
    with short_folder() as folder, _server(kind, folder) as server:
        if kind == "folder":
            repository: Repository = FolderRepository(
                find(Path(SYSTEM) if SYSTEM else None), folder / "backups", folder / "archive",
                server.dsn("postgres", "postgres"),
            )  # fmt: skip
            yield Site(kind, folder, server, repository, 'backups = "backups"\narchive = "archive"')
        else:
            env = {"PGBACKREST_CONFIG": str(folder / "pgbackrest.conf")}
            program = Program(STANZA, env=env)
            program.run("stanza-create")
            yield Site(kind, folder, server, PgBackRest(program), f'backups = "pgbackrest:{STANZA}"', env)


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[PostgresServer]:
    command = f"cp %p {folder}/archive/.%f && mv {folder}/archive/.%f {folder}/archive/%f"
    if kind == "folder":
        (folder / "archive").mkdir()
        (folder / "archive").chmod(0o777)
    else:
        configure(folder, kind)
        command = f"pgbackrest --config={folder}/pgbackrest.conf --stanza={STANZA} archive-push %p"
    settings = {"archive_mode": "on", "archive_command": command, "autovacuum": "off"}
    with lone_server(folder, Path(SYSTEM) if SYSTEM else None, **settings) as server:
        postgres.rows(server.dsn("postgres", "postgres"), "CREATE TABLE marks (name text PRIMARY KEY)")
        postgres.rows(
            server.dsn("postgres", "postgres"),
            "CREATE TABLE jobs AS SELECT g AS id, repeat(md5(g::text), 4) AS prompt FROM generate_series(1, 5000) g",
        )
        postgres.rows(server.dsn("postgres", "postgres"), "CREATE INDEX jobs_id ON jobs (id)")
        yield server


def configure(folder: Path, kind: str, **more: str) -> Path:
    """A configuration file of pgBackRest that keeps everything below the folder."""
    for name in ("repo", "lock", "log", "spool"):
        (folder / name).mkdir(mode=0o777, exist_ok=True)
    cipher = {"repo1-cipher-type": "aes-256-cbc", "repo1-cipher-pass": PASSPHRASE, "compress-type": "lz4"}
    options = {
        "repo1-path": str(folder / "repo"),
        "repo1-retention-full": "7",
        "lock-path": str(folder / "lock"),
        "log-path": str(folder / "log"),
        "spool-path": str(folder / "spool"),
        "start-fast": "y",
        "compress-type": "none",
        "job-retry": "0",  # it would try a damaged file again after 15 s
        **(cipher if kind == "encrypted" else {}),
        **more,
    }
    stanza = {"pg1-path": str(folder / "data"), "pg1-socket-path": str(folder / "s"), "pg1-user": "postgres"}
    lines = ["[global]", *(f"{name}={value}" for name, value in options.items())]
    lines += [f"[{STANZA}]", *(f"{name}={value}" for name, value in stanza.items())]
    file = folder / "pgbackrest.conf"
    file.write_text("\n".join(lines) + "\n")
    return file
