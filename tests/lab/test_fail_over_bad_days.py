"""Bad days of a move on this machine: we are killed, the candidate dies or is not fit, the old primary comes back, two
are at it at once. Never do two take writes, and what was begun is finished."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg2
import pytest
from command_line import Bench, lab, until
from moving import BOOK, applied, deaths, in_order, lost, on, other, planned, primary, roles, servers, unplanned

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.adding import alter
from aiprod_ops.errors import Failed
from aiprod_ops.lab import faults, switching
from aiprod_ops.lab.writers import TABLE, following, writing
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with lab(5_000) as made:
        made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        yield made


@pytest.fixture
def bench(running: Bench) -> Iterator[Bench]:
    yield running
    assert running.unfinished() == []
    assert sum(roles(running).values()) == 1
    in_order(running)


def crashed(bench: Bench, death: str, digest: str) -> str:
    """A run that was killed at a record of its journal; '' where it has no more to do."""
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", BOOK, "--apply", digest, "--confirm", "lab"]
    died = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    assert sum(roles(bench).values()) <= 1
    return next(iter(bench.unfinished()), "")


def resumed(bench: Bench, run: str) -> None:
    done = bench.run("resume", run)
    assert done.exit == 0, done.said


def rebuilt(bench: Bench) -> None:
    """Whoever does not follow is brought back."""
    made = bench.run("plan", "rebuild-replica", "-o", "json")
    assert "plan" in made.json(), made.said
    if made.json()["plan"]["actions"]:
        done = bench.run("run", "rebuild-replica", "--apply", made.json()["digest"])
        assert done.exit == 0, done.said


#: opened, leased, intended, outcome (promoted), intended, outcome (brought back), verified, sealed, ended
DEATHS = [f"{when} {n}" for n in range(2, 10) for when in ("before", "torn", "after")]


@pytest.mark.parametrize("death", deaths(DEATHS, {"after 3", "torn 5"}))
def test_killed_at_a_record_of_an_unplanned_one(bench: Bench, death: str, tmp_path: Path) -> None:
    before = primary(bench)
    with writing(bench.fleet, tmp_path / "writers"):
        faults.kill_postmaster(servers(bench)[before])
        if run := crashed(bench, death, unplanned(bench)["digest"]):
            resumed(bench, run)
    assert primary(bench) != before
    assert len(roles(bench)) == 3


@pytest.mark.parametrize("when", ["before", "during"])
def test_the_candidate_dies_while_it_is_promoted(bench: Bench, when: str, tmp_path: Path) -> None:
    """Before its signal file is gone nobody was let in: the old one serves again. Later it alone may have
    acknowledged something: nobody else takes writes, and who starts it lets `resume` finish."""
    before, digest = primary(bench), planned(bench, "--to", other(bench))
    candidate = servers(bench)[other(bench)]
    mark = candidate.data / "standby.signal"
    with writing(bench.fleet, tmp_path / "writers") as writers:
        going = bench.start("run", BOOK, "--apply", digest, "--confirm", "lab")
        deadline = time.monotonic() + 30
        while servers(bench)[before].is_running() if when == "before" else mark.exists():
            assert time.monotonic() < deadline
        faults.kill_postmaster(candidate)
        done = going.done()
        assert done.exit in (0, 20, 22), done.said
        assert sum(roles(bench).values()) <= 1
        if done.exit == 22:
            candidate.start()
            for run in bench.unfinished():
                resumed(bench, run)
    assert lost(bench, writers) == []
    rebuilt(bench)


def test_a_failover_that_went_no_further_than_the_fence_is_begun_again(bench: Bench, tmp_path: Path) -> None:
    """The lost one is marked as a standby by then: its files tell all the same that it was the primary, and that it
    has to be rewound."""
    before = primary(bench)
    with writing(bench.fleet, tmp_path / "writers"):
        switching.cluster(bench.fleet).kill(before)
        done = applied(bench, unplanned(bench)["digest"])
    assert done.exit == 0, done.said
    assert "as it is" not in done.said
    assert primary(bench) != before


def test_a_candidate_that_dies_is_replaced_by_the_next(bench: Bench, tmp_path: Path) -> None:
    """Unplanned: the primary is lost, and so is the replica that was to take its place."""
    with writing(bench.fleet, tmp_path / "writers"):
        first = primary(bench)
        faults.kill_postmaster(servers(bench)[first])
        made = unplanned(bench)
        second = made["plan"]["actions"][0]["subject"]["new"]
        faults.kill_postmaster(servers(bench)[second])
        refused = applied(bench, made["digest"])
        assert refused.exit == 10, refused.said
        done = applied(bench, unplanned(bench)["digest"])
        assert done.exit == 0, done.said
    assert primary(bench) not in (first, second)
    rebuilt(bench)


def test_the_old_one_that_is_started_by_hand_is_a_standby(bench: Bench, tmp_path: Path) -> None:
    before = primary(bench)
    with writing(bench.fleet, tmp_path / "writers"):
        faults.kill_postmaster(servers(bench)[before])
        run = crashed(bench, "after 4", unplanned(bench)["digest"])
        servers(bench)[before].start()
        assert not roles(bench)[before]
        assert primary(bench) != before
        resumed(bench, run)


def test_the_old_one_that_is_started_by_hand_after_a_planned_move(bench: Bench, tmp_path: Path) -> None:
    before, digest = primary(bench), planned(bench)
    with writing(bench.fleet, tmp_path / "writers") as writers:
        run = crashed(bench, "after 4", digest)
        servers(bench)[before].start()
        assert not roles(bench)[before]
        resumed(bench, run)
    assert lost(bench, writers) == []


def test_two_engineers_at_once(bench: Bench, tmp_path: Path) -> None:
    """The first one waits for a replica that does not replay; the second one is told that somebody is at it."""
    digest, name, before = planned(bench, "--to", other(bench)), other(bench), primary(bench)
    with writing(bench.fleet, tmp_path / "writers") as writers:
        first = bench.start("run", BOOK, "--apply", digest, "--confirm", "lab")
        until((servers(bench)[before].data / "standby.signal").exists, "it is not fenced")
        with faults.frozen(servers(bench)[name]):
            second = applied(bench, digest)
        assert second.exit == 11, second.said
        assert first.done().exit in (0, 20)
        assert sum(roles(bench).values()) == 1
    assert lost(bench, writers) == []


def test_a_lower_setting_is_named_and_refused(bench: Bench) -> None:
    """The primary runs with more connections than the replica could have: its replay pauses as well."""
    name, now = other(bench), primary(bench)
    on(bench, now, "ALTER SYSTEM SET max_connections = 150")
    for each in set(servers(bench)) - {name, now}:
        alter(servers(bench)[each].data / "postgresql.auto.conf", {"max_connections": "150"})
        servers(bench)[each].stop()
        servers(bench)[each].start()
    servers(bench)[now].stop()
    servers(bench)[now].start()
    try:
        until(lambda: "max_connections 100 < 150" in bench.run("check", BOOK).out, "it is not named")
        made = bench.run("plan", BOOK, "--to", name, "-o", "json")
        assert made.exit == 10, made.said
        faults.kill_postmaster(servers(bench)[now])  # nobody tells it but the files of the replica
        try:
            lost_one = bench.run("plan", BOOK, "--to", name)
            assert lost_one.exit == 10, lost_one.said
            assert "max_connections 100 < 150: raise it there" in lost_one.said
        finally:
            servers(bench)[now].start()
    finally:
        servers(bench)[name].stop("immediate")
        alter(servers(bench)[name].data / "postgresql.auto.conf", {"max_connections": "150"})
        servers(bench)[name].start()


def test_a_candidate_on_another_timeline_is_named_and_refused(bench: Bench) -> None:
    name = other(bench)
    server = servers(bench)[name]
    on(bench, name, "SELECT pg_promote()")
    server.stop()
    (server.data / "standby.signal").touch(mode=0o600)
    server.programs.hand_over(server.data / "standby.signal")
    server.start()
    checked = bench.run("check", BOOK)
    assert "it is on timeline" in checked.out, checked.said
    made = bench.run("plan", BOOK, "--to", name, "-o", "json")
    assert made.exit == 10, made.said
    rebuilt(bench)


def test_a_candidate_whose_disk_is_full_is_refused(bench: Bench, tmp_path: Path) -> None:
    """It cannot write what it is sent, so it does not stream; the other one may."""
    name = other(bench)
    server = servers(bench)[name]
    wal, aside = server.data / "pg_wal", tmp_path / "pg_wal"
    server.stop()
    shutil.copytree(wal, aside)
    size = sum(each.stat().st_size for each in wal.rglob("*") if each.is_file()) // 1024**2 + 40
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", str(wal)], capture_output=True)
    if mounted.returncode != 0:
        server.start()
        pytest.skip("nothing can be mounted here")
    try:
        shutil.copytree(aside, wal, dirs_exist_ok=True)
        wal.chmod(0o700)
        server.programs.hand_over(wal)
        server.start()
        until(lambda: bench.run("check", "replication").exit == 0, "it does not follow")
        digest = planned(bench, "--to", name)
        for _ in range(8):
            on(bench, primary(bench), f"INSERT INTO {TABLE} (writer) SELECT 9 FROM generate_series(1, 100000)")
        until(lambda: "No space left on device" in log(bench, name), "its disk is not full", timeout_s=60)
        assert "are free on its disk: make room there" in bench.run("check", BOOK).out
        made = bench.run("plan", BOOK, "--to", name, "-o", "json")
        assert made.exit == 10, made.said
        refused = applied(bench, digest)
        assert refused.exit == 10, refused.said
        done = applied(bench, bench.run("plan", BOOK, "-o", "json").json()["digest"])
        assert done.exit in (0, 20), done.said
        assert sum(roles(bench).values()) == 1
    finally:
        server.stop("immediate")
        subprocess.run(["umount", str(wal)], check=True)
    rebuilt(bench)


def log(bench: Bench, name: str) -> str:
    server = servers(bench)[name]
    files = [*(server.data / "log").glob("*"), server.log]
    return "".join(each.read_text(errors="replace") for each in files if each.exists())


def test_what_a_move_would_end_is_told_before(bench: Bench) -> None:
    """An open transaction, a logical slot; and a replica whose own files forbid writes may not be promoted."""
    name, now = other(bench), primary(bench)
    on(bench, now, "ALTER SYSTEM SET wal_level = logical")
    servers(bench)[now].stop()
    servers(bench)[now].start()
    on(bench, now, "SELECT pg_create_logical_replication_slot('search', 'pgoutput')")
    on(bench, name, "ALTER SYSTEM SET default_transaction_read_only = on")
    on(bench, name, "SELECT pg_reload_conf()")
    try:
        with psycopg2.connect(bench.fleet.dsn("postgres", servers(bench)[now])) as held, held.cursor() as cursor:
            cursor.execute("SELECT 1")
            checked = bench.run("check", BOOK, "--oldest", "0.1s")
        assert "search: no standby has them" in checked.out, checked.said
        assert "the move ends it" in checked.out, checked.said
        assert "would archive no WAL" not in checked.out
        for each in servers(bench):
            if each != now:
                on(bench, each, "ALTER SYSTEM SET archive_command = ''")
                on(bench, each, "SELECT pg_reload_conf()")
        until(lambda: "would archive no WAL" in bench.run("check", BOOK).out, "not told")
        assert "it would refuse writes" in checked.out, checked.said
        made = bench.run("plan", BOOK, "--to", name, "-o", "json")
        assert made.exit == 10, made.said
    finally:
        on(bench, now, "SELECT pg_drop_replication_slot('search')")
        on(bench, name, "ALTER SYSTEM RESET default_transaction_read_only")
        for each in servers(bench):
            if each != now:
                on(bench, each, "ALTER SYSTEM RESET archive_command")
                on(bench, each, "SELECT pg_reload_conf()")


def test_a_lost_primary_whose_disk_is_read_only_is_fenced_all_the_same(bench: Bench) -> None:
    """The kernel makes a disk read-only after an I/O error. Nobody can start it; it comes back when that is mended."""
    before = primary(bench)
    data = servers(bench)[before].data
    if subprocess.run(["mount", "--bind", str(data), str(data)], capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        faults.kill_postmaster(servers(bench)[before])
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        done = applied(bench, unplanned(bench)["digest"])
        assert done.exit == 21, done.said
        assert primary(bench) != before
    finally:
        subprocess.run(["umount", str(data)], check=True)
    rebuilt(bench)


def test_a_primary_that_refuses_our_login_is_not_lost(bench: Bench) -> None:
    """It answers. So does one whose sessions are used up."""
    config = bench.config.with_name("stranger.toml")
    config.write_text(bench.config.read_text().replace("aiprod_probe", "aiprod_stranger"))
    checked = bench.run("check", BOOK, "--config", str(config))
    assert checked.exit == 3, checked.said
    assert "it lives, and may be the primary" in checked.out
    for mode in ("", "unplanned"):
        options = ("--mode", mode) if mode else ()
        refused = bench.run("plan", BOOK, *options, "--config", str(config))
        assert refused.exit in (10, 77), refused.said
    config.unlink()


def test_what_only_the_lost_one_had_is_kept_beside(bench: Bench, tmp_path: Path) -> None:
    """Acknowledged, and on no other server: rewinding overwrites the rows, their WAL is kept."""
    before = primary(bench)
    for each in set(servers(bench)) - {before}:  # none receives what comes now
        for process in processes.below(servers(bench)[each].data):
            os.kill(process.pid, signal.SIGSTOP)
    on(bench, before, f"INSERT INTO {TABLE} (writer) SELECT 77 FROM generate_series(1, 20000)")
    faults.kill_postmaster(servers(bench)[before])
    for each in set(servers(bench)) - {before}:
        for process in processes.below(servers(bench)[each].data):
            os.kill(process.pid, signal.SIGCONT)
    made = unplanned(bench)
    done = applied(bench, made["digest"])
    assert done.exit == 0, done.said
    assert "is lost:" in done.out
    kept = servers(bench)[before].data.with_name(f"{before}.lost-{primary(bench)}")
    assert [each for each in kept.iterdir() if len(each.name) == 24]


def test_taking_a_move_back_wants_the_name_as_well(bench: Bench) -> None:
    done = applied(bench, planned(bench))
    assert done.exit == 0, done.said
    now, run = primary(bench), bench.run("runs", "list", "-o", "json").json()[-1]["run"]
    asked = bench.run("rollback", run)
    assert "--confirm lab" in asked.err
    digest = asked.err.partition("--apply ")[2].split()[0]
    assert bench.run("rollback", run, "--apply", digest).exit == 12
    assert primary(bench) == now


def test_a_candidate_that_freezes_as_it_is_promoted_never_takes_writes_beside_the_old_one(
    bench: Bench, tmp_path: Path
) -> None:
    """It was told to: its postmaster would do it when it wakes up, however late."""
    before, digest = primary(bench), planned(bench, "--to", other(bench), "--patience", "3s")
    candidate = servers(bench)[other(bench)]
    with writing(bench.fleet, tmp_path / "writers") as writers:
        going = bench.start("run", BOOK, "--apply", digest, "--confirm", "lab")
        until((servers(bench)[before].data / "standby.signal").exists, "it is not fenced")
        pid = candidate.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        done = going.done()
        assert done.exit in (0, 20), done.said
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        for _ in range(20):
            assert sum(roles(bench).values()) == 1
            time.sleep(0.1)
    assert lost(bench, writers) == []


def test_two_state_folders_are_no_way_around_each_other(bench: Bench) -> None:
    """Each user has one of their own: what they share is the servers."""
    before, digest = primary(bench), planned(bench)
    place = os.open(servers(bench)[other(bench)].data, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        done = applied(bench, digest)
        assert done.exit == 20, done.said
        assert "another run is at work on" in done.said
    finally:
        os.close(place)
    assert primary(bench) == before


def test_a_cascade_is_no_sign_that_the_primary_lives(bench: Bench, tmp_path: Path) -> None:
    """A replica that hears from another replica."""
    before, first = primary(bench), other(bench)
    (second,) = set(servers(bench)) - {before, first}
    switching.cluster(bench.fleet)._following.follow(second, first)
    sender = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    until(lambda: on(bench, second, sender) == [(servers(bench)[first].port,)], "it does not cascade")
    with writing(bench.fleet, tmp_path / "writers"):
        faults.kill_postmaster(servers(bench)[before])
        done = applied(bench, unplanned(bench)["digest"])
    assert done.exit == 0, done.said
    assert primary(bench) != before


def test_nobody_can_start_what_is_being_rewound(bench: Bench) -> None:
    """Without its mark, and with files of two servers, it would be a second primary."""
    server = servers(bench)[other(bench)]
    server.stop()
    server.data.chmod(0o701)
    with pytest.raises(Failed, match="does not start"):
        server.start()
    server.data.chmod(0o700)
    server.start()


def test_what_is_lost_is_told_without_being_asked_for(bench: Bench) -> None:
    """Neither `planned` nor `unplanned` is typed: it plans what it finds. A replica that has received more than the one
    that took over is rewound at once."""
    before, behind = primary(bench), other(bench)
    (ahead,) = set(servers(bench)) - {before, behind}
    assert bench.run("plan", BOOK, "-o", "json").json()["plan"]["actions"][0]["kind"] == "switch-over"
    stopped = [each.pid for each in processes.below(servers(bench)[behind].data)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    on(bench, before, f"INSERT INTO {TABLE} (writer) SELECT 7 FROM generate_series(1, 20000)")
    sent = "SELECT pg_last_wal_receive_lsn() >= %(lsn)s::pg_lsn"
    ((lsn,),) = on(bench, before, "SELECT pg_current_wal_flush_lsn()::text")
    until(lambda: on(bench, ahead, sent.replace("%(lsn)s", f"'{lsn}'")) == [(True,)], "it does not receive")
    for name in (before, ahead):
        faults.kill_postmaster(servers(bench)[name])
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    refused = bench.run("plan", BOOK, "--mode", "planned")
    assert refused.exit == 10, refused.said
    made = until(
        lambda: (seen := bench.run("plan", BOOK, "--silence", "1s", "-o", "json")).exit == 0 and seen,
        "no plan against it",
    )
    assert made.json()["plan"]["actions"][0]["kind"] == "fail-over"
    done = applied(bench, made.json()["digest"])
    assert done.exit == 0, done.said
    assert primary(bench) == behind
    began = time.monotonic()
    rebuilt(bench)
    assert time.monotonic() - began < 40, "it is not waited for what cannot be"


def test_resume_promotes_none_that_lacks_what_the_old_one_had(bench: Bench) -> None:
    """The candidate died before the fence, and somebody starts the old primary, which comes up as a standby: the
    candidate gets from it what it lacks, and is promoted then."""
    before, new = primary(bench), other(bench)
    faults.kill_postmaster(servers(bench)[new])
    on(bench, before, f"INSERT INTO {TABLE} (writer) SELECT 8 FROM generate_series(1, 1000)")
    ((rows,),) = on(bench, before, f"SELECT count(*) FROM {TABLE}")
    cluster = switching.cluster(bench.fleet)
    cluster._members[before].fence(Seconds(20))
    cluster._members[before].start()
    assert not roles(bench)[before]
    cluster.switch_over(before, new, Seconds(20), print)
    assert primary(bench) == new
    assert on(bench, new, f"SELECT count(*) FROM {TABLE}") == [(rows,)]
    cluster.rejoin(before, new, Seconds(20), print)


def test_a_rewind_that_was_killed_is_followed_by_a_copy(bench: Bench) -> None:
    """As a loss of power leaves it: unmarked, of two servers, with the other's configuration. Nobody can start it."""
    name = other(bench)
    server, member = servers(bench)[name], switching.cluster(bench.fleet)._members[name]
    server.stop()
    member.keep_conf()
    server.data.chmod(0o701)
    member.unmark()
    (server.data / "postgresql.conf").write_bytes(
        (servers(bench)[primary(bench)].data / "postgresql.conf").read_bytes()
    )
    with pytest.raises(Failed, match="does not start"):
        server.start()
    made = bench.run("plan", "rebuild-replica", "-o", "json")
    done = bench.run("run", "rebuild-replica", "--apply", made.json()["digest"])
    assert done.exit == 0, done.said
    assert "copied" in done.said
    assert "rewound" not in done.said
    assert roles(bench)[name] is False
    assert not member.was_interrupted


