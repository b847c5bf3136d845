"""Every way in which a stored backup may be bad is found by restoring it, and named; a good one gives no alarm."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, backdated, configured, lone_server, short_folder, until

from aiprod_ops.actions import figures, moments
from aiprod_ops.adapters.local.archive import Archive
from aiprod_ops.adapters.local.copies import delete
from aiprod_ops.adapters.local.folder_repository import FolderRepository
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.platform import flip
from aiprod_ops.adapters.local.programs import find, reachable
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.lab import postgres
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab
BOOK = "test-backup"
NOW = ("--wait", "0")  #: nobody waits for WAL here

SCHEMA = """
CREATE TABLE jobs (id bigint PRIMARY KEY, status text, created_at timestamptz, body text);
INSERT INTO jobs SELECT g, 'done', now() - g * interval '1 s', repeat('x', 200) FROM generate_series(1, 20000) g;
CREATE INDEX jobs_status ON jobs (status, id);
CREATE TABLE places (id int, at point, doc json);
INSERT INTO places SELECT g, point(g, g), '{"a": 1}' FROM generate_series(1, 500) g;
"""


@dataclass
class Site:
    """A server with an archive and one stored backup, and the files that a test may spoil."""

    bench: Bench
    server: PostgresServer
    folder: Path

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def newest(self) -> Path:
        return max(self.backups.iterdir())

    def repository(self) -> FolderRepository:
        return FolderRepository(self.server.programs, self.backups, self.archive, self.server.dsn("postgres", "app"))

    def file_of(self, relation: str) -> Path:
        """The relation's file in the newest backup."""
        ((path,),) = self.bench.sql(f"SELECT pg_relation_filepath('{relation}')")
        return Path(self.newest / str(path))

    def switch(self) -> None:
        """What was written until now is archived."""
        self.bench.sql("SELECT pg_logical_emit_message(true, 'test', 'so that there is something to switch')")
        ((segment,),) = self.bench.sql("SELECT pg_walfile_name(pg_switch_wal())")
        until((self.archive / str(segment)).exists, f"{segment} is not archived")

    def prove(self, *options: str) -> Done:
        return self.bench.run("prove", BOOK, *NOW, *options, timeout_s=120)

    def disproved(self, *options: str) -> str:
        """Why the backup is refused; the evidence of it is sealed, and the check tells it, too."""
        done = self.prove(*options, "-o", "json")
        assert done.exit == 10, done.said
        (why,) = done.json()["refused"].values()
        check = self.bench.run("check", BOOK)
        assert check.exit == 2, check.said
        assert str(why)[:60] in check.out
        assert "`aiprod-ops plan take-backup --now`" in check.out
        assert list((self.folder / "copies").iterdir()) == []
        return str(why)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A stopped server with one stored backup and an archive that goes a little further."""
    with short_folder() as folder:
        (folder / "archive").mkdir()
        (folder / "archive").chmod(0o777)
        with lone_server(folder, **archiving(folder)) as server:
            admin = Bench(folder / "none", server.dsn("postgres", "postgres"))
            for text in ("CREATE DATABASE app", "CREATE ROLE actor LOGIN SUPERUSER",
                         "CREATE ROLE probe LOGIN IN ROLE pg_monitor, pg_read_all_data"):  # fmt: skip
                admin.sql(text)
            site = Site(Bench(folder / "none", server.dsn("postgres", "app")), server, folder)
            site.bench.sql(SCHEMA)
            site.repository().take("good")
            site.bench.sql("INSERT INTO jobs SELECT g, 'late', now(), 'y' FROM generate_series(20001, 20100) g")
            site.switch()
            server.stop()
            yield folder


def archiving(folder: Path) -> dict[str, str | int]:
    there = f'"{folder}/archive/%f"'  # in one step: what is there is whole, and nobody writes to it any more
    keep = f'test -f {there} || (cp "%p" "{folder}/archive/.%f" && mv "{folder}/archive/.%f" {there})'
    return {"wal_level": "replica", "archive_mode": "on", "archive_command": keep}


@pytest.fixture
def site(template: Path) -> Iterator[Site]:
    """One for each test, to be spoiled."""
    with short_folder() as folder:
        for name in ("data", "backups", "archive"):
            shutil.copytree(template / name, folder / name)
        (folder / "data").chmod(0o700)
        (folder / "copies").mkdir(mode=0o711)
        programs = reachable(find(), folder)
        server = PostgresServer(programs, folder / "data", folder / "s", 5432, folder / "server.log")
        usual: dict[str, str | int] = {"listen_addresses": "", "fsync": "off", "dynamic_shared_memory_type": "mmap"}
        server.configure(usual | archiving(folder), "local all all trust\nlocal replication all trust\n")
        for name in ("data", "archive"):
            programs.hand_over(folder / name)
        server.start()
        places = {"backups": str(folder / "backups"), "archive": str(folder / "archive")}
        bench = configured(folder, server, "app", copies=str(folder / "copies"), **places)
        try:
            yield Site(bench, server, folder)
        finally:
            server.stop("immediate")


def test_a_good_backup_is_equal_to_the_last_row(site: Site) -> None:
    done = site.prove("-o", "json")
    assert done.exit == 0, done.said
    findings = {each["metric"]: each for each in done.json()["findings"]}
    assert findings["tables that differ at the same moment"]["note"] == "20,600 rows of 2 tables"
    assert findings["damaged heaps and b-trees"]["value"] == 0
    assert any("none is missing" in each for each in done.json()["copy"]["checks"])
    assert done.json()["copy"]["backup"] == site.newest.name
    check = site.bench.run("check", BOOK)
    assert check.exit == 0, check.said
    site.bench.sound()


def test_the_test_itself_can_fail(site: Site) -> None:
    before = sorted((path.name, path.stat().st_size) for path in site.newest.rglob("*"))
    done = site.prove("--control", "true", "-o", "json")
    assert done.exit == 0, done.said
    (control,) = [each for each in done.json()["findings"] if each["metric"] == "damage that was not noticed"]
    assert "pg_amcheck" in control["note"]
    assert "pg_verifybackup" in control["note"]
    assert "the comparison of rows: public." in control["note"]
    assert sorted((path.name, path.stat().st_size) for path in site.newest.rglob("*")) == before
    assert site.prove().exit == 0, "the stored backup is as it was"


def test_evidence_that_is_gone_is_missed(site: Site) -> None:
    assert site.prove().exit == 0
    assert site.bench.run("check", BOOK).exit == 0
    newest = max((site.folder / "state" / "evidence").glob("*.json"))
    newest.unlink()
    check = site.bench.run("check", BOOK)
    assert check.exit == 1, check.said
    assert "evidence of the last test that does not hold: 1" in check.out


def test_the_control_is_of_the_backup_that_was_restored(site: Site) -> None:
    """Of the newest nothing could be made: it is not asked for."""
    older = site.newest
    time.sleep(1.1)  # a name has whole seconds
    newest = site.backups / site.repository().take("newest")
    shutil.rmtree(newest / "base")
    done = site.prove("--control", "true", "--backup", older.name)
    assert done.exit == 0, done.said


def test_the_control_needs_no_checksums_of_pages(site: Site) -> None:
    site.server.stop()
    site.server.programs.run("pg_checksums", "--disable", f"--pgdata={site.server.data}", cwd=site.server.data)
    site.server.start()
    shutil.rmtree(site.newest)
    site.repository().take("unchecked")
    done = site.prove("--control", "true")
    assert done.exit == 0, done.said


@pytest.mark.parametrize("silent", ["pg_amcheck", "pg_verifybackup"])
def test_each_half_of_the_control_has_to_notice(site: Site, silent: str) -> None:
    package = find().bin.parents[1]
    for each in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(each, site.folder / each.name, symlinks=True)
    broken = site.folder / find().bin.relative_to(package.parent) / silent
    broken.write_text("#!/bin/sh\nexit 0\n")
    config = site.folder / "silent.toml"
    config.write_text(site.bench.config.read_text() + f'postgres_bin = "{broken.parent}"\n')
    done = site.prove("--config", str(config), "--control", "true", "-o", "json")
    assert done.exit == 10, done.said
    assert done.json()["refused"] == {
        "damage that was not noticed": f"1 {silent} said nothing: this test proves nothing",
    }


WITHOUT_ROWS = (
    "CREATE TABLE t (id int)",
    "CREATE INDEX t_id ON t (id)",
    "UPDATE pg_index SET indisready = false WHERE indexrelid = 't_id'::regclass",
    "INSERT INTO t SELECT generate_series(1, 3000)",
    "UPDATE pg_index SET indisready = true WHERE indexrelid = 't_id'::regclass",
)


def retaken(site: Site, *statements: str) -> None:
    """The one stored backup is of the server after these statements."""
    for text in statements:
        site.bench.sql(text)
    shutil.rmtree(site.newest)
    site.repository().take("retaken")


def compared(done: Done) -> dict[str, Any]:
    (found,) = [each for each in done.json()["findings"] if each["metric"] == "indexes that lack rows"]
    return dict(found)


def test_an_index_that_lacks_rows_is_named(site: Site) -> None:
    """Every file is as it was, every page in order: only the table tells."""
    retaken(site, *WITHOUT_ROWS)
    why = site.disproved()
    assert why.startswith("1 public.t_id: "), why
    assert "lacks matching index tuple" in why


def test_the_index_of_a_large_table_is_not_compared_and_that_is_told(site: Site) -> None:
    retaken(site, *WITHOUT_ROWS)
    done = site.prove("--compare", "64 kB", "-o", "json")
    assert done.exit == 0, done.said
    assert compared(done)["note"] == "0 b-trees have each row; 3 of tables beyond 64.0 kB are not compared"


ORDER = (
    "CREATE OR REPLACE FUNCTION order_of(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE"
    " AS 'SELECT CASE WHEN a {} b THEN -1 WHEN a = b THEN 0 ELSE 1 END'"
)
OUT_OF_ORDER = (
    "CREATE TABLE t (id int)",
    "INSERT INTO t SELECT generate_series(1, 3000)",
    ORDER.format("<"),
    "CREATE OPERATOR CLASS turned FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,"
    " OPERATOR 5 >, FUNCTION 1 order_of(int, int)",
    'CREATE INDEX "T.""id$""" ON t (id turned)',
    ORDER.format(">"),
)


