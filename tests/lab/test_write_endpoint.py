"""The application's way to the primary follows it: through a real pgbouncer, and through commands of the operator."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Bench, lab, until

from aiprod_ops.adapters.endpoints import PgBouncer
from aiprod_ops.adapters.local import unprivileged
from aiprod_ops.errors import Failed, Unreachable
from aiprod_ops.lab import ports, postgres, switching
from aiprod_ops.lab.writers import TABLE, writing
from aiprod_ops.ports import Place

pytestmark = pytest.mark.lab
BOOK = "fail-over-replica"
ADMIN = 'admin = "postgresql://postgres@/aiprod?host=127.0.0.1'  #: pgbouncer has no way into the servers' sockets
PROGRAM = shutil.which("pgbouncer")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with lab(5_000) as made:
        made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        yield made


def moved(bench: Bench) -> str:
    """Plan and run a switchover; what the plan shows."""
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    made = bench.run("plan", BOOK, "-o", "json")
    kinds = [action["kind"] for action in made.json()["plan"]["actions"]]
    assert kinds == ["switch-over", "repoint", "rejoin"], made.said
    done = bench.run("run", BOOK, "--apply", made.json()["digest"], "--confirm", "lab")
    assert done.exit == 0, done.said
    return str(made.json()["plan"]["actions"][0]["subject"]["new"])


@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not there")
def test_writers_behind_pgbouncer_follow(bench: Bench, tmp_path: Path) -> None:
    folder = bench.fleet.folder / "pgbouncer"
    folder.mkdir()
    (port,) = ports.free(folder)
    primary = bench.fleet.primary
    file = folder / "pgbouncer.ini"
    admin = f"user=postgres password={passwords(bench)['postgres']}"
    file.write_text(
        "# by hand\n[databases]\n"
        f"aiprod = host=127.0.0.1 port={primary.port} dbname=aiprod {admin}\n"
        f"other = host=/nowhere port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\n"
        f"auth_file = {folder}/users\nadmin_users = admin\nlogfile = {folder}/log\npidfile = {folder}/pid\n"
        "unix_socket_dir =\nignore_startup_parameters = options\nserver_login_retry = 0.2\n"
    )
    bench.fleet.programs.hand_over(folder)  # it has to reach the servers' sockets, and is nobody's as root
    assert PROGRAM is not None
    (folder / "users").write_text('"admin" ""\n"postgres" ""\n')
    command = unprivileged.command(bench.fleet.programs.way, [PROGRAM, str(file)])
    going = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    console = f"postgresql://admin@127.0.0.1:{port}/pgbouncer"
    try:
        text = bench.config.read_text().replace(f'admin = "postgresql://postgres@/aiprod?host={primary.sockets}', ADMIN)
        bench.config.write_text(text)
        with bench.config.open("a") as config:
            config.write(f'[targets.lab.writes]\npgbouncer = "{console}"\nfile = "{file}"\ndatabase = "aiprod"\n')
        bouncer = PgBouncer(console, file, "aiprod")
        until(lambda: shown(bouncer) == f"127.0.0.1:{primary.port}", "pgbouncer is not up")
        before = file.stat()
        with writing(
            bench.fleet, tmp_path / "w", dsn=f"host=127.0.0.1 port={port} dbname=aiprod user=postgres"
        ) as writers:
            new = moved(bench)
        place = replace(switching.cluster(bench.fleet).place(new), host="127.0.0.1")
        assert bouncer.shown() == str(place)
        text = file.read_text()
        assert (f"aiprod = host={place.host} port={place.port} dbname=aiprod user=postgres" in text) is True
        assert text.startswith("# by hand\n")
        assert "other = host=/nowhere port=1\n" in text
        assert (file.stat().st_mode, file.stat().st_uid) == (before.st_mode, before.st_uid)
        there = {n for (n,) in postgres.rows(f"host={place.host} port={place.port} dbname=aiprod user=postgres "
                                             f"passfile={bench.fleet.passfile}", f"SELECT n FROM {TABLE}")}  # fmt: skip
        assert writers.writes().lost(there) == []
        last = {int(line.split()[1]) for each in writers.files for line in each.read_text().splitlines()[-1:]}
        assert last <= there
        with pytest.raises(Failed, match="has no entry absent"):
            PgBouncer(console, file, "absent").lead("x", Place("h", 1))
    finally:
        going.terminate()
        going.wait(10)
    with pytest.raises(Unreachable):
        PgBouncer(console, file, "aiprod").shown()
    stuck = bench.run("plan", BOOK, "-o", "json")  # it cannot be read, so a planned move is not begun
    refused = bench.run("run", BOOK, "--apply", stuck.json()["digest"], "--confirm", "lab")
    assert (refused.exit, "the way to the primary cannot be read" in refused.said) == (10, True), refused.said


def shown(bouncer: PgBouncer) -> str:
    try:
        return bouncer.shown()
    except Unreachable:
        return ""


def passwords(bench: Bench) -> dict[str, str]:
    lines = [line.rsplit(":", 2) for line in bench.fleet.passfile.read_text().splitlines() if line]
    return {user: password for _, user, password in lines}


def test_commands_of_the_operator_are_told_where(bench: Bench, tmp_path: Path) -> None:
    record = tmp_path / "record"
    primary = bench.fleet.primary
    record.write_text(f"{primary.sockets}:{primary.port}\n")
    point = [sys.executable, "-c", f"import sys; open({str(record)!r}, 'w').write(sys.argv[1])", "{host}:{port}"]
    with bench.config.open("a") as config:
        config.write(f"[targets.lab.writes]\nshow = {json.dumps(['cat', str(record)])}\npoint = {json.dumps(point)}\n")
    assert "repoint" in bench.run("plan", BOOK).out
    new = moved(bench)
    assert record.read_text() == str(switching.cluster(bench.fleet).place(new))
    with bench.config.open("a") as config:
        config.write("surprise = 1\n")
    done = bench.run("plan", BOOK)
    assert (done.exit, "show and point" in done.err) == (78, True), done.said


def test_a_way_that_cannot_be_set_takes_the_move_back(bench: Bench, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text(f"{bench.fleet.primary.sockets}:{bench.fleet.primary.port}\n")
    with bench.config.open("a") as config:
        config.write(f"[targets.lab.writes]\nshow = {json.dumps(['cat', str(record)])}\npoint = ['false']\n")
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    made = bench.run("plan", BOOK, "-o", "json")
    done = bench.run("run", BOOK, "--apply", made.json()["digest"], "--confirm", "lab")
    assert (done.exit, "false ended 1" in done.said) == (20, True), done.said
    assert switching.primary(switching.cluster(bench.fleet)) == "primary"
    until(lambda: bench.run("check", "replication").exit == 0, "not as before")
