"""Index advice for 20 statements of an API over 1.5 million jobs: ours beside the documents' eight and public advisors.

Every advisor sees the same statements with the same calls and times, on tables with nothing but primary keys. Its
indexes are built on a database of their own, where every statement runs with rare, median and common values, with a
custom and with a generic plan, and then the lives of a thousand jobs are written. The load is calls a minute × time.

PostgreSQL 15 with Debian's HypoPG where both are installed (dexter and postgres-mcp need it), else what the lab has.
`BENCH_ROWS` sets another number of jobs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report, trials
from benchmarks.api_statements import READS, statements
from benchmarks.fleet import lab
from benchmarks.published_rules import dexter, pghero

ROWS = 1_500_000
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
MCP = Path("build/bench/postgres-mcp")
#: pglast 7.2.0, which it asks for, has no wheel for every Python; 7.22 has the same grammar.
MCP_NEEDS = ("attrs", "humanize", "instructor", "psycopg[binary]", "psycopg-pool", "pglast==7.22", "mcp[cli]>=1.5,<2")
SEEDS = range(4)
PROMISED_PROOF = 120.0  #: seconds for 20 statements × 8 indexes on 1 GB, the copy included
#: What ours must keep beside each peer: lowest under generic plans, within a tenth under custom ones.
GENERIC, CUSTOM = 1.0, 1.1


@dataclass(frozen=True)
class Advised:
    """An advisor's answer: its indexes, and how long it took; or why there is none."""

    name: str
    indexes: Sequence[str] = ()
    seconds: float = 0.0
    trouble: str = ""
    note: str = ""


def run() -> None:
    from aiprod_ops import config
    from aiprod_ops.adapters.local.platform import LocalPlatform
    from aiprod_ops.adapters.postgres.database import PostgresDatabase

    programs = POSTGRES_15 if (POSTGRES_15 / "postgres").is_file() else None
    with lab(int(os.environ.get("BENCH_ROWS", ROWS)), workload=False, postgres_bin=programs, name="advice") as made:
        target = config.load(str(made.config)).target("lab")
        opened: list[str] = []

        def connect(dsn: str) -> PostgresDatabase:
            opened.append(dsn)
            return PostgresDatabase(dsn, writes=True, application_name="aiprod-ops bench")

        platform = LocalPlatform(lambda: target.backup, made.folder / "copies", connect, postgres_bin=programs)
        started = time.perf_counter()
        with platform.copy("advice") as (copy, _):
            copied = time.perf_counter() - started
            copy.close()
            judge(trials.Place(opened[-1], "aiprod", made.scale), copied)


def judge(place: trials.Place, copied: float) -> None:
    """All advisors on one disposable server; `copied` is the time that making it took, in seconds."""
    from aiprod_ops.actions import measurements

    with place.open(place.template) as database:
        schema, sizes = database.schema(), database.sizes()
        wanted = measurements.cases(measurements.subjects(database, statements({})[: len(READS)], schema)[0])
    tried = {"no index": _tried("no index", place, (), wanted)}
    workload = statements(dict(tried["no index"].means))
    answers = [
        Advised("the documents' eight", _eight()),
        _answer("dexter's rules", lambda: _hypothetical(place, lambda database: dexter(database, workload, schema))),
        _answer("PgHero's rules", lambda: pghero(workload, schema, sizes)),
        _postgres_mcp(place, workload),
    ]
    ours = _answer("ours", lambda: _ours(workload, schema, sizes))
    first = _tried("ours", place, ours.indexes, wanted)
    for answer in answers:
        if not answer.trouble:
            tried[answer.name] = _tried(answer.name, place, _buildable(answer.indexes), wanted)
    again = _tried("ours", place, ours.indexes, wanted)
    rows = [row for name in tried for row in _rows((first, again), name, tried[name], ours, answers)]
    rows.append(_proof(copied, tried))
    report.write("index_advice", rows, [*_notes("ours", ours, first), *_peers(answers, tried)])


def _tried(name: str, place: trials.Place, indexes: Sequence[str], wanted: Sequence[Any]) -> trials.Trial:
    started = time.perf_counter()
    found = trials.run(place, indexes, wanted)
    print(f"{name}: {found.load} {found.wal:.0f} B of WAL, tried in {time.perf_counter() - started:.0f} s", flush=True)
    return found


def _answer(name: str, ask: Callable[[], list[str]]) -> Advised:
    from aiprod_ops.errors import OpsError

    started = time.perf_counter()
    try:
        indexes = ask()
    except OpsError as error:
        return Advised(name, trouble=error.message)
    return Advised(name, indexes, time.perf_counter() - started)


def _ours(workload: Sequence[Any], schema: Any, sizes: Any) -> list[str]:
    from aiprod_ops.actions.index_builds import Build, creation
    from aiprod_ops.domain.advice.indexes import advise

    found = advise(workload, schema, sizes).candidates
    return [creation(Build(each.index)).replace(" CONCURRENTLY", "") for each in found]


def _eight() -> list[str]:
    migration = import_module("aiprod_ops.migrations.versions.002_add_performance_indexes")
    return [f"create index {name} on {table} ({', '.join(columns)})" for name, table, columns in migration.INDEXES]


