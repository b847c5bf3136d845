"""Ways in which a stored backup is bad, each tried on a spare of the lab's newest one: restoring it has to notice."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.actions.index_readings import lacking_rows, trees
from aiprod_ops.adapters.local.folder_repository import FolderRepository
from aiprod_ops.adapters.local.platform import LocalPlatform, flip
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.domain.backups import Origin
from aiprod_ops.errors import OpsError
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.units import Bytes, Seconds

LARGEST = """
    SELECT pg_relation_filepath((array_agg(oid ORDER BY pg_relation_size(oid) DESC))[1]) FROM pg_class
    WHERE relkind IN ('r', 'i') GROUP BY relkind ORDER BY relkind DESC
"""
_WITHOUT_ROWS = (
    "DROP TABLE IF EXISTS lab_lacking",
    "CREATE TABLE lab_lacking AS SELECT generate_series(1, 1000) AS id",
    "CREATE INDEX lab_lacking_id ON lab_lacking (id)",
    "UPDATE pg_index SET indisready = false WHERE indexrelid = 'lab_lacking_id'::regclass",
    "INSERT INTO lab_lacking SELECT generate_series(1001, 1100)",
    "UPDATE pg_index SET indisready = true WHERE indexrelid = 'lab_lacking_id'::regclass",
)
_ALL = Bytes(1 << 62)
_CATCHERS = re.compile(r"\b(pg_verifybackup|pg_waldump|pg_amcheck|pg_ctl|postgres)\b")


@dataclass(frozen=True, slots=True)
class Spare:
    """A stored backup and an archive that may be spoiled; `heap` and `index` are files of it."""

    backup: Path
    archive: Path
    heap: Path
    index: Path

    def segment(self, number: int) -> Path:
        """An archived WAL segment that the backup needs: 0 is the first."""
        first = re.search(r"\(file ([0-9A-F]{24})\)", (self.backup / "backup_label").read_text())
        names = sorted(p for p in self.archive.iterdir() if len(p.name) == 24 and first and p.name >= first[1])
        return names[number]


@dataclass(frozen=True, slots=True)
class Caught:
    """What was spoiled, which program noticed, in which words, after how long; nobody did where `by` is empty."""

    spoiled: str
    by: str
    said: str
    seconds: Seconds


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8192)


def _alter(path: Path) -> None:
    path.write_text(path.read_text().replace('"Size": 8192', '"Size": 8193', 1))


LACKING = "an index that lacks rows"  #: no file is spoiled: the server itself was, before the backup was taken

WAYS: dict[str, Callable[[Spare], object]] = {
    "nothing": lambda _: None,
    "a flipped byte in a heap page": lambda spare: flip(spare.heap),
    "a flipped byte in an index page": lambda spare: flip(spare.index),
    "a truncated file": lambda spare: _cut(spare.heap),
    "a missing file": lambda spare: spare.index.unlink(),
    "an altered manifest": lambda spare: _alter(spare.backup / "backup_manifest"),
    "a missing manifest": lambda spare: (spare.backup / "backup_manifest").unlink(),
    "a flipped byte in a WAL segment": lambda spare: flip(spare.segment(0), 100),
    "a truncated WAL segment": lambda spare: _cut(spare.segment(0)),
    "a missing WAL segment": lambda spare: spare.segment(1).unlink(),
    LACKING: lambda _: None,
}


def matrix(fleet: Fleet, report: Callable[[str], None] = lambda _: None) -> Iterator[Caught]:
    """Take a backup, spoil a spare of it in each way and try to restore that; the backup is removed again."""
    name = fleet.repository.take(f"spare-{int(time.time())}")
    try:
        yield from _each_way(fleet, fleet.folder / "backups" / name, report)
    finally:
        fleet.repository.remove(name)


def _each_way(fleet: Fleet, stored: Path, report: Callable[[str], None]) -> Iterator[Caught]:
    for _ in range(2):  # segments after it
        postgres.rows(fleet.dsn("postgres"), "SELECT pg_logical_emit_message(true, 'lab', 'x'), pg_switch_wal()")
    _await_archive(fleet)
    (heap,), (index,) = postgres.rows(fleet.dsn("postgres"), LARGEST)
    for what, spoil in WAYS.items():
        report(f"spoiled: {what}")
        with (
            _lacking_rows(fleet) if what == LACKING else nullcontext(stored) as source,
            _spare(fleet, source, heap, index) as spare,
        ):
            spoil(spare)
            yield _tried(fleet, spare, what)


@contextmanager
def _lacking_rows(fleet: Fleet) -> Iterator[Path]:
    """A backup with a table whose index was not told of some rows; nothing of it stays."""
    try:
        for statement in _WITHOUT_ROWS:
            postgres.rows(fleet.dsn("postgres"), statement)
        taken = fleet.repository.take(f"lacking-{int(time.time())}")
        try:
            yield fleet.folder / "backups" / taken
        finally:
            fleet.repository.remove(taken)
    finally:
        postgres.rows(fleet.dsn("postgres"), _WITHOUT_ROWS[0])


def _await_archive(fleet: Fleet) -> None:
    until = time.monotonic() + 30
    query = "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1 - 16777216) FROM pg_stat_archiver"
    while not postgres.rows(fleet.dsn("postgres"), query)[0][0] and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def _spare(fleet: Fleet, stored: Path, heap: str, index: str) -> Iterator[Spare]:
    """Files of its own: nothing of the stored backup is written to."""
    folder = fleet.folder / "spare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o711)
    backup, archive = folder / "backups" / stored.name, folder / "archive"
    shutil.copytree(stored, backup)
    shutil.copytree(fleet.folder / "archive", archive)
    fleet.programs.hand_over(archive)
    try:
        yield Spare(backup, archive, backup / heap, backup / index)
    finally:
        shutil.rmtree(folder)


def _tried(fleet: Fleet, spare: Spare, what: str) -> Caught:
    env = {"PGPASSFILE": str(fleet.passfile)}
    repository = FolderRepository(fleet.programs, spare.backup.parent, spare.archive, fleet.dsn("aiprod_backup"), env)
    platform = LocalPlatform(
        lambda: fleet.dsn("aiprod_backup"), fleet.folder / "copies",
        lambda dsn: PostgresDatabase(dsn, writes=True, application_name="aiprod-ops copy"),
        postgres_bin=fleet.programs.bin, repository=repository, database=postgres.DATABASE,
    )  # fmt: skip
    started = time.monotonic()
    try:
        with platform.copy(f"spare-{os.getpid()}", origin=Origin()) as (database, restored):
            damage = platform.damage(restored.name, (known := trees(database, _ALL)).largest)
            rows = lacking_rows(database, _ALL, known)
        by, said = ("pg_amcheck", damage[0]) if damage else ("", "; ".join(restored.checks))
        if not damage and rows.value:
            by, said = "bt_index_check", rows.note
    except OpsError as error:
        found = _CATCHERS.search(error.message)
        by, said = found[1] if found else "aiprod-ops", error.message
    return Caught(what, by, said, Seconds(time.monotonic() - started))