@pytest.mark.parametrize(("most", "by"), [("1TB", "indexes that lack rows"), ("64 kB", "damaged heaps and b-trees")])
def test_an_index_that_is_out_of_order_is_noticed_by_one(site: Site, most: str, by: str) -> None:
    """Its rows are compared, or pg_amcheck looks at it: one of both, whatever its name."""
    retaken(site, *OUT_OF_ORDER)
    done = site.prove("--compare", most, "-o", "json")
    assert done.exit == 10, done.said
    assert list(done.json()["refused"]) == [by]
    assert "item order invariant violated" in done.json()["refused"][by]


def test_an_expression_that_needs_a_search_path_gives_no_alarm(site: Site) -> None:
    """amcheck computes its keys under a search_path of its own, where `short` is not."""
    retaken(
        site,
        "CREATE FUNCTION short(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT left($1, 3)'",
        "CREATE FUNCTION key(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN short($1); END'",
        "CREATE TABLE keyed (name text)",
        "CREATE INDEX keyed_key ON keyed (key(name))",
        "INSERT INTO keyed SELECT md5(g::text) FROM generate_series(1, 100) g",
        "DROP EXTENSION IF EXISTS amcheck",
    )
    done = site.prove("-o", "json")
    assert done.exit == 0, done.said
    assert (compared(done)["status"], compared(done)["value"]) == ("OK", 0)
    assert "2 b-trees have each row; 1 cannot be compared (public.keyed_key: " in compared(done)["note"]


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8192)