def _hypothetical(place: trials.Place, ask: Callable[[Any], list[str]]) -> list[str]:
    """In a database of its own, with HypoPG in it."""
    with place.database("advisor") as name, place.open(name) as database:
        database.execute("create extension hypopg")
        return ask(database)


def _buildable(indexes: Sequence[str]) -> list[str]:
    """Without trigram indexes: GiST over 1.5 million prompts took 151 s and 1.4 GB, for one statement a minute."""
    return [each for each in indexes if "gist_trgm_ops" not in each]


def _postgres_mcp(place: trials.Place, workload: Sequence[Any]) -> Advised:
    """In an environment of its own, over its library. The hash seed decides its answer: the first is tried."""
    name = "postgres-mcp 0.3.0"
    try:
        python = _environment()
    except subprocess.CalledProcessError as error:
        return Advised(name, trouble=f"it cannot be installed: {error.stderr.strip().splitlines()[-1]}")
    queries = [{"query": s.text, "calls": s.calls, "avg_exec_time": s.mean} for s in workload[: len(READS)]]
    said: list[dict[str, Any]] = []

    def ask(database: Any) -> list[str]:
        database.execute("analyze")
        said.extend(_asked(python, place.named("advisor"), queries, seed) for seed in SEEDS)
        return [str(each) for each in said[0]["indexes"]]

    found = _answer(name, lambda: _hypothetical(place, ask))
    if found.trouble or said[0]["error"]:
        return Advised(name, trouble=found.trouble or str(said[0]["error"]))
    different = len({tuple(sorted(map(str, each["indexes"]))) for each in said})
    note = f"it failed on {said[0]['failed']} of {len(queries)} statements, which it was then not given"
    note += f"; {different} different answers with {len(SEEDS)} hash seeds"
    return Advised(name, found.indexes, float(said[0]["seconds"]), note=note)


def _asked(python: Path, dsn: str, queries: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    worker = Path(__file__).with_name("peer_postgres_mcp.py")
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [python, worker, dsn], input=json.dumps(queries), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {"indexes": [], "seconds": 0.0, "failed": 0, "error": done.stderr[-300:]}
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _environment() -> Path:
    python = MCP / "bin" / "python"
    if not (MCP / "complete").exists():
        pip = [str(python), "-m", "pip", "install", "-q"]
        for command in (
            [sys.executable, "-m", "venv", str(MCP)],
            [*pip, "--no-deps", "--ignore-requires-python", "postgres-mcp==0.3.0"],
            [*pip, *MCP_NEEDS],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        (MCP / "complete").touch()
    return python.absolute()


def _rows(
    ours: Sequence[trials.Trial], name: str, peer: trials.Trial, advised: Advised, answers: Sequence[Advised]
) -> list[report.Row]:
    def row(what: str, unit: str, of: Callable[[trials.Trial], float], limit: float | None = None) -> report.Row:
        mine = [of(each) for each in ours]
        middle = sum(mine) / len(mine)
        return report.Row(what, unit, middle, of(peer), name, len(mine), report.spread(mine), limit=limit)

    is_eight = name == "the documents' eight"
    rows = [
        row("load, custom plans", "s/min", lambda each: each.load["custom"], CUSTOM),
        row("load, generic plans", "s/min", lambda each: each.load["generic"], GENERIC),
        row("load, custom plans", "pages/min", lambda each: each.buffers["custom"], CUSTOM),
        row("load, generic plans", "pages/min", lambda each: each.buffers["generic"], GENERIC),
        row("WAL of a job's life", "B", lambda each: each.wal, 1.0 if is_eight else None),
        row("index bytes", "MB", lambda each: each.bytes / 1e6),
        row("updates that stay HOT", "%", lambda each: each.hot * 100),
    ]
    seconds = next((each.seconds for each in answers if each.name == name and each.seconds), None)
    if seconds is not None:
        rows.append(report.Row("time to advise", "s", advised.seconds, seconds, name, 1, 0.0))
    return rows


def _proof(copied: float, tried: dict[str, trials.Trial]) -> report.Row:
    """Copy, all cases before, eight builds, all cases after: what proving the eight takes."""
    eight = tried["the documents' eight"]
    seconds = copied + tried["no index"].measured + eight.built + eight.measured
    what = "proof of 20 statements × 8 indexes, copy included"
    return report.Row(what, "s", seconds, PROMISED_PROOF, "promised", 1, 0.0, limit=1.0)


def _peers(answers: Sequence[Advised], tried: dict[str, trials.Trial]) -> list[str]:
    notes = _notes("no index", Advised("no index"), tried["no index"])
    for answer in answers:
        if answer.trouble:
            notes.append(f"{answer.name}: not run: {answer.trouble}")
            continue
        notes += _notes(answer.name, answer, tried[answer.name])
        if skipped := [each for each in answer.indexes if each not in _buildable(answer.indexes)]:
            notes.append(f"  not built: {'; '.join(skipped)} (see _buildable)")
    return notes


def _notes(name: str, answer: Advised, trial: trials.Trial) -> list[str]:
    head = f"{name}: {len(answer.indexes)} indexes, built in {trial.built:.1f} s"
    lines = [head + (f"; {answer.note}" if answer.note else ""), *(f"  {each}" for each in answer.indexes)]
    return [*lines, *(f"  most load, {plan} plans: {text}" for plan, text in trial.worst.items())]
