"""Backups are taken and pruned on a real server: killed in the middle, on a full disk, by two engineers at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, backdated, lab, until

from aiprod_ops.adapters.local import processes
from aiprod_ops.lab import faults
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab
ROWS = 20_000
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
NOW = ("--now", "true")  #: however young the newest is


@pytest.fixture(scope="module")
def fleet_bench() -> Iterator[Bench]:
    with lab(ROWS) as bench:
        yield bench


@pytest.fixture
def bench(fleet_bench: Bench) -> Iterator[Bench]:
    """The lab without a backup; afterwards nothing half-done, a sound chain, no run that waits."""
    shutil.rmtree(stored(fleet_bench), ignore_errors=True)
    yield fleet_bench
    assert left_over(fleet_bench) == []
    fleet_bench.sound()


def stored(bench: Bench) -> Path:
    return bench.fleet.folder / "backups"


def names(bench: Bench) -> list[str]:
    """Complete backups, oldest first."""
    there = stored(bench)
    return sorted(path.name for path in there.iterdir() if "." not in path.name) if there.is_dir() else []


def left_over(bench: Bench) -> list[str]:
    there = stored(bench)
    return [path.name for path in there.iterdir() if path.suffix in (".part", ".going")] if there.is_dir() else []


def planned(bench: Bench, book: str, *options: str) -> str:
    made = bench.run("plan", book, "-o", "json", *options)
    assert made.exit == 0, made.said
    assert made.json()["plan"]["actions"], made.said
    return str(made.json()["digest"])


def take(bench: Bench) -> Done:
    return bench.run("run", "take-backup", "--apply", planned(bench, "take-backup", *NOW))


def found(bench: Bench, book: str) -> dict[str, Any]:
    checked = bench.run("check", book, "-o", "json")
    return {finding["id"]: finding for finding in checked.json()["checks"][0]["findings"]}


# Taking


def test_one_is_taken_and_listed_and_then_there_is_nothing_to_do(bench: Bench) -> None:
    assert found(bench, "backups")["newest"]["status"] == "CRITICAL"
    digest = planned(bench, "take-backup")
    done = bench.run("run", "take-backup", "--apply", digest)
    assert done.exit == 0, done.said
    (name,) = names(bench)
    told = found(bench, "backups")
    assert (told["newest"]["status"], told["recoverable"]["status"]) == ("OK", "OK"), told
    assert told["newest"]["note"].startswith(name)
    assert "stranger" not in told, "its manifest tells of which system it is"
    again = bench.run("run", "take-backup", "--apply", digest)
    assert (again.exit, "Nothing was changed" in again.out) == (0, True), again.said
    named = bench.config.with_name("named.toml")
    shutil.copy(bench.config, named)
    again = bench.run("plan", "take-backup", "--config", str(named))
    assert again.out.startswith("Nothing to do"), again.said
    assert f"`aiprod-ops plan take-backup --now --config {named}` takes one at once" in again.out
    assert names(bench) == [name]


def test_a_plan_that_was_applied_is_told_with_its_run(bench: Bench) -> None:
    digest = planned(bench, "take-backup", *NOW)
    done = bench.run("run", "take-backup", "--apply", digest, "-o", "json")
    assert done.exit == 0, done.said
    again = bench.run("run", "take-backup", "--apply", digest)
    assert again.exit == 10, again.said
    assert f"was applied already, at {datetime.now(UTC):%Y-}" in again.err
    assert f"by the run {done.json()['run']}; " in again.err
    assert "plan again: aiprod-ops plan take-backup" in again.err
    assert len(names(bench)) == 1


def test_a_standing_approval_takes_it_and_stands_in_the_evidence(bench: Bench) -> None:
    refused = bench.run("run", "take-backup", "--standing")
    assert refused.exit == 12, refused.said
    approved = Bench(bench.config.with_name("approved.toml"), bench.admin, bench.fleet)
    day = datetime.now(UTC).date() + timedelta(days=30)
    approved.config.write_text(
        f'{bench.config.read_text()}\n[[standing_approvals]]\nrunbook = "take-backup"\ntarget = "lab"\n'
        f'until = {day}\nby = "ana"\nreason = "OPS-7"\n'
    )
    for expected in ("DONE and verified", "Nothing to do"):
        done = approved.run("run", "take-backup", "--standing")
        assert (done.exit, expected in done.out) == (0, True), done.said
    assert len(names(bench)) == 1
    newest = max(bench.state.glob("evidence/0*.json")).read_text()
    assert f'"approval":"standing approval of ana until {day}: OPS-7"' in newest
    listed = approved.run("schedule", "list", "-o", "json").json()
    (row,) = [row for row in listed if row["work"] == "run"]
    assert (row["runbook"], row["status"]) == ("take-backup", "OK")


@pytest.mark.parametrize("death", ["after 3", "torn 4", "before 7"])
def test_killed_at_a_record_and_resumed_there_is_one_backup(bench: Bench, death: str) -> None:
    digest = planned(bench, "take-backup")
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", "take-backup", "--apply", digest]
    killed = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    (run,) = bench.unfinished()
    done = bench.run("resume", run)
    assert done.exit == 0, done.said
    assert len(names(bench)) == 1


def test_killed_while_it_is_copied_it_is_taken_again(bench: Bench) -> None:
    """The program that copies lives on for a moment after its caller was killed."""
    take(bench)
    digest = planned(bench, "take-backup", *NOW)
    going = bench.start("run", "take-backup", "--apply", digest)
    until(lambda: any(stored(bench).glob("*.part/data/base")), "it copies")
    going.kill()
    (run,) = bench.unfinished()
    told = found(bench, "backups")
    assert told["failed"]["note"].endswith("whoever took it is no more"), told
    done = bench.run("resume", run)
    assert done.exit == 0, done.said
    assert len(names(bench)) == 2
    assert "failed" not in found(bench, "backups")


def test_killed_and_given_up_nothing_of_it_stays(bench: Bench) -> None:
    take(bench)
    before = names(bench)
    going = bench.start("run", "take-backup", "--apply", planned(bench, "take-backup", *NOW))
    until(lambda: any(stored(bench).glob("*.part/data/base")), "it copies")
    going.kill()
    (run,) = bench.unfinished()
    done = bench.run("rollback", run)
    assert done.exit == 0, done.said
    assert names(bench) == before


def test_what_another_run_took_is_not_taken_back_with_a_killed_one(bench: Bench) -> None:
    digest = planned(bench, "take-backup")
    going = bench.start("run", "take-backup", "--apply", digest)
    until(lambda: any(stored(bench).glob("*.part/data/base")), "it copies")
    going.kill()
    (killed,) = bench.unfinished()
    until(lambda: not processes.below(stored(bench)), "what copies lives on")
    done = take(bench)
    assert done.exit == 0, done.said
    (good,) = names(bench)
    back = bench.run("rollback", killed)
    assert back.exit in (0, 21), back.said  # the facts are not those from before: somebody took one
    assert names(bench) == [good]


def test_while_somebody_takes_one_another_is_refused(bench: Bench) -> None:
    """By another user, from another state: no lease is shared but the one in the server."""
    digest = planned(bench, "take-backup")
    first = bench.start("run", "take-backup", "--apply", digest)
    until(lambda: any(stored(bench).glob("*.part")), "it copies")
    os.kill(first.process.pid, signal.SIGSTOP)  # or a small backup is there before the second has begun
    try:
        second = bench.run("run", "take-backup", "--apply", digest)
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert second.exit in (10, 11), second.said
    assert first.done().exit == 0
    assert len(names(bench)) == 1


def test_a_run_is_taken_back_unless_its_backup_is_known_to_restore(bench: Bench) -> None:
    for _ in range(2):
        assert take(bench).exit == 0
    first, second = names(bench)
    proof = bench.run("prove", "test-backup", "--wait", "0s", "--backup", second)
    assert proof.exit == 0, proof.said
    newer, older = [row["run"] for row in reversed(bench.run("runs", "list", "-o", "json").json())
                    if "take-backup" in row["run"]][:2]  # fmt: skip
    for run, code, left in ((newer, 10, [first, second]), (older, 0, [second])):
        refused = bench.run("rollback", run)
        assert refused.exit == 12, refused.said
        digest = refused.err.partition("--apply ")[2].split()[0]
        done = bench.run("rollback", run, "--apply", digest)
        assert done.exit == code, done.said
        assert names(bench) == left


@AS_ROOT
def test_there_is_no_room(bench: Bench) -> None:
    """Told before it begins where that can be known; else the full disk is the one error, and nothing stays."""
    assert take(bench).exit == 0
    size = sum(path.stat().st_size for path in stored(bench).rglob("*") if path.is_file())
    shutil.rmtree(stored(bench))
    needed = bench.sql("select sum(pg_database_size(oid)) from pg_database where datallowconn")[0][0]
    assert needed < size
    for room, code, says in (
        (needed // 2, 10, "room short of a backup"),
        ((needed + size) // 2, 20, "No space left on device"),
    ):
        with faults.small_filesystem(stored(bench), Bytes(int(room) // 4096 * 4096)):
            done = take(bench)
            assert done.exit == code, done.said
            assert says.lower() in done.said.lower(), done.said
            assert list(stored(bench).iterdir()) == []
    assert take(bench).exit == 0


# Pruning


def make_old(bench: Bench, days: int) -> list[str]:
    """Backups of so many days before, from the one that is there: what a list reads of them is theirs."""
    (name,) = names(bench)
    label = name.partition("-")[2]
    made = []
    for age in range(1, days + 1):
        at = datetime.now(UTC) - timedelta(days=age)
        folder = stored(bench) / f"{at:%Y%m%dT%H%M%SZ}-{label}-{age}"
        (folder / "global").mkdir(mode=0o700, parents=True)
        for file in ("backup_manifest", "backup_label", "global/pg_control"):
            shutil.copy(stored(bench) / name / file, folder / file)
        backdated(folder, at)
        made.append(folder.name)
    return made


@pytest.fixture(scope="module")
def restored(fleet_bench: Bench) -> Path:
    """A backup that a test has restored, put aside."""
    shutil.rmtree(stored(fleet_bench), ignore_errors=True)
    assert take(fleet_bench).exit == 0
    proof = fleet_bench.run("prove", "test-backup", "--wait", "0s")
    assert proof.exit == 0, proof.said
    aside = stored(fleet_bench).with_name("aside")
    stored(fleet_bench).rename(aside)
    (backup,) = aside.iterdir()
    return backup


@pytest.fixture
def old(restored: Path, bench: Bench) -> list[str]:
    """Forty-five days of backups, the newest of them restored by a test."""
    shutil.copytree(restored, stored(bench) / restored.name, copy_function=os.link)
    return make_old(bench, 45)


PRUNE = ("--confirm", "lab")


def test_nothing_goes_before_one_was_restored(bench: Bench) -> None:
    assert take(bench).exit == 0
    make_old(bench, 45)
    before = names(bench)
    told = found(bench, "prune-backups")
    assert (told["going"]["status"], told["untested"]["status"]) == ("WARNING", "CRITICAL")
    done = bench.run("run", "prune-backups", "--apply", planned(bench, "prune-backups"), *PRUNE)
    assert (done.exit, "none of these was ever restored" in done.said) == (10, True), done.said
    assert names(bench) == before


def test_it_wants_the_name_of_the_target(bench: Bench, old: list[str]) -> None:
    digest = planned(bench, "prune-backups")
    for confirm in ((), ("--confirm", "production")):
        done = bench.run("run", "prune-backups", "--apply", digest, *confirm)
        assert done.exit == 12, done.said
    assert len(names(bench)) == len(old) + 1


def test_two_engineers_prune_at_once(bench: Bench, old: list[str]) -> None:
    """Between them each backup that may go is removed once, and none other."""
    digest = planned(bench, "prune-backups")
    actions = bench.run("plan", "prune-backups", "-o", "json").json()["plan"]["actions"]
    pair = [bench.start("run", "prune-backups", "--apply", digest, *PRUNE) for _ in range(2)]
    codes = sorted(each.done().exit for each in pair)
    assert codes[0] == 0, codes
    assert codes[1] in (0, 10, 11), codes
    gone = {action["name"] for action in actions}
    assert 8 <= len(gone) <= 15
    assert set(names(bench)) & set(old) == set(old) - gone
    assert found(bench, "prune-backups")["going"]["status"] == "OK"
    assert found(bench, "backups")["newest"]["status"] == "OK"


def test_killed_while_it_removes_and_resumed_the_rest_goes(bench: Bench, old: list[str]) -> None:
    digest = planned(bench, "prune-backups")
    words = ["-m", "aiprod_ops.cli.crash", "before", "6", "run", "prune-backups", "--apply", digest, *PRUNE]
    killed = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    victim = next(path for path in sorted(stored(bench).iterdir()) if path.name in old)
    victim.rename(victim.with_name(f"{victim.name}.going"))  # as if it died in the middle of the second removal
    (run,) = bench.unfinished()
    done = bench.run("resume", run)
    assert done.exit == 0, done.said
    assert found(bench, "prune-backups")["going"]["status"] == "OK"