SPOILED: dict[str, tuple[Callable[[Site], Any], str]] = {
    "a flipped byte in a heap page": (lambda site: flip(site.file_of("jobs")), "checksum mismatch for file"),
    "a flipped byte in an index page": (lambda site: flip(site.file_of("jobs_status")), "checksum mismatch for file"),
    "a truncated file": (lambda site: truncated(site.file_of("jobs")), "has size"),
    "a missing file": (lambda site: site.file_of("jobs_pkey").unlink(), "is present in the manifest but not on disk"),
    "a missing manifest": (lambda site: (site.newest / "backup_manifest").unlink(), "no backup"),
    "an altered manifest": (lambda site: altered(site.newest / "backup_manifest"), "manifest"),
    "a flipped byte in a WAL segment": (
        lambda site: flip(segments(site)[-1], 100),
        "the WAL of the archive cannot be read",
    ),
    "a truncated WAL segment": (lambda site: truncated(segments(site)[-1]), "bytes of 16,777,216"),
    "a missing WAL segment": (lambda site: segments(site)[-2].unlink(), "do not follow one another"),
}


def altered(path: Path) -> None:
    path.write_text(path.read_text().replace('"Size": 8192', '"Size": 8193', 1))


def segments(site: Site) -> list[Path]:
    """The archived segments that the backup needs, and those after it."""
    for _ in range(3):
        site.bench.sql("INSERT INTO jobs SELECT max(id) + 1, 'more', now(), 'y' FROM jobs")
        site.switch()
    label = (site.newest / "backup_label").read_text().split("(file ")[1][:24]
    return sorted(path for path in site.archive.iterdir() if len(path.name) == 24 and path.name >= label)


@pytest.mark.parametrize("case", [name for name in SPOILED if name != "a missing manifest"])
def test_what_is_spoiled_is_refused_and_named(site: Site, case: str) -> None:
    spoil, words = SPOILED[case]
    spoil(site)
    assert words in site.disproved()
    due = site.bench.run("check", "take-backup")
    assert (due.exit, f"{site.newest.name} was tested" in due.out) == (1, True), due.said


def test_a_backup_without_a_manifest_is_none(site: Site) -> None:
    (site.newest / "backup_manifest").unlink()
    done = site.prove()
    assert (done.exit, "there is no backup" in done.err) == (10, True), done.said
    check = site.bench.run("check", "backups")
    assert "its manifest cannot be read" in check.out, check.said


def test_without_a_backup_there_is_one_clear_error(site: Site) -> None:
    shutil.rmtree(site.newest)
    done = site.prove()
    assert (done.exit, "take one: aiprod-ops plan take-backup" in done.err) == (10, True), done.said


@pytest.mark.parametrize("content", ['{"Files": [1]}', '{"Files": null}', '{"Files": [{"Size": 1e999}]}', "[]"])
def test_an_odd_folder_hides_no_good_backup(site: Site, content: str) -> None:
    good = site.newest
    (site.backups / "20269999T999999Z-x").mkdir()
    odd = site.backups / "20200101T000000Z-odd"
    odd.mkdir()
    (odd / "backup_manifest").write_text(content)
    check = site.bench.run("check", "backups")
    assert (good.name in check.out, check.exit == 3) == (True, False), check.said
    assert site.prove().exit == 0


INCOMPLETE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a manifest of nothing": (lambda path: (path / "backup_manifest").write_text("{}"), "it lists no files"),
    "a manifest that is no JSON": (lambda path: truncated(path / "backup_manifest"), "its manifest cannot be read"),
    "a folder for a manifest": (lambda path: foldered(path / "backup_manifest"), "its manifest cannot be read"),
    "no backup_label": (lambda path: (path / "backup_label").unlink(), "it has no backup_label"),
    "another backup_label": (lambda path: (path / "backup_label").write_bytes(b"\xff"), "where its WAL begins"),
    "no pg_control": (lambda path: (path / "global" / "pg_control").unlink(), "it has no global/pg_control"),
}


