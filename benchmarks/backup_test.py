"""What it costs to know that a backup restores: the whole verified restore beside a plain one of the same data.

Whole is `aiprod-ops prove test-backup` as a process: restored, started, every file, page, b-tree and row looked at,
evidence sealed. It is measured three times: as it is by default, where tables beyond 2 GB are counted; with every row
held against the source (`--compare 1TB`), whose rows are added up at the same moment and on the same cores, where in
production another machine does that; and with `--compare 0`, where the rows of both are counted and those of the copy
are read by pg_amcheck alone. What it waited until the WAL of that moment was kept is not counted: a bystander ends
the segment at once, a server does when it is full, or after its archive_timeout.

Plain is pg_basebackup and a start; a copy of the stored files and a start; and, of a server of its own with a
repository of pgBackRest, as that comes and set up to be fast, `pgbackrest restore` and a start. By turns. What is to
last is written to the disk, as pg_basebackup and pgbackrest do by themselves; a disposable copy is not.
"""

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from aiprod_ops.adapters.local.instance import LONGEST, PostgresServer
from aiprod_ops.adapters.local.platform import STANDALONE
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.adapters.pgbackrest.repository import PgBackRest
from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet
from benchmarks import report
from benchmarks.fleet import lab

ROWS = [int(rows) for rows in os.environ.get("BACKUP_TEST_ROWS", "250000,1200000,6000000").split(",")]
ROUNDS = 3
LIMIT = 1.5
STANZA = "main"
SYSTEM = os.environ.get("BACKUP_TEST_POSTGRES_BIN", "/usr/lib/postgresql/15/bin")  #: one that pgBackRest knows

DEFAULT, HELD, COUNTED = "as by default", "every row held against the source", "rows counted (--compare 0)"
BASE_BACKUP, FILES = "pg_basebackup and start", "copy of the stored files and start"
PGBACKREST = "pgbackrest restore and start"
SET_UP: Mapping[str, Mapping[str, object]] = {
    "as it comes": {},
    "with lz4 and two processes": {"compress-type": "lz4", "process-max": 2},
}

Ways = Mapping[str, Callable[[], float]]


def run() -> None:
    for package in ("aiprod_ops", "runbooks"):  # as pip does with what it installs
        compileall.compile_dir(package, quiet=1)
    rows: list[report.Row] = []
    per_gb: list[tuple[float, float]] = []
    for jobs in ROWS:
        with lab(jobs, workload=False) as made:
            took, size = _by_turns(_folder(made)), _size(made)
        rows += _beside(took, f"{size:.2f} GB", BASE_BACKUP, FILES)
        per_gb.append((size, statistics.median(took[HELD]) / size))
    (small, first), (large, last) = per_gb[0], per_gb[-1]
    rows.append(report.Row(f"seconds a GB at {large:.1f} GB", "s/GB", last, first, f"at {small:.1f} GB", ROUNDS, 0.0))
    notes = []
    if shutil.which("pgbackrest") and Path(SYSTEM, "pg_amcheck").is_file():
        for jobs in ROWS:
            for how, options in SET_UP.items():
                with lab(jobs, workload=False, postgres_bin=Path(SYSTEM)) as made, _pgbackrest(made, options) as ways:
                    rows += _beside(_by_turns(ways), f"{_size(made):.2f} GB in pgBackRest {how}", PGBACKREST)
    else:
        notes.append(f"left out: pgBackRest, for which pgbackrest and the PostgreSQL in {SYSTEM} are needed")
    report.write("backup_test", rows, notes)


def _beside(took: Mapping[str, list[float]], size: str, limited: str, *more: str) -> Iterator[report.Row]:
    for ours in (DEFAULT, HELD, COUNTED):
        for peer in (limited, *more):
            mine, theirs = statistics.median(took[ours]), statistics.median(took[peer])
            what, limit = f"restore of {size}, {ours}", LIMIT if peer == limited else None
            yield report.Row(what, "s", mine, theirs, peer, ROUNDS, report.spread(took[ours]), limit=limit)


def _by_turns(ways: Ways) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            took[name].append(way())
    return took


def _size(made: Fleet) -> float:
    files = (path for path in made.primary.data.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "pg_wal" not in path.parts and "log" not in path.parts) / 1e9


def _folder(made: Fleet) -> Ways:
    stored = made.folder / "backups" / made.repository.take("bench")
    env = {"PGPASSFILE": str(made.passfile)}

    def base_backup(server: PostgresServer) -> None:
        server.base_backup(made.dsn("aiprod_backup"), env=env, sync=True)  # as it does by itself
        server.configure(STANDALONE, postgres.TRUST)

    def files(server: PostgresServer) -> None:
        shutil.copytree(stored, server.data)
        server.data.chmod(0o700)
        subprocess.run(["sync", "--file-system", str(server.data)], check=True)
        server.configure(STANDALONE, postgres.TRUST)

    return {
        DEFAULT: lambda: _held(made),
        HELD: lambda: _held(made, "--compare", "1TB"),
        BASE_BACKUP: lambda: _plain(made, base_backup),
        COUNTED: lambda: _held(made, "--compare", "0"),
        FILES: lambda: _plain(made, files),
    }


