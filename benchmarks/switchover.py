"""How long writes stop while the primary is moved: `run fail-over-replica` beside a script written by hand.

The script is the fastest safe one that fits on a page: checkpoint, let the sibling follow the candidate, `pg_ctl stop
-m fast`, wait until the candidate has replayed the shutdown checkpoint, `pg_ctl promote`, start the old one as a
standby. It checks no guard, journals nothing and cannot be resumed. By turns on the same servers, under the same
writers; what was acknowledged is looked for after each.

Then `patronictl switchover`, on a cluster of the same programs on the same machine under the same writers: once beside
ours without Patroni, which does the steps itself, and once beside ours through Patroni, which is asked for them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import patroni, postgres, switching
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.writers import TABLE, Writes, writing
from benchmarks import report
from benchmarks.fleet import lab

ROUNDS = int(os.environ.get("SWITCHOVER_ROUNDS", "10"))
LIMIT = 1.5
_BY_HAND = "a script by hand: checkpoint, stop, wait, promote"


def run() -> None:
    stops: dict[str, list[float]] = {"ours": [], "hand": []}
    lost = dict.fromkeys(stops, 0)
    with lab(100_000, workload=False) as made:
        moved = switching.cluster(made)
        switching.ask(made, moved, f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        for _ in range(ROUNDS):
            for name, way in (("ours", lambda _made, _old, new: _ours(new)), ("hand", _by_hand)):
                old = switching.primary(moved)
                new = next(each for each in moved.names if each != old)
                with tempfile.TemporaryDirectory() as folder, writing(made, Path(folder)) as writers:
                    time.sleep(0.5)
                    way(made, old, new)
                    time.sleep(0.5)
                    writes: Writes = writers.stop()
                rows = switching.ask(made, moved, f"SELECT n FROM {TABLE}")
                lost[name] += len(writes.lost({int(str(row["n"])) for row in rows}))
                stops[name].append(writes.longest_stop)
                for each in moved.names:
                    while each != new and not moved.streams(each, new):
                        time.sleep(0.05)
    middle = {name: sorted(values)[len(values) // 2] for name, values in stops.items()}
    theirs = {} if patroni.lacks() else _with_patroni()
    for name, (found, gone) in theirs.items():
        stops[name], lost[name], middle[name] = found, gone, sorted(found)[len(found) // 2]
    compared = [
        report.Row(
            what, "ms", middle[ours] * 1e3, middle[peer] * 1e3, said, ROUNDS, report.spread(stops[ours]), limit=limit
        )
        for what, ours, peer, said, limit in (
            ("writes stop while the primary is moved, worst of 3 writers", "ours", "hand", _BY_HAND, LIMIT),
            ("the same, beside Patroni on servers of its own", "ours", "patronictl", "patronictl switchover", 0.5),
            ("the same, ours through Patroni", "through Patroni", "patronictl", "patronictl switchover", None),
        )
        if peer in stops
    ]
    notes = [
        f"{name}: {lost[name]} acknowledged writes lost, longest {max(stops[name]) * 1e3:.0f} ms" for name in stops
    ]
    if patroni.lacks():
        notes.append(f"patronictl was not looked at: it needs {patroni.lacks()}")
    report.write("switchover", compared, notes)


def _with_patroni() -> dict[str, tuple[list[float], int]]:
    """How long writes stopped and how many were lost, by patronictl and by ours, in turn on one cluster."""
    found: dict[str, tuple[list[float], int]] = {"patronictl": ([], 0), "through Patroni": ([], 0)}
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as short:
        Path(short).chmod(0o711)
        with patroni.cluster(Path(short) / "p") as made:
            postgres.rows(made.dsn("postgres"), f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
            for turn in range(2 * ROUNDS):
                name = list(found)[turn % 2]
                old = made.leader()
                new = next(each.name for each in made.members if each.name != old)
                folder = Path(short) / f"writers{turn}"
                with writing(None, folder, dsn=made.dsn("postgres")) as writers:
                    time.sleep(0.5)
                    if name == "patronictl":
                        place = str(made[old].folder / "patroni.yml")
                        words = ["switchover", patroni.SCOPE, "--leader", old, "--candidate", new, "--force"]
                        _said([str(Path(sys.executable).with_name("patronictl")), "-c", place, *words])
                    else:
                        _ours(new, "--config", str(made.config))
                    time.sleep(0.5)
                    writes: Writes = writers.stop()
                kept = {n for (n,) in postgres.rows(made.dsn("postgres"), f"SELECT n FROM {TABLE}")}
                stops, gone = found[name]
                found[name] = ([*stops, writes.longest_stop], gone + len(writes.lost(kept)))
                while not made.is_whole():
                    time.sleep(0.1)
    return found


def _ours(new: str, *where: str) -> None:
    call = [str(Path(sys.executable).with_name("aiprod-ops"))]
    digest = json.loads(_said([*call, "plan", "fail-over-replica", "--to", new, "-o", "json", *where]))["digest"]
    _said([*call, "run", "fail-over-replica", "--apply", digest, "--confirm", "lab", *where])


def _by_hand(made: Fleet, old: str, new: str) -> None:
    servers = dict(zip(("primary", *postgres.REPLICAS), (made.primary, *made.replicas), strict=True))
    before, after = servers[old], servers[new]
    sibling = next(server for name, server in servers.items() if name not in (old, new))
    _psql(made, before, "CHECKPOINT")
    for name in servers:
        if name != new:
            _psql(made, after, f"SELECT pg_create_physical_replication_slot('{name}', true)", may_fail=True)
    _follow(made, sibling, after)
    _psql(made, sibling, "SELECT pg_reload_conf()")
    _ctl(made, before, "stop", "--mode=fast")
    (before.data / "standby.signal").touch()
    made.programs.hand_over(before.data / "standby.signal")
    said = made.programs.run("pg_controldata", str(before.data), cwd=made.folder)
    last = re.search(r"^Latest checkpoint location:\s+(\S+)$", said, re.MULTILINE)
    assert last is not None
    while _psql(made, after, f"SELECT pg_last_wal_replay_lsn() > '{last[1]}'") != "t":
        time.sleep(0.005)
    _ctl(made, after, "promote")
    _write(made, before, _conninfo(made, before, after), before.data.name)
    _ctl(made, before, "start", f"--log={before.log}")


def _follow(made: Fleet, server: PostgresServer, upstream: PostgresServer) -> None:
    conninfo = _conninfo(made, server, upstream).replace("'", "''")
    _psql(made, server, f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'")
    _psql(made, server, f"ALTER SYSTEM SET primary_slot_name = '{server.data.name}'")


def _write(made: Fleet, server: PostgresServer, conninfo: str, slot: str) -> None:
    path = server.data / "postgresql.auto.conf"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("primary_")]
    quoted = conninfo.replace("'", "''")
    path.write_text("\n".join([*kept, f"primary_conninfo = '{quoted}'", f"primary_slot_name = '{slot}'", ""]))
    made.programs.hand_over(path)


def _conninfo(made: Fleet, server: PostgresServer, upstream: PostgresServer) -> str:
    secret = made.folder / "replication.pgpass"
    return (
        f"host={upstream.sockets} port={upstream.port} user=aiprod_backup passfile={secret} "
        f"application_name={server.data.name}"
    )


def _ctl(made: Fleet, server: PostgresServer, *words: str) -> None:
    _said(made.programs.command("pg_ctl", *words, f"--pgdata={server.data}"))


def _psql(made: Fleet, server: PostgresServer, text: str, *, may_fail: bool = False) -> str:
    dsn = made.dsn("postgres", server)
    program = shutil.which("psql") or str(made.programs.bin / "psql")
    return _said([program, "--no-psqlrc", "-tA", "-c", text, dsn], may_fail=may_fail).strip()


def _said(command: list[str], *, may_fail: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"{' '.join(command[:4])}: {done.stderr or done.stdout}")
    return done.stdout