def foldered(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("case", INCOMPLETE)
def test_one_spoiled_backup_hides_no_other(site: Site, case: str) -> None:
    spoil, words = INCOMPLETE[case]
    good = site.newest.name
    time.sleep(1.1)  # a name has whole seconds
    spoiled = site.backups / site.repository().take("spoiled")
    site.switch()
    spoil(spoiled)
    check = site.bench.run("check", "backups", "-o", "json")
    findings = {each["id"]: each for each in check.json()["checks"][0]["findings"]}
    assert check.exit == 1, check.said
    assert findings["newest"]["note"].startswith(good)
    assert findings["failed"]["status"] == "WARNING"
    assert spoiled.name in findings["failed"]["note"]
    assert words in findings["failed"]["note"]
    done = site.prove("-o", "json")
    assert (done.exit, done.json()["copy"]["backup"]) == (0, good), done.said
    done = site.prove("--backup", spoiled.name, "-o", "json")
    assert done.exit == 10, done.said
    assert words in done.json()["refused"][f"backup {spoiled.name}"]


def unarchived(site: Site, first: str = "") -> None:
    """Nothing from this segment on is in the archive, and nothing comes."""
    admin = Bench(site.bench.config, site.server.dsn("postgres", "postgres"))
    admin.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
    admin.sql("SELECT pg_reload_conf()")
    for each in site.archive.iterdir():
        if each.name >= first:
            each.unlink()
    backdated(site.newest, datetime.now(UTC) - timedelta(seconds=60))


@pytest.mark.parametrize(
    ("is_empty", "note"), [(True, "nothing is archived"), (False, "nothing is archived from 0000")]
)
def test_an_archive_that_got_nothing_is_told(site: Site, is_empty: bool, note: str) -> None:
    """However young the backup is, the promise to recover to any moment is broken; the backup itself is tested."""
    label = (site.newest / "backup_label").read_text().split("(file ")[1][:24]
    (site.archive / f"{label[:-2]}00").write_bytes(bytes(16 << 20))
    unarchived(site, "" if is_empty else label)
    check = site.bench.run("check", "backups", "-o", "json")
    assert check.exit == 2, check.said
    (broken,) = [each for each in check.json()["checks"][0]["findings"] if each["id"] == "archive"]
    assert (broken["status"], broken["note"].startswith(note)) == ("CRITICAL", True)
    done = site.prove("-o", "json")
    assert done.exit == 0, done.said
    (lost,) = [each for each in done.json()["findings"] if each["id"] == "rpo"]
    assert (lost["status"], f"; {note}" in lost["note"]) == ("WARNING", True)
    assert 60 <= lost["value"] < 600


def test_what_an_empty_archive_loses_is_held_against_the_rpo(site: Site) -> None:
    unarchived(site)
    done = site.prove("--rpo", "10 s", "-o", "json")
    assert done.exit == 10, done.said
    assert done.json()["refused"]["what would have been lost"].endswith("; nothing is archived")


def test_the_spare_may_be_on_another_disk(site: Site) -> None:
    spare = Path("/dev/shm") / f"ops-spare-{os.getpid()}"
    if spare.parent.stat().st_dev == site.backups.stat().st_dev:
        pytest.skip("there is no second file system here")
    before = {path: path.stat().st_mtime_ns for path in site.newest.rglob("*")}
    assert "hecksum" in site.repository().refusal(site.newest.name, spare)
    assert not spare.exists()
    assert before == {path: path.stat().st_mtime_ns for path in site.newest.rglob("*")}


def test_two_runs_may_delete_the_same_orphan(site: Site) -> None:
    """Each finds files gone that it was about to delete."""
    folder = site.folder / "orphan"
    for number in range(3000):
        (folder / str(number)).mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(delete, [folder, folder])) == [None, None]
    assert not folder.exists()


def test_a_backup_of_another_system(site: Site) -> None:
    shutil.rmtree(site.newest)
    with short_folder() as folder, lone_server(folder, wal_level="replica") as other:
        Bench(folder / "none", other.dsn("postgres", "postgres")).sql("CREATE DATABASE app")
        FolderRepository(other.programs, site.backups, None, other.dsn("postgres", "app")).take("stranger")
        shutil.rmtree(site.archive)
        site.archive.mkdir(mode=0o777)
        assert "the plan is for app of system" in site.disproved()
        check = site.bench.run("check", "backups")
        assert "backups of another instance" in check.out


def test_a_backup_from_before_the_data_is_valid_and_empty(site: Site) -> None:
    """Every file is intact, and nothing is in it."""
    admin = Bench(site.bench.config, site.server.dsn("postgres", "postgres"))
    admin.sql("ALTER DATABASE app RENAME TO kept")
    admin.sql("CREATE DATABASE app")
    try:
        shutil.rmtree(site.backups)
        site.repository().take("empty")
    finally:
        admin.sql("DROP DATABASE app")
        admin.sql("ALTER DATABASE kept RENAME TO app")
    shutil.rmtree(site.archive)
    site.archive.mkdir(mode=0o777)
    done = site.prove("-o", "json")
    assert done.exit == 10, done.said
    assert done.json()["refused"]["a backup without rows"].startswith("1 the source has 20,")


def test_what_a_role_has_set_makes_no_other_rows(site: Site) -> None:
    for text in (
        "CREATE TABLE spans AS SELECT tstzrange('2026-01-01', '2026-02-01') AS span, 1.5::float4 AS n",
        "ALTER ROLE probe SET timezone = 'Asia/Tokyo'",
        "ALTER ROLE probe SET extra_float_digits = 0",
        "ALTER DATABASE app SET datestyle = 'German'",
    ):
        site.bench.sql(text)
    site.switch()
    done = site.prove("-o", "json")
    assert done.exit == 0, done.said


def test_a_lock_in_the_source_is_no_fault_of_the_backup(site: Site) -> None:
    with postgres.session(site.bench.admin) as session, session.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE jobs")
        done = site.prove("-o", "json")
        cursor.execute("ROLLBACK")
    found = {each["metric"]: each for each in done.json()["findings"]}
    assert found["rows compared"]["status"] == "UNKNOWN", done.said
    assert (done.exit, done.json()["refused"]) == (10, {}), "nothing speaks against the backup"
    check = site.bench.run("check", BOOK)
    assert check.exit == 1, check.said
    assert "left open by the last test" in check.out
    assert "the source could not be read" in found["rows compared"]["note"]
    assert site.bench.run("check", "take-backup", "--every", "1d").exit == 0, "no other one is needed for that"