def test_a_password_that_the_server_would_log_is_refused(bench: Bench) -> None:
    config = bench.config.with_name("logged.toml")
    config.write_text(
        bench.config.read_text().replace("user=aiprod_backup passfile", "user=aiprod_backup password=s3cret passfile")
    )
    done = bench.run("plan", BOOK, "--config", str(config))
    config.unlink()
    assert done.exit == 78, done.said
    assert "passfile" in done.said
    assert "s3cret" not in done.said


def test_writers_end_with_whoever_began_them(bench: Bench, tmp_path: Path) -> None:
    """A drill may be killed."""
    program = (
        "import sys, time; from pathlib import Path; from aiprod_ops.lab.writers import writing\n"
        "with writing(None, Path(sys.argv[1]), dsn=sys.argv[2]): time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(tmp_path), following(bench.fleet)]
    with subprocess.Popen(words, cwd="/") as drill:
        file = tmp_path / "writer0"
        until(lambda: file.exists() and file.stat().st_size > 200, "they do not write")
        drill.kill()

    def have_ended() -> bool:
        before = [each.stat().st_size for each in sorted(tmp_path.glob("writer*"))]
        time.sleep(1)
        return before == [each.stat().st_size for each in sorted(tmp_path.glob("writer*"))]

    until(have_ended, "they write on")
