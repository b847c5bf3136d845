"""One more replica on this machine: guarded, killed anywhere and finished, taken back without touching another's."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, lab, until
from moving import deaths

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import ports, postgres
from aiprod_ops.lab.writers import TABLE, writing

pytestmark = pytest.mark.lab
BOOK, NAME = "add-read-replica", "replica3"


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    """A fleet whose configuration declares one server more than there are."""
    with lab(5_000) as made:
        made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        (port,) = ports.free(made.fleet.folder, 1)
        text = made.config.read_text()
        upstream = next(line for line in text.splitlines() if line.startswith("upstream"))
        server = PostgresServer(made.fleet.programs, made.fleet.folder / NAME, made.fleet.folder / "s", port, Path())
        lines = (
            f"[targets.lab.servers.{NAME}]",
            f"data_directory = {json.dumps(str(server.data))}",
            f"admin = {json.dumps(made.fleet.dsn('postgres', server))}",
            upstream,
        )
        made.config.write_text(text + "\n".join(lines) + "\n")
        yield made


@pytest.fixture
def bench(running: Bench) -> Iterator[Bench]:
    yield running
    for run in running.unfinished():
        running.run("resume", run)
    listed = running.run("runs", "list", "-o", "json").json()
    if data(running).exists() and any(data(running).iterdir()):
        taken_back(running, listed[-1]["run"])
    assert not leftovers(running)


def data(bench: Bench) -> Path:
    return bench.fleet.folder / NAME


def leftovers(bench: Bench) -> list[str]:
    return [each.name for each in bench.fleet.folder.glob(f"{NAME}*") if each.suffix != ".log"]


def server(bench: Bench) -> PostgresServer:
    port = int(bench.config.read_text().split(NAME)[-1].partition("port=")[2].split("&")[0])
    return PostgresServer(bench.fleet.programs, data(bench), bench.fleet.folder / "s", port, Path())


def on(bench: Bench, text: str) -> list[tuple[Any, ...]]:
    return postgres.rows(bench.fleet.dsn("postgres", server(bench)), text)


def planned(bench: Bench, *options: str) -> str:
    made = bench.run("plan", BOOK, "-o", "json", *options)
    assert made.exit == 0, made.said
    assert made.json()["plan"]["actions"], bench.run("check", BOOK, *options).said
    return str(made.json()["digest"])


def taken_back(bench: Bench, run: str) -> None:
    refused = bench.run("rollback", run)
    assert refused.exit == 12, refused.said
    done = bench.run("rollback", run, "--apply", refused.err.partition("--apply ")[2].split()[0])
    assert done.exit == 0, done.said


def last(bench: Bench) -> str:
    return str(bench.run("runs", "list", "-o", "json").json()[-1]["run"])


def receiving(bench: Bench, *options: str) -> list[str]:
    dsn = f"host={bench.fleet.folder}/s port={bench.fleet.primary.port} user=aiprod_backup"
    place = bench.fleet.folder / "received"
    place.mkdir(exist_ok=True)
    return [str(bench.fleet.programs.bin / "pg_receivewal"), "-D", str(place), "-d", dsn, "--no-loop", *options]


def passwords(bench: Bench) -> dict[str, str]:
    return bench.env(PGPASSFILE=str(bench.fleet.passfile))


def slots(bench: Bench) -> list[str]:
    return [name for (name,) in bench.sql("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1")]


def refused(bench: Bench, *options: str) -> str:
    """What is said against it; nothing is planned."""
    made = bench.run("plan", BOOK, "-o", "json", *options)
    assert made.exit in (10, 64), made.said
    done = bench.run("check", BOOK, *options)
    assert done.exit == 2, done.said
    return done.out


def test_it_is_made_under_load_and_taken_back(bench: Bench, tmp_path: Path) -> None:
    digest = planned(bench)
    with writing(bench.fleet, tmp_path):
        done = bench.run("run", BOOK, "--apply", digest)
    assert done.exit == 0, done.said
    assert on(bench, "SELECT pg_is_in_recovery()") == [(True,)]
    assert bench.run("check", "replication").exit == 0
    assert slots(bench) == ["replica1", "replica2", NAME]
    again = bench.run("run", BOOK, "--apply", digest)
    assert (again.exit, "nothing to do" in again.said) == (0, True), again.said
    taken_back(bench, last(bench))
    assert leftovers(bench) == []
    assert slots(bench) == ["replica1", "replica2"]
    assert planned(bench) == digest, "the facts are those from before"
    bench.sound()


def test_into_an_empty_folder_that_stays(bench: Bench) -> None:
    data(bench).mkdir(mode=0o700)
    bench.fleet.programs.hand_over(data(bench))
    done = bench.run("run", BOOK, "--apply", planned(bench))
    assert done.exit == 0, done.said
    taken_back(bench, last(bench))
    assert leftovers(bench) == [NAME]
    assert list(data(bench).iterdir()) == []
    data(bench).rmdir()


@pytest.mark.parametrize(
    "death",
    deaths((f"{when} {n}" for n in range(2, 8) for when in ("before", "after")), {"after 3", "after 6"}),
)
def test_killed_at_a_record_there_is_one_in_the_end(bench: Bench, death: str) -> None:
    """The records: opened, leased, intended, outcome, verified, sealed, ended."""
    digest = planned(bench)
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", BOOK, "--apply", digest]
    died = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    for run in bench.unfinished():
        done = bench.run("resume", run)
        assert done.exit == 0, done.said
    assert leftovers(bench) == [NAME]
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    assert slots(bench) == ["replica1", "replica2", NAME]


@pytest.mark.parametrize("end", ["resume", "rollback"])
def test_killed_while_it_is_copied(bench: Bench, end: str) -> None:
    """The base backup outlives its run; who goes on ends it, and begins again."""
    digest = planned(bench)
    going = bench.start("run", BOOK, "--apply", digest)
    until(lambda: list(bench.fleet.folder.glob(f"{NAME}.new-*/{NAME}/base")), "the copy has not begun")
    going.kill()
    (run,) = bench.unfinished()
    assert f"the run {run} has begun it" in bench.run("check", BOOK, "--name", NAME).out
    done = bench.run(end, run)
    assert done.exit == 0, done.said
    assert leftovers(bench) == ([NAME] if end == "resume" else [])
    assert slots(bench) == ["replica1", "replica2", *([NAME] if end == "resume" else [])]


def test_one_that_takes_writes_by_now_is_not_removed(bench: Bench) -> None:
    done = bench.run("run", BOOK, "--apply", planned(bench))
    assert done.exit == 0, done.said
    on(bench, "SELECT pg_promote()")
    run = last(bench)
    asked = bench.run("rollback", run)
    done = bench.run("rollback", run, "--apply", asked.err.partition("--apply ")[2].split()[0])
    assert done.exit == 10, done.said
    assert "takes writes by now" in done.said
    assert on(bench, "SELECT pg_is_in_recovery()") == [(False,)]
    (data(bench) / "standby.signal").touch(mode=0o600)
    bench.fleet.programs.hand_over(data(bench) / "standby.signal")
    server(bench).stop("immediate")
    taken_back(bench, run)


def test_what_is_there_is_somebodys(bench: Bench) -> None:
    data(bench).mkdir()
    (data(bench) / "PG_VERSION").write_text("18\n")
    assert "not empty: what is there belongs to somebody" in refused(bench, "--name", NAME)
    assert (data(bench) / "PG_VERSION").read_text() == "18\n"
    (data(bench) / "PG_VERSION").unlink()
    data(bench).rmdir()


def test_what_would_make_it_fail_is_named_before(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", server(bench).port))
        taken.listen()
        assert f"its port {server(bench).port} cannot be had" in refused(bench)
    with subprocess.Popen(receiving(bench, "--slot", NAME, "--create-slot"), env=passwords(bench)) as making:
        assert making.wait() == 0
    with subprocess.Popen(receiving(bench, "--slot", NAME), env=passwords(bench)) as reading:
        until(lambda: bench.sql(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'")[0][0], "idle")
        assert f"somebody reads from the slot {NAME} of primary" in refused(bench)
        reading.terminate()
    until(lambda: not bench.sql(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{NAME}'")[0][0], "busy")
    planned(bench)  # one that nobody reads from is that of one that lost its disk
    bench.sql(f"SELECT pg_drop_replication_slot('{NAME}')")
    assert "no server replica9 is declared" in refused(bench, "--name", "replica9")


def test_slots_that_are_used_up(bench: Bench) -> None:
    for n in range(8):
        bench.sql(f"SELECT pg_create_physical_replication_slot('other{n}')")
    try:
        assert "max_replication_slots of primary are used up" in refused(bench)
    finally:
        bench.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'other%'")


def test_senders_that_are_used_up(bench: Bench) -> None:
    folder, env = bench.fleet.folder, bench.env(PGPASSFILE=str(bench.fleet.passfile))
    dsn = f"host={folder}/s port={bench.fleet.primary.port} user=aiprod_backup"
    places = [folder / f"wal{n}" for n in range(7)]
    receivers = []
    for place in places:
        place.mkdir()
        line = [str(bench.fleet.programs.bin / "pg_receivewal"), "-D", str(place), "-d", dsn, "--no-loop"]
        receivers.append(subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
        until(lambda: bench.sql(count)[0][0] == 9, "they do not stream")
        assert "of max_wal_senders of primary 1 are left, a base backup needs 2" in refused(bench)
    finally:
        for each in receivers:
            each.terminate()
            each.wait()
        until(lambda: bench.sql(count)[0][0] == 2, "they do not end")


def test_settings_that_would_be_lower(bench: Bench) -> None:
    """The primary's files were changed, and it runs with more until it is restarted."""
    bench.sql("ALTER SYSTEM SET max_connections = 20")
    try:
        assert "max_connections is 20 in the files of primary, which runs with 100" in refused(bench)
    finally:
        bench.sql("ALTER SYSTEM RESET max_connections")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_too_little_room_is_told_before(bench: Bench) -> None:
    place = bench.fleet.folder / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    other = bench.config.with_name("small.toml")
    other.write_text(bench.config.read_text().replace(str(data(bench)), str(place / "data")))
    try:
        assert "are free in" in refused(bench, "--config", str(other))
        other.write_text(bench.config.read_text().replace(str(data(bench)), str(place)))
        assert "is a mount point" in refused(bench, "--config", str(other))
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()
        other.unlink()


def test_a_copy_that_fails_leaves_nothing(bench: Bench) -> None:
    """Its upstream's password file is not there: 20, and the slot is dropped again."""
    other = bench.config.with_name("wrong.toml")
    head, name, rest = bench.config.read_text().rpartition(f"[targets.lab.servers.{NAME}]")
    other.write_text(head + name + rest.replace("replication.pgpass", "nowhere.pgpass"))
    done: Done = bench.run("run", BOOK, "--apply", planned(bench, "--config", str(other)), "--config", str(other))
    other.unlink()
    assert done.exit == 20, done.said
    assert "pg_basebackup failed" in done.said
    assert leftovers(bench) == []
    assert slots(bench) == ["replica1", "replica2"]


def test_one_that_was_never_made_is_not_rebuilt(bench: Bench) -> None:
    assert f"{NAME}: it does not answer" not in bench.run("check", "rebuild-replica").out