def test_the_locks_of_the_source_end_with_its_reading(site: Site) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND pid <> pg_backend_pid()"
    with (
        PostgresDatabase(site.bench.admin, writes=False, application_name="test") as database,
        moments.one_moment(database) as (_, session),
    ):
        session.query("SELECT count(*) FROM jobs")
        assert site.bench.sql(held) != [(0,)]
        assert figures.read_source(session, Bytes(0)).rows >= 20_000
        until(lambda: site.bench.sql(held) == [(0,)], "a lock is held")


def test_the_newest_segment_that_was_archived_and_is_gone_is_told(site: Site) -> None:
    """Nothing follows it, so the archive alone looks whole."""
    segments(site)[-1].unlink()
    assert "the server has archived" in site.bench.run("check", "backups").out
    found = {each["id"]: each["status"] for each in site.prove("-o", "json").json()["findings"]}
    assert found["gone"] == "WARNING"


def test_without_an_archive_in_the_configuration_none_is_missed_or_waited_for(site: Site) -> None:
    lines = site.bench.config.read_text().splitlines(keepends=True)
    site.bench.config.write_text("".join(line for line in lines if not line.startswith("archive =")))
    assert "where it was archived" not in site.bench.run("check", "backups").said
    done = site.bench.run("prove", BOOK, "--wait", "1h", "-o", "json", timeout_s=120)
    assert done.exit == 0, done.said
    assert "gone" not in {each["id"] for each in done.json()["findings"]}


def bare(site: Site) -> None:
    """Without an archive a backup restores to its own end, and the source has gone on."""
    lines = site.bench.config.read_text().splitlines(keepends=True)
    site.bench.config.write_text("".join(line for line in lines if not line.startswith("archive =")))


def read_before(site: Site) -> None:
    """The source is read by a test, and what is taken afterwards has another second in its name: it is later."""
    assert site.prove().exit == 0
    time.sleep(1)


def found(done: Done) -> dict[str, str]:
    """What is not OK."""
    return {each["metric"]: each["status"] for each in done.json()["findings"] if each["status"] != "OK"}


def test_what_the_source_got_since_the_backup_is_no_fault_of_it(site: Site) -> None:
    """A role, an extension, tables, and as many rows again."""
    bare(site)
    read_before(site)
    site.repository().take("second")
    for text in (
        "CREATE ROLE newcomer",
        "CREATE EXTENSION pg_trgm",
        "CREATE TABLE more (n int)",
        "DROP TABLE places",
        "INSERT INTO jobs SELECT g, 'new', now(), 'z' FROM generate_series(30001, 60000) g",
    ):
        site.bench.sql(text)
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {}), done.said


def test_a_table_that_is_empty_in_the_backup_alone_is_seen(site: Site) -> None:
    """A small one that nobody writes to, and a large one that has gone on."""
    bare(site)
    read_before(site)
    site.bench.sql("CREATE TABLE kept AS TABLE places")
    site.bench.sql("CREATE TABLE all_jobs AS TABLE jobs")
    site.bench.sql("TRUNCATE places, jobs")
    site.repository().take("emptied")
    site.bench.sql("INSERT INTO places TABLE kept")
    site.bench.sql("INSERT INTO jobs TABLE all_jobs")
    site.bench.sql("INSERT INTO jobs VALUES (90000, 'new', now(), '')")
    done = site.prove("-o", "json")
    assert done.exit == 10, done.said
    assert done.json()["refused"] == {
        "tables that nobody wrote to and that differ": "1 public.places",
        "tables without their rows": "1 public.jobs",
    }


def test_without_a_test_before_the_backup_the_age_of_a_row_tells_that_it_lacks_it(site: Site) -> None:
    bare(site)
    site.bench.sql("CREATE TABLE kept AS TABLE jobs")
    site.bench.sql("TRUNCATE jobs")
    site.repository().take("emptied")
    site.bench.sql("INSERT INTO jobs TABLE kept")
    assert site.disproved() == "1 public.jobs"


def test_a_table_that_is_filled_since_the_backup_is_no_fault_of_it(site: Site) -> None:
    bare(site)
    site.bench.sql("CREATE TABLE mail (n int, created_at timestamptz DEFAULT clock_timestamp())")
    site.repository().take("second")
    site.bench.sql("INSERT INTO mail SELECT g FROM generate_series(1, 5000) g")
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {"tables without their rows": "WARNING"}), done.said
    assert "public.mail; perhaps written since the backup" in done.out


def test_a_missing_table_is_seen(site: Site) -> None:
    bare(site)
    read_before(site)
    site.bench.sql("ALTER TABLE places RENAME TO away")
    site.repository().take("lacking")
    site.bench.sql("ALTER TABLE away RENAME TO places")
    assert site.disproved() == "1 public.places"


def test_the_wal_of_a_backup_that_is_a_link_is_not_written_to(site: Site) -> None:
    """As `pg_basebackup --waldir` leaves it: the copy's server has its own."""
    wal, aside = site.newest / "pg_wal", site.folder / "aside"
    wal.rename(aside)
    wal.symlink_to(aside)
    before = {path.name: path.read_bytes() for path in aside.iterdir() if path.is_file()}
    for _ in range(2):
        done = site.prove("-o", "json")
        assert (done.exit, found(done)) == (0, {}), done.said
    assert {path.name: path.read_bytes() for path in aside.iterdir() if path.is_file()} == before


