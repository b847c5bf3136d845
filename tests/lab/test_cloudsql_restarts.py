"""The emulator as a process: killed and started again, its operations found from elsewhere, beside a lab, and gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from cloudsql_bench import Bench, apart, gone, here, living_below, until

from aiprod_ops.adapters.cloudsql.requests import Settings
from aiprod_ops.cli.lab import lab_command
from aiprod_ops.errors import Broken, ConfigurationError, Failed, Held, Refused
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import postgres
from aiprod_ops.lab.cloudsql import faults
from aiprod_ops.lab.cloudsql.emulator import PROJECT, Emulator, Options
from aiprod_ops.lab.cloudsql.faults import Fault

pytestmark = pytest.mark.lab

WAIT = """
import sys
from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
operation = waiting.wait(CloudSqlAdmin(sys.argv[1], endpoint=sys.argv[2]), sys.argv[3], SystemClock())
print(operation.status, operation.type, operation.target)
"""


def test_killed_and_started_again(short_path: Path) -> None:
    folder = short_path / "killed"
    with apart(folder, "--operation-time", "50ms") as (process, bench):
        bench.make("main")
        bench.sql("main", "CREATE TABLE rows (n int); INSERT INTO rows VALUES (1)")
        backup = bench.wait(bench.admin.take_backup("main")).backup_id
        faults.inject(bench.url, Fault("slow", seconds=5))
        cloned = bench.admin.clone("main", "half")
        until(lambda: bench.admin.operation(cloned.name).status == "RUNNING")
        port = bench.admin.instance("main").port
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert living_below(folder) != []  # servers outlive it, as instances outlive a control plane

    with apart(folder, "--operation-time", "50ms") as (process, again):
        assert again.url == bench.url
        assert again.admin.instance("main").port == port
        assert again.rows("main") == [1]
        lost = again.admin.operation(cloned.name)
        assert lost.is_done
        assert "lost" in lost.problems[0].message
        with pytest.raises(Failed, match="lost"):
            again.wait(cloned)
        assert again.admin.instance("half").state == "FAILED"
        assert again.admin.backup("main", backup).is_usable
        again.wait(again.admin.delete("half"))
        again.wait(again.admin.clone("main", "whole"))
        assert again.rows("whole") == [1]
        with pytest.raises(Held, match="another emulator"):
            Emulator(folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    gone(folder)


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.3, 0.6])
def test_killed_while_roles_are_exchanged(short_path: Path, after_s: float) -> None:
    """Whenever it dies: one primary, the one that the API names, with every row; the others follow it."""
    folder = short_path / f"roles{after_s}"
    names = ("main", "east", "west")
    with apart(folder, "--operation-time", "0s") as (process, bench):
        bench.make("main", region="us-central1")
        for name, region in (("east", "us-east1"), ("west", "us-west1")):
            bench.make(name, primary="main", region=region)
        bench.wait(bench.admin.patch("main", Settings(), dr_replica="east"))
        bench.sql("main", "CREATE TABLE rows (n int); INSERT INTO rows VALUES (1)")
        begun = bench.admin.switchover("east")
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with apart(folder, "--operation-time", "0s") as (process, again):
        assert again.admin.operation(begun.name).is_done
        primaries = [name for name in names if not again.admin.instance(name).is_replica]
        assert len(primaries) == 1
        standby = {name: again.sql(name, "SELECT pg_is_in_recovery()") == [(True,)] for name in names}
        assert [name for name in names if not standby[name]] == primaries
        again.sql(primaries[0], "INSERT INTO rows VALUES (2)")
        for name in names:
            until(lambda name=name: again.rows(name) == [1, 2])


def test_what_its_owner_stopped_stays_stopped(short_path: Path) -> None:
    """Through a restart of the emulator; and where another took its place it comes back as that one's replica."""
    folder = short_path / "stopped"
    with here(folder) as (_, bench):
        bench.make("main", region="us-central1")
        bench.make("east", region="us-east1", primary="main")
        bench.wait(bench.admin.patch("main", Settings(), dr_replica="east"))
        bench.sql("main", "CREATE TABLE rows (n int PRIMARY KEY)")
        bench.wait(bench.admin.patch("main", Settings(activation="NEVER")))
        assert (bench.admin.instance("main").is_down, bench.pid("main")) == (True, None)
    with here(folder) as (_, bench):
        assert bench.pid("main") is None
        bench.wait(bench.admin.patch("main", Settings(activation="ALWAYS")))
        bench.sql("main", "INSERT INTO rows VALUES (1)")
        until(lambda: bench.rows("east") == [1])
        bench.wait(bench.admin.patch("main", Settings(activation="NEVER")))
        bench.wait(bench.admin.promote("east", failover=True))
        assert (bench.pid("main"), bench.admin.instance("main").primary) == (None, "east")
        bench.sql("east", "INSERT INTO rows VALUES (2)")
        bench.wait(bench.admin.patch("main", Settings(activation="ALWAYS")))
        assert bench.sql("main", "SELECT pg_is_in_recovery()") == [(True,)]
        until(lambda: bench.rows("main") == [1, 2])


