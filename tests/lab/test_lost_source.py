"""The primary is gone for good: its backup is restored all the same, and held against what is recorded of it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, short_folder, until

from aiprod_ops.errors import Failed
from aiprod_ops.lab import fleet as fleets

pytestmark = pytest.mark.lab
PROVE = ("prove", "test-backup", "--wait", "0", "-o", "json")


@pytest.fixture(params=["local", "cloudsql"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A lab with a backup."""
    is_cloud = request.param == "cloudsql"
    with short_folder() as folder:
        fleet = fleets.up(folder / "lab", 5_000, workload=False, cloudsql=is_cloud)
        try:
            bench = Bench(fleet.cloudsql_config if is_cloud else fleet.config, fleet.dsn("postgres"), fleet)
            made = bench.run("plan", "take-backup", "--now", "true", "-o", "json")
            assert made.exit == 0, made.said
            taken = bench.run("run", "take-backup", "--apply", made.json()["digest"])
            assert taken.exit == 0, taken.said
            yield bench
        finally:
            fleets.down(folder / "lab")


def until_gone(bench: Bench) -> None:
    def answers() -> bool:
        try:
            bench.sql("SELECT 1")
        except Failed:
            return False
        return True

    until(lambda: not answers(), "the primary lives")


def lose(bench: Bench) -> None:
    """`kill -9` of the postmaster; its children end with it."""
    data = bench.fleet.primary.data
    os.kill(int(Path(data, "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    until_gone(bench)


def findings(told: Any) -> dict[str, Any]:
    return {each["id"]: each for each in told["findings"]}


def test_restored_and_held_against_what_is_recorded(bench: Bench) -> None:
    before = bench.run(*PROVE)
    assert before.exit == 0, before.said
    lose(bench)
    done = bench.run(*PROVE)
    assert done.exit == 0, done.said
    told = findings(done.json())
    assert told["source"]["status"] == "WARNING"
    assert "compared with what it had on 2" in told["source"]["note"]
    assert told["tables with far fewer rows"]["value"] == 0
    assert told["another schema revision"]["value"] == told["missing roles"]["value"] == 0
    assert told["newest"]["value"] > 0
    assert done.json()["target"] == before.json()["target"]
    assert bench.run("check", "test-backup").exit == 0
    listed = bench.run("check", "backups")
    assert "the target does not answer" in listed.out, listed.said
    assert "age of the newest backup" in listed.out, listed.said


@pytest.mark.parametrize("bench", ["local"], indirect=True)
def test_what_is_recorded_of_a_later_moment_is_told_and_disproves_nothing(bench: Bench) -> None:
    ((at,),) = bench.sql("SELECT clock_timestamp()")
    bench.sql("CREATE EXTENSION pg_trgm")
    bench.sql("SELECT pg_switch_wal()")
    assert bench.run("prove", "test-backup").exit == 0
    lose(bench)
    assert bench.run(*PROVE).exit == 0, "all of it is archived"
    done = bench.run(*PROVE, "--at", at.isoformat())
    assert done.exit == 0, done.said
    assert findings(done.json())["missing extensions"]["status"] == "WARNING"
    assert findings(done.json())["missing extensions"]["note"].startswith("pg_trgm; ")


@pytest.mark.parametrize("bench", ["local"], indirect=True)
def test_a_damaged_record_of_the_source_is_none(bench: Bench) -> None:
    """The backup tells the rest; rows are held against what the last test read."""
    assert bench.run(*PROVE).exit == 0
    lose(bench)
    (record,) = bench.state.glob("sources/*.json")
    for content in ("", "{", '{"version": 1}'):
        record.write_text(content)
        done = bench.run(*PROVE)
        assert done.exit == 0, done.said
        assert findings(done.json())["source"]["status"] == "WARNING"


@pytest.mark.parametrize("bench", ["local"], indirect=True)
def test_before_anything_is_recorded_it_is_restored_and_compared_with_nothing(bench: Bench) -> None:
    lose(bench)
    done = bench.run(*PROVE)
    assert done.exit == 10, done.said
    assert done.json()["refused"] == {}, "nothing speaks against the backup"
    told = findings(done.json())["rows compared"]
    assert (told["status"], told["note"]) == ("UNKNOWN", "the source does not answer, and no test before has read it")
    assert findings(done.json())["damaged heaps and b-trees"]["value"] == 0