def test_an_archive_of_another_user_is_read(site: Site) -> None:
    """What plain `cp` leaves in it is closed to everybody else: root reads it, the copy's server is no root."""
    if os.geteuid() != 0:
        pytest.skip("nobody here may give a file to another user")
    for path in site.archive.iterdir():
        path.chmod(0o600)
        os.chown(path, 12345, 12345)
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {}), done.said


def test_what_is_being_removed_is_no_backup(site: Site) -> None:
    site.newest.rename(site.backups / f"{site.newest.name}.going")
    assert site.repository().listed() == ()
    assert site.bench.run("check", "backups").exit == 2
    shutil.move(site.backups, site.folder / "elsewhere")
    site.backups.mkdir()
    [left] = (site.folder / "elsewhere").iterdir()
    (site.backups / left.name).symlink_to(left)
    site.repository().take("next")
    site.repository().remove(site.newest.name)
    assert (list(site.backups.iterdir()), left.exists()) == ([], False), "also one that was a link"


def test_an_increment_alone_is_no_backup(site: Site) -> None:
    label = site.newest / "backup_label"
    label.write_text(label.read_text() + "INCREMENTAL FROM LSN: 0/2000028\n")
    [listed] = site.repository().listed()
    assert "pg_combinebackup" in listed.said


def test_a_manifest_without_checksums_is_told(site: Site) -> None:
    server = PostgresServer(site.server.programs, site.folder / "unsummed", site.folder, 5432, site.folder / "log")
    args = ["--pgdata", str(server.data), "--dbname", site.server.dsn("postgres", "app"), "--manifest-checksums=NONE"]
    site.server.programs.run("pg_basebackup", *args, "--checkpoint=fast", cwd=site.folder)
    name = site.newest.name
    shutil.rmtree(site.newest)
    server.data.rename(site.backups / name)
    assert "its manifest has no checksums" in site.prove().out


@pytest.mark.parametrize("change", ["TRUNCATE places", "DROP TABLE places"])
def test_what_is_replaced_while_the_source_is_read_is_not_compared(site: Site, change: str) -> None:
    """A snapshot from before a TRUNCATE sees an empty table."""
    with (
        PostgresDatabase(site.bench.admin, writes=False, application_name="test") as database,
        moments.one_moment(database) as (_, session),
    ):
        site.bench.sql(change)
        read = figures.read_source(session, Bytes(1 << 30))
    assert (read.rewritten, read.told.keys()) == (("public.places",), {"public.jobs"})


def test_row_security_hides_rows_from_the_reader_and_not_from_the_copy(site: Site) -> None:
    site.bench.sql("ALTER TABLE places ENABLE ROW LEVEL SECURITY")
    site.switch()
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {"tables that may not be read whole": "WARNING"}), done.said
    assert "BYPASSRLS" in done.out
    site.bench.sql("ALTER ROLE probe BYPASSRLS")
    site.switch()
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {}), done.said


def test_what_hinders_a_writer_in_the_source_is_no_fault_of_the_backup(site: Site) -> None:
    for text in (
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL here'; END $$",
        "CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()",
        "ALTER SYSTEM SET search_path = ''",
        "ALTER DATABASE app SET default_transaction_read_only = on",
    ):
        site.bench.sql(text)
    site.server.programs.run("pg_ctl", "reload", f"--pgdata={site.server.data}", cwd=site.folder)
    with postgres.session(site.bench.admin) as session, session.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute("SELECT pg_logical_emit_message(true, 'test', ''), pg_switch_wal()")
    done = site.prove("-o", "json")
    assert (done.exit, found(done)) == (0, {}), done.said


def test_what_is_needed_of_an_archive_goes_by_number_not_by_timeline(site: Site) -> None:
    """After a failover the newer timeline begins before the older one ended."""
    folder = site.folder / "timelines"
    folder.mkdir()
    for name in ("000000010000000000000024", "00000001000000000000002B", "000000020000000000000025",
                 "00000002000000000000002C"):  # fmt: skip
        (folder / name).write_bytes(b"x" * 16)
    Archive(folder, site.server.programs).clean(["00000001000000000000002B", "000000020000000000000025"])
    assert sorted(path.name[-2:] for path in folder.iterdir()) == ["25", "2B", "2C"]


def test_one_row_that_differs_is_seen(site: Site) -> None:
    """Not by chance: the copy and the source are of the same moment, and a sum over every row is compared."""
    with tampered(site):
        assert "public.jobs" in site.disproved()


def test_a_backup_of_one_that_was_promoted_beside_the_source(site: Site) -> None:
    """It has the source's own identifier, and another history: its rows are those of nobody who is asked for."""
    bare(site)
    twin = PostgresServer(
        site.server.programs, site.folder / "twin", site.folder / "t", 5432, site.folder / "twin.log"
    )  # fmt: skip
    twin.base_backup(site.server.dsn("postgres", "app"))
    twin.configure(
        {"listen_addresses": "", "archive_mode": "off"}, "local all all trust\nlocal replication all trust\n"
    )
    (twin.data / "standby.signal").touch(mode=0o600)
    twin.programs.hand_over(twin.data)
    twin.start()
    try:
        twin.programs.run("pg_ctl", "promote", f"--pgdata={twin.data}", cwd=site.folder)
        shutil.rmtree(site.backups)
        FolderRepository(twin.programs, site.backups, None, twin.dsn("postgres", "app")).take("forked")
        assert site.disproved() == "1 it is of timeline 2, the source writes to 1"
    finally:
        twin.stop("immediate")


