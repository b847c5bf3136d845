"""The fleet comes up as described, and nothing is left of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg2
import pytest
from click.testing import CliRunner

from aiprod_ops.adapters.local import processes, programs
from aiprod_ops.adapters.local.unprivileged import Way
from aiprod_ops.cli.lab import lab_command
from aiprod_ops.errors import ConfigurationError, Failed, Held, Refused
from aiprod_ops.lab import data, faults, ports, postgres, status, workload
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab
UP = """
import sys; from pathlib import Path; from aiprod_ops.lab import fleet
fleet.up(Path(sys.argv[1]), int(sys.argv[2]), workload=False)
"""


def living_below(folder: Path) -> list[str]:
    """Every process with its working directory there, whoever started it."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_everything_is_up(fleet: Fleet) -> None:
    found = status.status(fleet.folder)
    assert found.is_up
    assert [server.name for server in found.servers] == ["primary", "replica1", "replica2", "redis"]
    assert all(20_000 <= server.port < 32_768 for server in found.servers)
    assert all(server.lag_bytes is not None for server in found.servers[1:3])


def test_the_data_has_the_shape_that_was_promised(fleet: Fleet) -> None:
    dsn = fleet.dsn("aiprod_probe")
    shares = dict(postgres.rows(dsn, "SELECT status, count(*) / 30000::float FROM jobs GROUP BY status"))
    assert shares["completed"] == pytest.approx(0.93, abs=0.01)
    assert shares["queued"] == pytest.approx(0.02, abs=0.005)
    assert shares["processing"] == pytest.approx(0.01, abs=0.005)
    assert postgres.rows(dsn, "SELECT count(*) FROM pipeline_jobs") == [(9000,)]
    [(results, completed)] = postgres.rows(
        dsn, "SELECT (SELECT count(*) FROM results), count(*) FROM jobs WHERE status = 'completed'"
    )
    assert results == completed
    assert postgres.rows(dsn, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == [(0,)]


def test_ids_can_be_computed_without_asking(fleet: Fleet) -> None:
    name = data.job_id(fleet.scale, 12_345)
    assert postgres.rows(fleet.dsn("aiprod_probe"), "SELECT count(*) FROM jobs WHERE id = %(id)s", {"id": name}) == [
        (1,)
    ]


def test_the_same_seed_makes_the_same_rows(fleet: Fleet) -> None:
    assert b"".join(data.pieces("jobs", fleet.scale)) == b"".join(data.pieces("jobs", fleet.scale))


def test_the_probe_cannot_change_anything(fleet: Fleet) -> None:
    with postgres.session(fleet.dsn("aiprod_probe")) as session, session.cursor() as cursor:
        for statement in ("DELETE FROM jobs", "CREATE TABLE mine ()", "CREATE INDEX ON jobs (status)"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)


def test_the_probe_reads_the_log_by_sql(fleet: Fleet) -> None:
    read = "SELECT pg_read_file(pg_current_logfile('jsonlog'), 0, 1000000, true)"
    [(text,)] = postgres.rows(fleet.dsn("aiprod_probe"), read)
    assert json.loads(text.splitlines()[0])["backend_type"] == "postmaster"


def test_a_slow_statement_is_logged_with_its_literals(fleet: Fleet) -> None:
    postgres.rows(fleet.dsn("aiprod_app"), "SELECT pg_sleep(0.12), %(word)s AS word", {"word": "literal-4711"})
    wait_for(lambda: any("literal-4711" in file.read_text() for file in fleet.primary.data.glob("log/*.json")))


def test_wal_is_archived(fleet: Fleet) -> None:
    [(segment,)] = postgres.rows(fleet.dsn("postgres"), "SELECT pg_walfile_name(pg_switch_wal())")
    wait_for((fleet.folder / "archive" / segment).exists)


def test_no_password_stands_in_a_dsn_or_a_command_line(fleet: Fleet) -> None:
    words = [line.rsplit(":", 1)[1] for line in fleet.passfile.read_text().splitlines()]
    words += fleet.redis.passwords.values()
    assert fleet.passfile.stat().st_mode & 0o777 == 0o600
    shown = fleet.config.read_text() + (fleet.folder / folders.MARKER).read_text()
    shown += "".join(" ".join(psutil.Process(found.pid).cmdline()) for found in processes.below(fleet.folder))
    shown += "".join(file.read_text() for file in fleet.primary.data.glob("log/*"))
    assert not [word for word in words if word in shown]


def test_the_configuration_names_what_the_tool_needs(fleet: Fleet) -> None:
    target = tomllib.loads(fleet.config.read_text())["targets"]["lab"]
    for name in ("probe", "actor", "backup"):
        assert postgres.rows(target[name], "SELECT current_user") == [(f"aiprod_{name}",)]
    for replica in target["replicas"]:
        assert postgres.rows(replica, "SELECT pg_is_in_recovery()") == [(True,)]
    assert Path(target["postgres_bin"], "pg_basebackup").is_file()
    assert Path(target["log"]).is_dir()


def test_each_shape_of_the_workload_runs(fleet: Fleet) -> None:
    shapes = workload.run(fleet.dsn("aiprod_app"), fleet.scale, 2).summary()["shapes"]
    assert {name: figures["calls"] for name, figures in shapes.items()} == {shape.name: 2 for shape in workload.SHAPES}


def test_up_on_a_running_lab_answers_that_one(fleet: Fleet) -> None:
    said: list[str] = []
    again = fleets.up(fleet.folder, report=said.append)
    assert again.ports == fleet.ports
    assert said == [f"the lab in {fleet.folder} is up already"]


def test_status_as_json(fleet: Fleet) -> None:
    answer = CliRunner().invoke(
        lab_command, ["status", "--folder", str(fleet.folder), "-o", "json"], catch_exceptions=False
    )
    found = json.loads(answer.stdout)
    assert found["servers"][0]["pid"] == fleet.primary.pid
    assert found["rows"]["jobs"] == pytest.approx(30_000, rel=0.05)


def test_the_background_workload_reconnects_and_ends_with_its_folder(short_path: Path) -> None:
    made = fleets.up(short_path / "w", 2_000)
    file = made.folder / "workload.json"
    wait_for(file.exists)
    wait_for(lambda: json.loads(file.read_text())["shapes"])
    faults.kill_postmaster(made.primary)
    wait_for(lambda: json.loads(file.read_text())["errors"] > 0)
    made.primary.start()
    before = json.loads(file.read_text())["at"]
    wait_for(lambda: json.loads(file.read_text())["at"] > before and json.loads(file.read_text())["shapes"])
    fleets.down(made.folder)
    assert living_below(made.folder) == []


def test_down_removes_everything_and_can_be_repeated(short_path: Path) -> None:
    made = fleets.up(short_path / "d", 500, workload=False)
    with faults.frozen(made.replicas[0]):
        done = fleets.down(made.folder)
    assert done[-1] == f"removed {made.folder}"
    assert not made.folder.exists()
    assert living_below(made.folder) == []
    assert fleets.down(made.folder) == []


@pytest.mark.parametrize("moment", ["initdb", "load", "copy", "serving"])
def test_down_after_kill_9_of_up(short_path: Path, moment: str) -> None:
    folder = short_path / f"k-{moment}"
    reached: dict[str, Callable[[], object]] = {
        "initdb": (folder / "primary" / "PG_VERSION").exists,
        "load": lambda: any("aiprod_ops.lab" in " ".join(_command(pid)) for pid in _pids(folder)),
        "copy": (folder / "replica1").exists,
        "serving": (folder / "redis" / "redis.pid").exists,
    }
    child = subprocess.Popen([sys.executable, "-c", UP, str(folder), "100000"])
    wait_for(reached[moment])
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with pytest.raises(Refused, match="not finished"):
        fleets.up(folder, 500)
    fleets.down(folder)
    assert not folder.exists()
    assert living_below(folder) == []


def _pids(folder: Path) -> list[int]:
    return [found.pid for found in processes.below(folder)] if folder.exists() else []


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def test_a_second_up_at_the_same_time_is_refused(short_path: Path) -> None:
    folder = short_path / "two"
    child = subprocess.Popen([sys.executable, "-c", UP, str(folder), "1000"])
    wait_for((folder / folders.MARKER).exists)
    with pytest.raises(Held, match=rf"pid {child.pid}"):
        fleets.up(folder)
    assert child.wait() == 0
    fleets.down(folder)


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(Refused, match="not a lab"):
        fleets.down(tmp_path)
    with pytest.raises(Refused, match="not a lab"):
        fleets.up(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != folders.LOCK] == ["thesis.txt"]


def test_somebody_looking_at_the_folder_is_not_stopped(short_path: Path) -> None:
    made = fleets.up(short_path / "look", 500, workload=False)
    reader = subprocess.Popen(["sleep", "60"], cwd=made.primary.data)
    fleets.down(made.folder)
    assert reader.poll() is None
    reader.kill()
    reader.wait()


def test_a_taken_port_is_passed_over(short_path: Path) -> None:
    wanted = ports.free(short_path / "port", 4)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wanted[0]))
        taken.listen()
        assert wanted[0] not in ports.free(short_path / "port", 4)


