"""The primary is moved while others write: nothing acknowledged is lost, never do two take writes, and a run that was
killed anywhere is finished by `resume`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Bench, lab, until
from moving import BOOK, LEAST, applied, deaths, lost, on, other, planned, primary, roles, servers

from aiprod_ops.adapters.local import processes
from aiprod_ops.lab import faults
from aiprod_ops.lab.writers import TABLE, writing

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(5_000) as made:
        made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        yield made


def test_planned_under_load_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    for turn in range(3):
        before, digest = primary(bench), planned(bench)
        with writing(bench.fleet, tmp_path / str(turn)) as writers:
            done = applied(bench, digest)
        assert done.exit == 0, done.said
        assert primary(bench) != before
        assert sum(roles(bench).values()) == 1
        assert len(roles(bench)) == 3
        assert lost(bench, writers) == []
    bench.sound()


def test_it_wants_the_name_of_the_target(bench: Bench) -> None:
    before = primary(bench)
    done = bench.run("run", BOOK, "--apply", planned(bench))
    assert done.exit == 12, done.said
    assert primary(bench) == before


@pytest.mark.parametrize(
    "death",
    deaths(
        ["after 3", "before 4", "after 4", "before 5", "after 5", "after 6", "before 7"],
        {"after 3", "before 5", "after 6"},
    ),
)
def test_killed_at_a_record_it_is_finished(bench: Bench, death: str, tmp_path: Path) -> None:
    before, digest = primary(bench), planned(bench)
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", BOOK, "--apply", digest, "--confirm", "lab"]
    with writing(bench.fleet, tmp_path / "writers") as writers:
        died = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
        assert sum(roles(bench).values()) <= 1
        (run,) = bench.unfinished()
        done = bench.run("resume", run)
        assert done.exit == 0, done.said
    assert primary(bench) != before
    assert lost(bench, writers) == []


def test_killed_between_fence_and_promotion_it_is_taken_back(bench: Bench, tmp_path: Path) -> None:
    before, digest = primary(bench), planned(bench)
    with writing(bench.fleet, tmp_path / "writers") as writers:
        going = bench.start("run", BOOK, "--apply", digest, "--confirm", "lab")
        until(lambda: not servers(bench)[before].is_running(), "it is not fenced")
        going.kill()
        (run,) = bench.unfinished()
        done = bench.run("rollback", run)
        assert done.exit == 0, done.said
    assert sum(roles(bench).values()) == 1
    assert lost(bench, writers) == []
    for each in servers(bench).values():
        if not each.is_running():
            each.start()
    until(lambda: len(roles(bench)) == 3, "not all are there")


def test_a_finished_move_is_taken_back(bench: Bench, tmp_path: Path) -> None:
    before, digest = primary(bench), planned(bench)
    with writing(bench.fleet, tmp_path / "writers") as writers:
        done = applied(bench, digest)
        assert done.exit == 0, done.said
        run = bench.run("runs", "list", "-o", "json").json()[-1]["run"]
        asked = bench.run("rollback", run)
        digest = asked.err.partition("--apply ")[2].split()[0]
        done = bench.run("rollback", run, "--apply", digest, "--confirm", "lab")
        assert done.exit == 0, done.said
    assert primary(bench) == before
    assert len(roles(bench)) == 3
    assert lost(bench, writers) == []


def test_a_candidate_that_does_not_catch_up_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    """Its replay is paused after the guards looked: exit 20, and the old primary serves again."""
    before, digest = primary(bench), planned(bench, "--to", other(bench), "--patience", "2s")
    candidate = other(bench)
    with writing(bench.fleet, tmp_path / "writers") as writers, faults.frozen(servers(bench)[candidate]):
        done = applied(bench, digest)
    assert done.exit in (10, 20), done.said
    assert primary(bench) == before
    assert lost(bench, writers) == []


@pytest.mark.parametrize("fault", ["paused", "behind another"])
def test_who_may_not_is_named(bench: Bench, fault: str) -> None:
    name = other(bench)
    if fault == "paused":
        on(bench, name, "SELECT pg_wal_replay_pause()")
        says = "its replay is paused"
    else:
        on(bench, name, "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
        on(bench, name, "SELECT pg_reload_conf()")
        says = "it does not stream now"
    try:
        until(lambda: says in bench.run("check", BOOK).out, "not seen")
        refused = bench.run("plan", BOOK, "--to", name, "-o", "json")
        assert refused.exit == 10, refused.said
    finally:
        on(bench, name, "SELECT pg_wal_replay_resume()")
        upstream = f"host={bench.fleet.folder}/s port={servers(bench)[primary(bench)].port} user=aiprod_backup"
        secret = f"passfile={bench.fleet.folder}/replication.pgpass application_name={name}"
        on(bench, name, f"ALTER SYSTEM SET primary_conninfo = '{upstream} {secret}'")
        on(bench, name, "SELECT pg_reload_conf()")


@pytest.mark.parametrize("way", ["killed", "postmaster killed", "frozen"])
def test_unplanned_fences_the_old_one_and_brings_it_back(bench: Bench, way: str, tmp_path: Path) -> None:
    before = primary(bench)
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    server = servers(bench)[before]
    for name in roles(bench):  # a replica asks a silent primary whether it lives after half of this
        on(bench, name, "ALTER SYSTEM SET wal_receiver_timeout = '4s'")
        on(bench, name, "SELECT pg_reload_conf()")
    with writing(bench.fleet, tmp_path / "writers") as writers:
        struck = time.monotonic()
        if way == "killed":
            faults.kill_postmaster(server)
        elif way == "postmaster killed":
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
        else:
            for each in processes.below(server.data):
                os.kill(each.pid, signal.SIGSTOP)
        made = until(
            lambda: (
                (seen := bench.run("plan", BOOK, "--mode", "unplanned", "-o", "json")).exit == 0
                and seen.json()["plan"]["actions"]
                and seen
            ),
            "no plan against it",
        )
        done = applied(bench, made.json()["digest"])
    assert done.exit == 0, done.said
    assert primary(bench) != before
    assert len(roles(bench)) == 3
    assert bench.run("check", "replication").exit == 0
    told = made.json()["plan"]["actions"][0]["subject"]["loss"]
    gone = lost(bench, writers)
    assert told["size"] >= LEAST * len(gone)
    assert told["seconds"] >= struck - min((at for at, _ in gone), default=struck)


def test_a_primary_that_lives_is_not_called_lost(bench: Bench) -> None:
    refused = bench.run("plan", BOOK, "--mode", "unplanned", "-o", "json")
    assert refused.exit == 10, refused.said
    config = bench.config.with_name("cut.toml")
    port = servers(bench)[primary(bench)].port
    config.write_text(bench.config.read_text().replace(f"port={port}", "port=1"))
    made = bench.run("plan", BOOK, "--mode", "unplanned", "-o", "json", "--config", str(config))
    if made.exit == 0 and made.json()["plan"]["actions"]:
        words = ("run", BOOK, "--apply", made.json()["digest"], "--confirm", "lab", "--config", str(config))
        done = bench.run(*words)
        assert done.exit == 10, done.said
        assert "the cut is between us and it" in done.said
    config.unlink()