@contextmanager
def tampered(site: Site) -> Iterator[None]:
    """A stored backup of a twin whose disk changed a byte of a row, before checksums and manifest were written."""
    programs = site.server.programs
    twin = PostgresServer(programs, site.folder / "twin", site.folder / "t", 5432, site.folder / "twin.log")
    site.server.stop()
    shutil.copytree(site.server.data, twin.data)
    twin.data.chmod(0o700)
    site.server.start()
    settings: dict[str, str | int] = {"listen_addresses": "", "dynamic_shared_memory_type": "mmap"}
    twin.configure(settings, "local all all trust\nlocal replication all trust\n")
    ((path,),) = site.bench.sql("SELECT pg_relation_filepath('jobs')")
    file = twin.data / str(path)
    file.write_bytes(file.read_bytes().replace(b"x" * 200, b"x" * 199 + b"z", 1))
    programs.hand_over(twin.data)
    programs.run("pg_checksums", "--disable", f"--pgdata={twin.data}", cwd=twin.data)
    twin.start()
    try:
        shutil.rmtree(site.backups)
        FolderRepository(programs, site.backups, None, twin.dsn("postgres", "app")).take("tampered")
        for each in site.archive.iterdir():
            each.unlink()
        yield
    finally:
        twin.stop("immediate")


@pytest.mark.parametrize(("age", "status", "exit_code"), [(25, "OK", 0), (40, "WARNING", 1), (49, "CRITICAL", 2)])
def test_a_backup_that_is_too_old(site: Site, age: float, status: str, exit_code: int) -> None:
    assert site.prove().exit == 0
    then = datetime.now(UTC) - timedelta(hours=age)
    old = site.backups / f"{then:%Y%m%dT%H%M%SZ}-old"
    site.newest.rename(old)
    backdated(old, then)
    check = site.bench.run("check", "backups", "-o", "json")
    found = {each["id"]: each["status"] for each in check.json()["checks"][0]["findings"]}
    assert found["newest"] == status, check.said
    assert check.exit == exit_code, check.said


def test_a_backup_named_for_the_future_is_told_and_another_one_is_due(site: Site) -> None:
    """The clock here ran ahead when it was taken."""
    good, then = site.newest, datetime.now(UTC) - timedelta(days=3)
    backdated(good, then)
    early = site.backups / f"{datetime.now(UTC) + timedelta(days=2):%Y%m%dT%H%M%SZ}-early"
    shutil.copytree(good, early)
    good.rename(site.backups / f"{then:%Y%m%dT%H%M%SZ}-old")
    check = site.bench.run("check", "backups", "-o", "json")
    found = {each["id"]: each for each in check.json()["checks"][0]["findings"]}
    assert (found["ahead"]["status"], early.name in found["ahead"]["note"]) == ("CRITICAL", True), check.said
    assert found["newest"]["status"] == "CRITICAL"
    due = site.bench.run("check", "take-backup")
    assert (due.exit, f"{early.name} does not count" in due.out) == (1, True), due.said


def test_wal_from_the_future_is_told(site: Site) -> None:
    """None of the last segments tells a transaction, so the file's time counts."""
    last = segments(site)[-1]
    for number in range(1, 9):
        name = f"{last.name[:16]}{int(last.name[16:], 16) + number:08X}"
        (site.archive / name).write_bytes(bytes(last.stat().st_size))
        os.utime(site.archive / name, (time.time() + 3600, time.time() + 3600))
    check = site.bench.run("check", "backups", "-o", "json")
    found = {each["id"]: each for each in check.json()["checks"][0]["findings"]}
    assert (found["ahead"]["status"], name in found["ahead"]["note"]) == ("CRITICAL", True), check.said


def test_nobody_writes_and_the_archive_grows_old(site: Site) -> None:
    """With archive_timeout that loses nothing; without, the age of the archive is all that is known."""
    promises = site.folder / "service.toml"
    promises.write_text('[backups]\nrpo = "2 s"\n')
    config = site.folder / "quiet.toml"
    config.write_text(f'service = "{promises}"\n' + site.bench.config.read_text())

    def found() -> tuple[str, str]:
        check = site.bench.run("check", "backups", "--config", str(config), "-o", "json")
        (told,) = [each for each in check.json()["checks"][0]["findings"] if each["id"] == "recoverable"]
        return str(told["status"]), str(told["note"])

    admin = Bench(site.bench.config, site.server.dsn("postgres", "postgres"))
    admin.sql("ALTER SYSTEM SET autovacuum = off")  # nobody is nobody
    admin.sql("ALTER SYSTEM SET archive_timeout = '1s'")
    admin.sql("SELECT pg_reload_conf()")
    site.bench.sql("INSERT INTO jobs SELECT max(id) + 1, 'last', now(), 'y' FROM jobs")
    time.sleep(5)
    _, note = until(lambda: (told := found())[0] == "OK" and told, "the last segment is not kept")
    assert "all whole segments are kept" in note
    proof = site.bench.run("prove", BOOK, "--rpo", "2s", "--wait", "0s", "--config", str(config), "-o", "json")
    (lost,) = [each for each in proof.json()["findings"] if each["id"] == "rpo"]
    assert (proof.exit, lost["status"]) == (0, "OK"), proof.said  # the copy has each transaction that the source has
    admin.sql("ALTER SYSTEM SET archive_timeout = 0")
    admin.sql("SELECT pg_reload_conf()")
    assert found() == ("CRITICAL", "")