def test_a_revision_that_does_not_exist(short_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no migration to 999"):
        fleets.up(short_path / "bad", 500, revision="999")
    assert not (short_path / "bad").exists()


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no program `postgres`"):
        fleets.up(tmp_path / "x", postgres_bin=tmp_path)
    assert not (tmp_path / "x").exists()


if sys.platform == "linux":

    def test_down_frees_the_shared_memory_of_a_killed_server(short_path: Path) -> None:
        made = fleets.up(short_path / "shm", 500, workload=False)
        key = (made.primary.data / "postmaster.pid").read_text().splitlines()[6].split()
        faults.kill_postmaster(made.primary)
        assert key in _shared_memory()
        fleets.down(made.folder)
        assert key not in _shared_memory()

    def _shared_memory() -> list[list[str]]:
        return [line.split()[:2] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]


if os.geteuid() == 0 and sys.platform == "linux":

    def test_a_full_disk_is_one_clear_error(short_path: Path) -> None:
        with faults.small_filesystem(short_path / "full", Bytes(60_000_000)) as folder:
            with pytest.raises(Failed, match="No space left"):
                fleets.up(folder, 100_000)
            assert living_below(folder) == []

    def test_where_user_namespaces_are_refused(short_path: Path) -> None:
        made = fleets.up(short_path / "nobody", 500, workload=False, way=Way.NOBODY)
        owners = {psutil.Process(found.pid).username() for found in processes.below(made.primary.data)}
        fleets.down(made.folder)
        assert owners == {"nobody"}

    def test_a_folder_closed_to_nobody_is_refused(tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        with pytest.raises(ConfigurationError, match="cannot enter"):
            fleets.up(tmp_path / "lab", 500, way=Way.NOBODY)


for _place in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):

    @pytest.mark.parametrize("place", [_place.parent], ids=[_place.parent.parent.name])
    def test_a_postgresql_of_the_system(short_path: Path, place: Path) -> None:
        made = fleets.up(short_path / "system", 2_000, place, workload=False)
        found = status.status(made.folder)
        fleets.down(made.folder)
        assert found.is_up
        assert programs.find(place).major == made.programs.major
