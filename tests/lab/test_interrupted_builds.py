"""Builds that are interrupted in every way: the valid index is there afterwards, or no trace of it."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from command_line import BOOK, INDEX, Bench, Done, Going, lab, role_setting, snapshot, until, writer

from aiprod_ops.lab import faults
from aiprod_ops.units import Bytes

ROWS = 40_000
HASTY = ("--patience", "2s")  #: given up while somebody else keeps a snapshot open
PATIENT = ("--patience", "60s")
WRITERS, SNAPSHOTS, SCAN = "waiting for writers before build", "waiting for old snapshots", "building index"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(ROWS) as made:
        yield made


def settled(bench: Bench) -> None:
    """Valid or gone, nothing that waits for `resume`, evidence and journals whole."""
    assert bench.indexes() in ({}, {INDEX: True})
    bench.sound()
    for journal in bench.journals():
        shown = bench.run("runs", "show", journal.parent.name, "-o", "json")
        assert shown.exit == 0, shown.said


def ready(bench: Bench, *options: str) -> str:
    """The digest of a proven plan, and no index yet. Before anybody holds a lock that this would wait for."""
    bench.clean()
    return bench.proven(*options)


def started(bench: Bench, digest: str) -> Going:
    return bench.start("run", BOOK, "--apply", digest)


def only_unfinished(bench: Bench) -> str:
    (run,) = bench.unfinished()
    return run


# kill -9 in each phase, then forward or back


def before_the_build(bench: Bench) -> None:
    """The journal has the lease, and perhaps the intent already."""
    digest = ready(bench, *PATIENT)
    before = set(bench.journals())
    going = started(bench, digest)
    (journal,) = until(lambda: set(bench.journals()) - before, "no journal")
    until(lambda: b'"kind":"leased"' in journal.read_bytes(), "no lease")
    going.kill()


def during_the_first_wait(bench: Bench) -> None:
    digest = ready(bench, *PATIENT)
    with writer(bench):
        going = started(bench, digest)
        bench.building(WRITERS)
        going.kill()


def during_the_scan(bench: Bench) -> None:
    """The backend is stopped in its scan, so that it is still there when the client is dead, and goes on afterwards."""
    digest = ready(bench, *PATIENT)
    with writer(bench):
        going = started(bench, digest)
        backend = bench.building(WRITERS)
    bench.building(SCAN)
    os.kill(backend, signal.SIGSTOP)
    going.kill()
    os.kill(backend, signal.SIGCONT)


def during_the_wait_for_snapshots(bench: Bench) -> None:
    digest = ready(bench, *PATIENT)
    with snapshot(bench):
        going = started(bench, digest)
        bench.building(SNAPSHOTS)
        going.kill()


def after_the_build(bench: Bench) -> None:
    """It is valid; its outcome may be in the journal or not."""
    going = started(bench, ready(bench, *PATIENT))
    until(lambda: bench.indexes().get(INDEX), "no index")
    going.kill()


PHASES = [
    before_the_build, during_the_first_wait, during_the_scan, during_the_wait_for_snapshots, after_the_build,
]  # fmt: skip


@pytest.mark.lab
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("verb", ["resume", "rollback"])
def test_killed(bench: Bench, phase: Callable[[Bench], None], verb: str) -> None:
    phase(bench)
    done = bench.run(verb, only_unfinished(bench))
    assert done.exit == 0, done.said
    assert bench.indexes() == ({INDEX: True} if verb == "resume" else {})
    settled(bench)


@pytest.mark.lab
def test_the_killed_resume_is_resumed(bench: Bench) -> None:
    """The second one dies while it removes what the first one left, which waits for the same writer."""
    digest = ready(bench, *PATIENT)
    with writer(bench):
        first = started(bench, digest)
        bench.building(WRITERS)
        first.kill()
        run = only_unfinished(bench)
        second = bench.start("resume", run)
        until(lambda: bench.doing("drop index"), "the remains are not removed")
        second.kill()
    assert (done := bench.run("resume", run)).exit == 0, done.said
    assert bench.indexes() == {INDEX: True}
    settled(bench)


# Every way to interrupt, many times


def patience(bench: Bench) -> Done:
    """An open snapshot on an unrelated table, longer than the run's patience."""
    digest = ready(bench, *HASTY)
    with snapshot(bench):
        return started(bench, digest).done()


def _ended(bench: Bench, function: str) -> Done:
    digest = ready(bench, *PATIENT)
    with snapshot(bench):
        going = started(bench, digest)
        bench.sql(f"SELECT {function}({bench.building(SNAPSHOTS)})")
        return going.done()


def cancelled(bench: Bench) -> Done:
    return _ended(bench, "pg_cancel_backend")


def terminated(bench: Bench) -> Done:
    return _ended(bench, "pg_terminate_backend")


def asked_to_stop(bench: Bench) -> Done:
    digest = ready(bench, *PATIENT)
    with snapshot(bench):
        going = started(bench, digest)
        bench.building(SNAPSHOTS)
        going.process.send_signal(random.choice([signal.SIGINT, signal.SIGTERM]))
        return going.done()


def killed_at_random(bench: Bench) -> Done:
    """`kill -9` at any moment of a run that may wait or not; then it is resumed, or rolled back."""
    digest = ready(bench, *PATIENT)
    with snapshot(bench) if random.random() < 0.5 else contextlib.nullcontext():
        going = started(bench, digest)
        time.sleep(random.uniform(0.2, 1.5))
        going.kill()
    waiting = bench.unfinished()
    verb = random.choice(["resume", "rollback"])
    return bench.run(verb, waiting[0]) if waiting else Done(0, "it had ended", "")


def timed_out(bench: Bench) -> Done:
    """The role's own limits do not reach the build, nor what takes it back; the run's patience ends it."""
    limits = [role_setting(bench, "aiprod_actor", f"{name}_timeout", "300ms") for name in ("statement", "lock")]
    digest = ready(bench, *HASTY)
    with limits[0], limits[1], snapshot(bench):
        return started(bench, digest).done()


def full_disk(bench: Bench) -> Done:
    """The build's sort finds no room: on a small file system, or below a limit where none can be mounted."""
    digest = ready(bench, *PATIENT)
    temporary = bench.fleet.primary.data / "base" / "pgsql_tmp"
    with role_setting(bench, "aiprod_actor", "maintenance_work_mem", "1MB"):
        if os.geteuid() != 0:
            with role_setting(bench, "aiprod_actor", "temp_file_limit", "64kB"):
                return started(bench, digest).done()
        with faults.small_filesystem(temporary, Bytes(65_536)):
            bench.fleet.programs.hand_over(temporary)
            done = started(bench, digest).done()
    assert (done.exit, "No space left on device" in done.said) == (20, True), done.said
    return done


WAYS = [patience, cancelled, terminated, asked_to_stop, killed_at_random, timed_out, full_disk]


def interrupted(bench: Bench, number: int) -> None:
    way = WAYS[number % len(WAYS)]
    done = way(bench)
    allowed = ({}, {INDEX: True}) if done.exit == 0 else ({},)
    assert done.exit in (0, 20), f"{way.__name__}: {done.said}"
    assert bench.indexes() in allowed, f"{way.__name__}: {bench.indexes()}, {done.said}"


@pytest.mark.lab
def test_five_interrupted_builds(bench: Bench) -> None:
    for number in range(5):
        interrupted(bench, number)
    settled(bench)


@pytest.mark.soak
def test_two_hundred_interrupted_builds(bench: Bench) -> None:
    for number in range(200):
        interrupted(bench, number)
    settled(bench)
