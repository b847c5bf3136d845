"""A replica that does not follow any more is brought back, by the gentlest way that works."""

import shutil
from collections.abc import Iterator

import pytest
from command_line import Bench, lab, until

from aiprod_ops.lab import faults, postgres

pytestmark = pytest.mark.lab
BOOK = "rebuild-replica"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(5_000) as made:
        yield made


def rebuilt(bench: Bench, *options: str) -> str:
    """Plan and run it; what was said."""
    made = bench.run("plan", BOOK, "-o", "json", *options)
    assert made.exit == 0, made.said
    done = bench.run("run", BOOK, "--apply", made.json()["digest"])
    assert done.exit == 0, done.said
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    return done.said


def test_one_that_was_pointed_elsewhere_is_pointed_back(bench: Bench) -> None:
    replica = bench.fleet.replicas[0]
    for text in ("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'", "SELECT pg_reload_conf()"):
        postgres.rows(bench.fleet.dsn("postgres", replica), text)
    until(lambda: bench.run("check", BOOK).exit == 2, "not seen")
    assert "as it is" in rebuilt(bench)


def test_one_that_is_stopped_is_started(bench: Bench) -> None:
    faults.kill_postmaster(bench.fleet.replicas[1])
    assert "replica2: it does not answer" in bench.run("check", BOOK).out
    assert "copied" not in rebuilt(bench, "--replica", "replica2")


def test_one_that_was_promoted_by_hand_takes_writes_and_is_not_touched(bench: Bench) -> None:
    """Until it is stopped: then it is rewound."""
    replica = bench.fleet.replicas[0]
    dsn = bench.fleet.dsn("postgres", replica)
    postgres.rows(dsn, "SELECT pg_promote()")
    postgres.rows(dsn, "CREATE TABLE astray AS SELECT 1 AS n")
    assert "it takes writes of its own" in bench.run("check", BOOK).out
    made = bench.run("plan", BOOK)
    assert made.exit == 10, made.said
    assert "a person has to say" in made.said
    replica.stop("immediate")
    assert "rewound" in rebuilt(bench)
    assert postgres.rows(dsn, "SELECT to_regclass('astray') IS NULL") == [(True,)]


def test_one_whose_files_are_damaged_is_copied_and_its_files_are_kept(bench: Bench) -> None:
    replica = bench.fleet.replicas[1]
    replica.stop("immediate")
    (replica.data / "global" / "pg_control").write_bytes(b"")
    assert "copied" in rebuilt(bench)
    asides = replica.data.parent.glob("replica2.before-*")
    assert 0 in [(each / "global" / "pg_control").stat().st_size for each in asides]


def test_one_that_nobody_knows_is_told(bench: Bench) -> None:
    done = bench.run("plan", BOOK, "--replica", "replica9")
    assert done.exit == 64, done.said
    done = bench.run("check", BOOK, "--replica", "replica9")
    assert done.exit == 2, done.said
    assert "there are: primary, replica1, replica2" in done.out, done.said


def test_one_that_lost_its_disk_is_made_anew(bench: Bench) -> None:
    """Its slot is there still, and keeps WAL for nobody."""
    replica = bench.fleet.replicas[1]
    replica.stop("immediate")
    shutil.rmtree(replica.data)
    seen = bench.run("check", BOOK)
    assert "replica2: aiprod-ops plan add-read-replica" in seen.out, seen.said
    made = bench.run("plan", "add-read-replica", "-o", "json")
    assert made.exit == 0, made.said
    done = bench.run("run", "add-read-replica", "--apply", made.json()["digest"])
    assert done.exit == 0, done.said
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")


def test_one_whose_timeline_has_only_the_same_number_is_copied(bench: Bench) -> None:
    """Promoted by hand and stopped, while the primary was moved: both are on the next timeline, and each began it
    elsewhere. Streaming from the other's would go on over another WAL."""
    astray = bench.fleet.replicas[1]
    dsn = bench.fleet.dsn("postgres", astray)
    postgres.rows(dsn, "SELECT pg_promote()")
    postgres.rows(dsn, "CREATE TABLE astray AS SELECT 1 AS n")
    split = bench.run("check", "fail-over-replica")
    assert split.exit == 2, split.said
    assert "take writes: fence all but one" in split.out
    refused = bench.run("plan", "fail-over-replica")
    assert refused.exit == 10, refused.said
    astray.stop()
    made = bench.run("plan", "fail-over-replica", "--to", "replica1", "-o", "json")
    moved = bench.run("run", "fail-over-replica", "--apply", made.json()["digest"], "--confirm", "lab")
    assert moved.exit == 0, moved.said
    assert "copied" in rebuilt(bench)
    assert postgres.rows(dsn, "SELECT to_regclass('astray') IS NULL") == [(True,)]


def test_one_that_wrote_on_the_same_timeline_is_seen_and_copied(bench: Bench) -> None:
    """Somebody took its mark of a standby away for a while: no promotion, so that no number tells it. It is seen as
    long as its WAL is there: one that the primary overtakes by a segment receives that over its own."""
    for server in (bench.fleet.primary, bench.fleet.replicas[0]):
        for text in ("ALTER SYSTEM SET archive_timeout = 0", "SELECT pg_reload_conf()"):
            postgres.rows(bench.fleet.dsn("postgres", server), text)
    astray = bench.fleet.replicas[1]
    mark, dsn = astray.data / "standby.signal", bench.fleet.dsn("postgres", astray)
    astray.stop()
    mark.unlink()
    astray.start()
    postgres.rows(dsn, "CREATE TABLE astray AS SELECT 1 AS n")
    astray.stop()
    mark.touch(mode=0o600)
    astray.programs.hand_over(mark)
    astray.start()
    until(lambda: "it was written while it was no standby" in bench.run("check", "replication").out, "not seen")
    refused = bench.run("plan", "fail-over-replica", "--to", "replica2")
    assert refused.exit == 10, refused.said
    assert "copied" in rebuilt(bench)
    assert postgres.rows(dsn, "SELECT to_regclass('astray') IS NULL") == [(True,)]


def test_killed_while_it_copies_it_is_finished_and_the_old_files_are_kept(bench: Bench) -> None:
    replica = bench.fleet.replicas[1]
    replica.stop("immediate")
    (replica.data / "global" / "pg_control").write_bytes(b"")
    (replica.data / "precious").write_text("ours")
    made = bench.run("plan", BOOK, "-o", "json")
    going = bench.start("run", BOOK, "--apply", made.json()["digest"])
    until(lambda: list(replica.data.with_name("replica2.copy").glob("*/base")), "it does not copy")
    going.kill()
    done = bench.run("resume", bench.unfinished()[0])
    assert done.exit == 0, done.said
    asides = replica.data.parent.glob("replica2.before-*")
    assert [each for each in asides if (each / "precious").exists()]
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