def test_a_point_in_time_is_between_two_rows(site: Site) -> None:
    site.bench.sql("CREATE TABLE marks (n int, at timestamptz DEFAULT clock_timestamp())")
    site.bench.sql("INSERT INTO marks VALUES (1)")
    time.sleep(0.05)
    ((between,),) = site.bench.sql("SELECT clock_timestamp()")
    time.sleep(0.05)
    site.bench.sql("INSERT INTO marks VALUES (2)")
    site.switch()
    at = between.astimezone(UTC).isoformat()
    done = site.prove("--at", at, "-o", "json")
    assert done.exit == 0, done.said
    assert done.json()["parameters"]["at"] == at
    ((one, two),) = site.bench.sql("SELECT min(at), max(at) FROM marks")
    (said,) = [note for note in done.json()["notes"] if note.startswith("recovered to ")]
    reached = datetime.fromisoformat(said.rpartition(" ended at ")[2].replace(" UTC", "+00:00"))
    assert one < reached < between < two, said
    late = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    refused = site.prove("--at", late)  # no fault of the backup, so it is not disproved
    assert (refused.exit, "the WAL archive reaches" in refused.err) == (10, True), refused.said
    early = "2020-01-01T00:00:00Z"
    refused = site.prove("--at", early)
    assert (refused.exit, "there is no backup from before 2020-01-01" in refused.err) == (10, True), refused.said


def test_a_restore_that_hangs_is_given_up(site: Site) -> None:
    """What the server asks for next is a pipe that nobody writes to: `cp` waits for ever."""
    promises = site.folder / "service.toml"
    promises.write_text('[backups]\nlongest = "3 s"\n')
    config = site.folder / "hangs.toml"
    config.write_text(f'service = "{promises}"\n' + site.bench.config.read_text())
    history = site.archive / "00000002.history"
    os.mkfifo(history)
    history.chmod(0o666)
    started = time.monotonic()
    done = site.prove("--config", str(config), "-o", "json")
    assert done.exit == 10, done.said
    assert time.monotonic() - started < 60
    assert list((site.folder / "copies").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted, which takes root")
def test_a_full_disk_is_told_before_and_while_restoring(site: Site) -> None:
    small = site.folder / "small"
    small.mkdir(mode=0o711)
    config = site.folder / "small.toml"
    config.write_text(site.bench.config.read_text().replace(str(site.folder / "copies"), str(small)))
    size = sum(path.stat().st_size for path in site.newest.rglob("*") if path.is_file())
    for room, words in ((size // 2, "are free"), (size + (6 << 20), "the copy did not find room")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room},mode=0711", "tmpfs", str(small)], check=True)
        try:
            done = site.prove("--config", str(config))
            assert (done.exit, words in done.said) == (10, True), done.said
            assert list(small.iterdir()) == []
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("moment", ["restoring", "starting", "reading"])
def test_kill_9_leaves_nothing_that_the_next_test_does_not_remove(site: Site, moment: str) -> None:
    copies = site.folder / "copies"
    known = set(site.bench.unfinished())
    going = site.bench.start("prove", BOOK, *NOW)
    wanted = {"restoring": "*/data", "starting": "*/data/postmaster.pid", "reading": "*/s/.s.PGSQL.5432"}[moment]
    until(lambda: list(copies.glob(wanted)), f"never {moment}")
    going.kill()
    (run,) = set(site.bench.unfinished()) - known
    done = site.bench.run("resume", run)
    assert done.exit == 0, done.said
    assert list(copies.iterdir()) == []
    bodies = [json.loads(path.read_text())["body"] for path in site.bench.state.glob("evidence/0*.json")]
    assert [body["exit"] for body in bodies if body["run"] == run] == [0]
    site.bench.sound(known=sorted(known))


def test_a_killed_test_is_ended_by_the_next_one(site: Site) -> None:
    going = site.bench.start("prove", BOOK, *NOW)
    until(lambda: list((site.folder / "copies").glob("*/data")), "never restoring")
    going.kill()
    (run,) = site.bench.unfinished()
    done = site.prove("-o", "prom")
    assert done.exit == 0, done.said
    assert "aiprod_ops_proof_status" in done.out
    assert site.bench.unfinished() == []
    assert "it was killed" in site.bench.run("runs", "show", run).out
    assert site.bench.run("resume", run).exit != 0


def test_a_backup_that_is_not_there_is_no_backup_that_failed(site: Site) -> None:
    name = f"{site.newest.name}x"
    done = site.prove("--backup", name)
    assert (done.exit, f"there is no backup {name}" in done.err) == (64, True), done.said
    assert site.newest.name in done.err, "the known ones"
    told = site.prove("--backup", name, "-o", "prom")
    assert (told.exit, "aiprod_ops_proof_status{" in told.out) == (64, True), told.said
    (site.newest / "global" / "pg_control").write_bytes(b"")
    done = site.prove("--backup", site.newest.name)
    assert done.exit == 10, done.said
    assert done.out.splitlines()[-1].startswith("next: aiprod-ops evidence show "), done.said


def test_some_clean_backups_in_a_row_give_no_alarm(site: Site) -> None:
    for n in range(3):
        site.bench.sql("INSERT INTO jobs SELECT max(id) + g, 'next', now(), 'y' FROM jobs, generate_series(1, 500) g"
                       " GROUP BY g")  # fmt: skip
        site.repository().take(f"clean{n}")
        site.switch()
        done = site.prove()
        assert done.exit == 0, done.said


@pytest.mark.soak
def test_fifty_clean_backups_in_a_row_give_no_alarm(site: Site) -> None:
    for n in range(50):
        site.bench.sql("UPDATE jobs SET body = 'u' || id WHERE id %% 50 = %(n)s", {"n": n})
        site.repository().take(f"clean{n}")
        site.switch()
        done = site.prove()
        assert done.exit == 0, done.said
        site.repository().remove(min(site.backups.iterdir()).name)