def test_an_operation_is_waited_for_by_another_process(short_path: Path) -> None:
    with here(short_path / "elsewhere") as (_, bench):
        bench.make("main")
        faults.inject(bench.url, Fault("slow", seconds=1.5))
        begun = bench.admin.take_backup("main")
        command = [sys.executable, "-c", WAIT, PROJECT, bench.url, begun.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        assert done.stdout == "DONE BACKUP_VOLUME main\n"


def test_a_deleted_instance_leaves_no_process_and_no_file(short_path: Path) -> None:
    folder = short_path / "gone"
    with here(folder) as (_, bench):
        bench.make("main")
        bench.wait(bench.admin.take_backup("main"))
        assert any("postgres" in each for each in living_below(folder))
        bench.wait(bench.admin.delete("main"))
        gone(folder)
        left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert left == {"lock", "cloudsql.json", "pgpass", "instances", "backups", "s"}
        assert (folder / "pgpass").read_text() == ""


def test_only_ours_and_only_loopback(short_path: Path) -> None:
    foreign = short_path / "foreign"
    foreign.mkdir()
    (foreign / "letter").write_text("dear")
    with pytest.raises(Refused, match="not an emulator's"):
        Emulator(foreign)
    assert [path.name for path in foreign.iterdir()] == ["letter"]
    with here(short_path / "loopback") as (emulator, bench):
        bench.make("main")
        server = bench.pid("main")
        assert server is not None
        ours = {*psutil.Process().net_connections("tcp"), *psutil.Process(server).net_connections("tcp")}
        addresses = {each.laddr.ip for each in ours if each.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}
        assert (emulator.folder / "cloudsql.json").stat().st_mode & 0o077 == 0
        assert (emulator.folder / "pgpass").stat().st_mode & 0o077 == 0


def test_what_does_not_fit_is_refused_and_holds_nothing(short_path: Path) -> None:
    folder = short_path / "fit"
    with here(folder, Options(project="acme")) as (emulator, bench):
        port = emulator.state.port
        with pytest.raises(Failed, match=f"port {port} is taken"):
            Emulator(short_path / "second", Options(port=port))
        assert bench.lab()["project"] == "acme"
    with pytest.raises(Refused, match="project acme"):
        Emulator(folder, Options(project="other"))
    with here(folder) as (emulator, _):
        assert (emulator.state.project, emulator.state.port) == ("acme", port)
    (folder / "cloudsql.json").write_text("{")
    with pytest.raises(Broken):
        Emulator(folder)
    too_long = short_path / ("x" * 90)
    with pytest.raises(ConfigurationError, match="too long"):
        Emulator(too_long)


def test_a_usage_error_starts_nothing(short_path: Path) -> None:
    command = ["cloudsql", "--folder", str(short_path / "never"), "--operation-time", "soon"]
    assert CliRunner().invoke(lab_command, command).exit_code == 2
    assert not (short_path / "never").exists()


def test_the_fleet_as_instances(short_path: Path) -> None:
    folder = short_path / "adopted"
    fleet = fleets.up(folder, 300, workload=False, cloudsql=True)
    try:
        told = _status(folder)
        bench = Bench(told["cloudsql_url"])
        assert told["cloudsql_pid"] == bench.lab()["pid"]
        primary = bench.admin.instance("aiprod")
        assert primary.replicas == ("aiprod-replica1", "aiprod-replica2")
        assert (primary.edition, primary.is_regional, primary.deletion_protected) == ("ENTERPRISE_PLUS", True, True)
        jobs = postgres.rows(fleet.dsn("aiprod_probe"), "SELECT count(*) FROM jobs")

        # A backup, and a copy of it that has the rows, in the lab's own words and roles.
        bench.wait(bench.admin.take_backup("aiprod"))
        bench.wait(bench.admin.clone("aiprod", "copy"))
        passfile = bench.lab()["passfile"]
        port = bench.admin.instance("copy").port
        copy = f"postgresql://postgres@127.0.0.1:{port}/aiprod?passfile={passfile}"
        assert postgres.rows(copy, "SELECT count(*) FROM jobs") == jobs
        bench.wait(bench.admin.patch("copy", Settings(deletion_protected=False)))
        bench.wait(bench.admin.delete("copy"))

        # Roles change; the lab's status says so, and nothing acknowledged is lost.
        bench.wait(bench.admin.switchover("aiprod-replica1"))
        roles = {server["name"]: server["role"] for server in _status(folder)["servers"]}
        assert roles == {"primary": "replica", "replica1": "primary", "replica2": "replica", "redis": "redis"}
        moved = fleet.dsn("aiprod_app", fleet.replicas[0])
        postgres.rows(moved, "UPDATE users SET email = 'moved@example.com' WHERE id = (SELECT id FROM users LIMIT 1)")
        wanted = "SELECT count(*) FROM users WHERE email = 'moved@example.com'"
        for server in (fleet.primary, fleet.replicas[1]):
            until(lambda server=server: postgres.rows(fleet.dsn("aiprod_probe", server), wanted) == [(1,)])
        until(lambda: sum(each["lag_bytes"] is not None for each in _status(folder)["servers"]) == 2)
        bench.wait(bench.admin.switchover("aiprod"))
        version = bench.admin.instance("aiprod").settings_version
        bench.wait(bench.admin.failover("aiprod", version))
        assert postgres.rows(fleet.dsn("aiprod_probe"), wanted) == [(1,)]

        # Its death is seen, and `up` brings it back with what it knew.
        os.kill(_status(folder)["cloudsql_pid"], signal.SIGKILL)
        until(lambda: _status(folder)["cloudsql_pid"] is None)
        assert "DOWN" in CliRunner().invoke(lab_command, ["status", "--folder", str(folder)]).output
        fleets.up(folder, cloudsql=True)
        assert _status(folder)["cloudsql_url"] == bench.url
        assert bench.admin.backups("aiprod")[0].is_usable
    finally:
        fleets.down(folder)
    assert not folder.exists()
    gone(folder)


def _status(folder: Path) -> dict[str, object]:
    done = CliRunner().invoke(lab_command, ["status", "-o", "json", "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.output)
    return found