@contextmanager
def _pgbackrest(made: Fleet, options: Mapping[str, object]) -> Iterator[Ways]:
    """A lab's primary, whose backups and WAL pgBackRest keeps."""
    folder = made.folder / "pgbackrest"
    places = {name: folder / name.removesuffix("-path") for name in ("repo1-path", "lock-path", "log-path")}
    for place in (folder, *places.values()):
        place.mkdir()
        made.programs.hand_over(place)
    file = folder / "pgbackrest.conf"
    everything = {**places, "repo1-retention-full": 7, "start-fast": "y", **options}
    stanza = {
        "pg1-path": made.primary.data, "pg1-socket-path": made.primary.sockets, "pg1-port": made.primary.port,
        "pg1-user": "postgres",
    }  # fmt: skip
    file.write_text("\n".join(["[global]", *_lines(everything), f"[{STANZA}]", *_lines(stanza), ""]))
    call = f'pgbackrest --config="{file}" --stanza={STANZA} --log-level-console=off'
    program = Program(STANZA, env={"PGBACKREST_CONFIG": str(file), "PGPASSFILE": str(made.passfile)})
    program.run("stanza-create")
    postgres.rows(made.dsn("postgres"), f"ALTER SYSTEM SET archive_command = '{call} archive-push %p'")
    postgres.rows(made.dsn("postgres"), "SELECT pg_reload_conf()")
    PgBackRest(program).take("bench")
    lines = made.config.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("backups = ", "archive = "))]
    made.config.write_text("\n".join([*kept, f'backups = "pgbackrest:{STANZA}"', ""]))

    def restore(server: PostgresServer) -> None:
        server.data.mkdir(mode=0o700)
        program.run("restore", f"--pg1-path={server.data}", timeout=LONGEST)
        settings = {"restore_command": f'{call} --pg1-path="{server.data}" archive-get %f "%p"', "hot_standby": "off"}
        server.configure({**STANDALONE, **settings}, postgres.TRUST)
        (server.data / "recovery.signal").touch(mode=0o600)

    os.environ |= program.env
    try:
        yield {
            DEFAULT: lambda: _held(made),
            HELD: lambda: _held(made, "--compare", "1TB"),
            PGBACKREST: lambda: _plain(made, restore),
            COUNTED: lambda: _held(made, "--compare", "0"),
        }
    finally:
        for name in program.env:
            del os.environ[name]


def _lines(options: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def _held(made: Fleet, *options: str) -> float:
    """Without the time until the WAL of the moment was kept."""
    with _segment_ended(made.dsn("postgres")):
        took, found = _whole(*options)
    assert found["tables that differ at the same moment"] == 0, "there was no common moment"
    return took - found["what would have been lost"]


def _whole(*options: str) -> tuple[float, dict[str, float]]:
    """With the figures of what was found."""
    command = [str(Path(sys.executable).with_name("aiprod-ops")), "prove", "test-backup", *options, "-o", "json"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    took = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    found = {each["metric"]: each["value"] for each in json.loads(done.stdout)["findings"]}
    assert found["damaged heaps and b-trees"] == 0
    return took, found


@contextmanager
def _segment_ended(dsn: str) -> Iterator[None]:
    """The segment of WAL that a moment lies in is ended as soon as somebody reads a moment."""
    is_over = Event()

    def watch() -> None:
        with postgres.session(dsn) as session, session.cursor() as cursor:
            seen = (
                "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND (query LIKE '%aiprod-ops: a moment %'"
                " OR query LIKE '%aiprod-ops: rows of a table %')"  # which follows at once
            )
            while not is_over.wait(0.005):
                cursor.execute(seen)
                if cursor.rowcount:
                    cursor.execute("SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()")
                    return

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _plain(made: Fleet, fill: Callable[[PostgresServer], None]) -> float:
    """Until it answers."""
    folder = made.folder / "copies" / "plain"
    folder.mkdir(mode=0o711)
    server = PostgresServer(made.programs, folder / "data", folder / "s", 5432, folder / "log")
    started = time.perf_counter()
    fill(server)
    made.programs.hand_over(server.data)
    server.start()
    server.await_answer(LONGEST)
    took = time.perf_counter() - started
    server.stop("immediate")
    shutil.rmtree(folder)
    return took
