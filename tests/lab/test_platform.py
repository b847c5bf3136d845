"""Copies are complete, disposable, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aiprod_ops.adapters.local.platform import LocalPlatform, processes
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.errors import ConfigurationError, Failed, Refused
from aiprod_ops.lab import faults, postgres
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab


def connect(dsn: str) -> PostgresDatabase:
    return PostgresDatabase(dsn, writes=True, application_name="test")


def platform_of(fleet: Fleet, copies: Path | None = None) -> LocalPlatform:
    return LocalPlatform(
        lambda: fleet.dsn("aiprod_backup"),
        copies or fleet.folder / "copies",
        connect,
        data_directory=fleet.primary.data,
    )


@pytest.fixture
def platform(fleet: Fleet) -> LocalPlatform:
    return platform_of(fleet)


def is_clean(folder: Path) -> bool:
    return not list(folder.iterdir()) and not processes.below(folder)


def test_a_copy_is_a_standalone_primary_with_the_same_data(fleet: Fleet, platform: LocalPlatform) -> None:
    said: list[str] = []
    with platform.copy("run-1", said.append) as (database, restored):
        [row] = database.query("SELECT count(*) AS jobs FROM jobs")
        settings = database.query(
            "SELECT name, setting FROM pg_settings WHERE name IN ('archive_mode', 'autovacuum', 'random_page_cost', "
            "'listen_addresses', 'shared_preload_libraries', 'synchronous_standby_names')"
        )
        server = database.server()
        database.execute("CREATE INDEX CONCURRENTLY of_the_copy ON jobs (status)")
    assert postgres.rows(fleet.dsn("aiprod_probe"), "SELECT count(*) FROM jobs") == [(row["jobs"],)]
    assert not server.is_standby
    assert server.is_superuser
    assert {row["name"]: row["setting"] for row in settings} == {
        "archive_mode": "off",
        "autovacuum": "off",
        "listen_addresses": "",
        "random_page_cost": "1.1",
        "shared_preload_libraries": "pg_stat_statements",
        "synchronous_standby_names": "",
    }
    assert restored.name == "run-1"
    assert restored.seconds > 0
    assert restored.size > 20_000_000
    assert restored.checks[0] == "pg_verifybackup: intact"
    assert postgres.rows(fleet.dsn("aiprod_probe"), "SELECT to_regclass('of_the_copy')") == [(None,)]
    assert len(said) == 3
    assert is_clean(fleet.folder / "copies")


def test_a_copy_is_destroyed_when_its_user_fails(fleet: Fleet, platform: LocalPlatform) -> None:
    with pytest.raises(KeyError), platform.copy("run-2"):
        raise KeyError("a bug")
    assert is_clean(fleet.folder / "copies")


def test_a_flipped_byte_is_refused(fleet: Fleet, platform: LocalPlatform) -> None:
    def flip(text: str) -> None:
        if text.startswith("verifying"):
            [victim] = [*(fleet.folder / "copies" / "run-3" / "data" / "global").glob("pg_control")]
            content = bytearray(victim.read_bytes())
            content[100] ^= 1
            victim.write_bytes(content)

    with pytest.raises(Failed, match="pg_verifybackup failed"), platform.copy("run-3", flip):
        pass
    assert is_clean(fleet.folder / "copies")


def test_a_killed_base_backup_leaves_nothing(fleet: Fleet, platform: LocalPlatform) -> None:
    def kill_soon(text: str) -> None:
        if text.startswith("base backup"):
            script = (
                "import sys, time, os, signal; from pathlib import Path\n"
                "from aiprod_ops.adapters.local import processes\n"
                "while not (found := [p for p in processes.below(Path(sys.argv[1])) if p.name == 'pg_basebackup']):\n"
                "    time.sleep(0.005)\n"
                "os.kill(found[0].pid, signal.SIGKILL)\n"
            )
            killers.append(subprocess.Popen([sys.executable, "-c", script, str(fleet.folder / "copies")]))
            time.sleep(0.3)

    killers: list[subprocess.Popen[bytes]] = []
    with pytest.raises(Failed, match="pg_basebackup failed"), platform.copy("run-4", kill_soon):
        pass
    killers[0].wait()
    assert is_clean(fleet.folder / "copies")


def test_a_copy_whose_owner_was_killed_is_swept(fleet: Fleet, platform: LocalPlatform) -> None:
    script = (
        "import sys, time; from pathlib import Path; from aiprod_ops.adapters.local.platform import LocalPlatform\n"
        "from aiprod_ops.adapters.postgres.database import PostgresDatabase\n"
        "connect = lambda dsn: PostgresDatabase(dsn, writes=True, application_name='test')\n"
        "with LocalPlatform(lambda: sys.argv[1], Path(sys.argv[2]), connect).copy('run-5'):\n"
        "    time.sleep(60)\n"
    )
    copies = fleet.folder / "copies"
    child = subprocess.Popen([sys.executable, "-c", script, fleet.dsn("aiprod_backup"), str(copies)])
    _wait(lambda: "started" in _log(copies / "run-5"))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert platform.sweep(lambda name: name == "run-5") == []
    assert processes.below(copies / "run-5")
    assert platform.sweep(lambda _: False) == ["run-5"]
    assert is_clean(copies)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _log(folder: Path) -> str:
    return "started" if (folder / "data" / "postmaster.pid").exists() else ""


def test_two_copies_of_one_name(platform: LocalPlatform) -> None:
    with platform.copy("run-6"), pytest.raises(Refused, match="already"), platform.copy("run-6"):
        pass


def test_a_name_stays_in_its_folder(platform: LocalPlatform) -> None:
    with pytest.raises(ConfigurationError, match="not a name"), platform.copy("../primary"):
        pass


def test_a_long_path_gets_its_sockets_elsewhere(fleet: Fleet, short_path: Path) -> None:
    copies = short_path / ("long-" * 20)
    with platform_of(fleet, copies).copy("run-7") as (database, _):
        assert not database.server().is_standby
    assert is_clean(copies)


def test_prepared_transactions_do_not_hold_up_a_copy(fleet: Fleet, platform: LocalPlatform) -> None:
    with faults.prepared_transaction(fleet, table="jobs"), platform.copy("run-8") as (database, restored):
        assert database.query("SELECT gid FROM pg_prepared_xacts") == []
        database.execute("CREATE INDEX CONCURRENTLY of_the_copy ON jobs (status)")
    assert restored.checks[-1] == "1 prepared transactions ended"


def test_tablespaces_are_copied_into_the_copy(fleet: Fleet, platform: LocalPlatform, short_path: Path) -> None:
    place = short_path / "space"
    place.mkdir(mode=0o700)
    postgres.rows(fleet.dsn("postgres"), f"CREATE TABLESPACE fast LOCATION '{place}'")
    try:
        postgres.rows(fleet.dsn("postgres"), "CREATE TABLE spaced TABLESPACE fast AS SELECT 1 AS one")
        with platform.copy("run-12") as (database, _):
            [row] = database.query("SELECT pg_tablespace_location(oid) AS place FROM pg_tablespace WHERE oid > 9999")
            assert Path(row["place"]).is_relative_to(fleet.folder / "copies" / "run-12")
            assert database.query("SELECT one FROM spaced") == [{"one": 1}]
    finally:
        postgres.rows(fleet.dsn("postgres"), "DROP TABLE IF EXISTS spaced")
        postgres.rows(fleet.dsn("postgres"), "DROP TABLESPACE fast")
    assert is_clean(fleet.folder / "copies")


def test_a_password_in_the_dsn_stays_out_of_the_process_list() -> None:
    dsn, env = without_password("postgresql://backup:s3cret@db.example.org/aiprod?sslmode=require")
    assert "s3cret" not in dsn
    assert env == {"PGPASSWORD": "s3cret"}


def test_free_space(fleet: Fleet, platform: LocalPlatform) -> None:
    assert (platform.free() or 0) > 0
    assert LocalPlatform(str, fleet.folder, connect).free() is None


def test_programs_of_another_version_are_named(fleet: Fleet, short_path: Path) -> None:
    fake = short_path / "fake"
    fake.mkdir()
    (fake / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.1'\n")
    (fake / "postgres").chmod(0o755)
    platform = LocalPlatform(lambda: fleet.dsn("aiprod_backup"), fleet.folder / "copies", connect, postgres_bin=fake)
    with pytest.raises(ConfigurationError, match="the server is PostgreSQL 18") as caught, platform.copy("run-9"):
        pass
    assert "--postgres-bin" in caught.value.hint


if os.geteuid() == 0 and sys.platform == "linux":

    def test_too_little_room_is_refused_with_figures(fleet: Fleet, short_path: Path) -> None:
        with faults.small_filesystem(short_path / "tiny", Bytes(20_000_000)) as copies:
            platform = platform_of(fleet, copies)
            with pytest.raises(Refused, match=r"needs \d+ MB in .*, 20.0 MB are free"), platform.copy("run-10"):
                pass
            assert is_clean(copies)

    def test_a_disk_that_fills_up_meanwhile(fleet: Fleet, short_path: Path) -> None:
        with faults.small_filesystem(short_path / "filling", Bytes(400_000_000)) as copies:

            def fill(text: str) -> None:
                if text.startswith("base backup"):
                    (copies / "run-11" / "ballast").write_bytes(bytes(380_000_000))

            with pytest.raises(Failed, match="No space left"), platform_of(fleet, copies).copy("run-11", fill):
                pass
            assert is_clean(copies)
