"""The main job, end to end, on small data: find, plan, prove, apply, verify, keep the evidence, take it back."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import BOOK, Bench, lab

from aiprod_ops.lab import postgres, workload

pytestmark = pytest.mark.lab
ROWS = 40_000
SLOW = ("--objective", "1ms", "--load", "0.0001", "--wasted", "0.0001")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A lab whose statements ran three times each."""
    with lab(ROWS) as bench:
        workload.run(bench.fleet.dsn("aiprod_app"), bench.fleet.scale, rounds=3)
        yield bench


@pytest.fixture(scope="module")
def applied(bench: Bench) -> tuple[str, str]:
    """The digest of the plan that was proven and applied, and its run."""
    made = bench.run("plan", BOOK, "-o", "json", *SLOW)
    assert made.exit == 0, made.said
    proof = bench.run("prove", BOOK, "--plan", made.json()["digest"], "-o", "json")
    assert proof.exit in (0, 10), proof.said
    digest = str(proof.json()["proves"])
    assert digest, f"nothing of the plan holds: {proof.json()['refused']}"
    done = bench.run("run", BOOK, "--apply", digest, "-o", "json", "--why", "OPS-1")
    assert done.exit == 0, done.said
    return digest, str(done.json()["run"])


def proof_of(bench: Bench, digest: str) -> dict[str, object]:
    records = bench.run("evidence", "list", "-o", "json").json()
    return next(r["body"] for r in records if r["body"]["kind"] == "prove" and r["body"]["proves"] == digest)


def test_the_check_is_critical_before_and_ok_after(bench: Bench, applied: tuple[str, str]) -> None:
    with lab(ROWS) as other:
        workload.run(other.fleet.dsn("aiprod_app"), other.fleet.scale, rounds=2)
        before = other.run("check", BOOK, "-o", "json", *SLOW)
    assert before.exit == 2, before.said
    columns = [set(f["columns"]) for f in before.json()["checks"][0]["findings"] if f["columns"]]
    assert columns
    assert all({"statement", "calls", "mean", "total", "share"} <= names for names in columns)
    after = bench.run("check", BOOK, "-o", "json", *SLOW)
    left = [f for f in after.json()["checks"][0]["findings"] if f["status"] in ("WARNING", "CRITICAL")]
    assert len(left) < len(columns), after.said


def test_the_slowest_statements_became_ten_times_faster(bench: Bench, applied: tuple[str, str]) -> None:
    comparisons = proof_of(bench, applied[0])["comparisons"]
    assert isinstance(comparisons, list)
    slowest = max((c for c in comparisons if c["unit"] == "buffers"), key=lambda c: c["before"]["median"])
    assert slowest["gain"] >= 10
    assert {c["columns"]["plan"] for c in comparisons} == {"custom", "generic"}
    assert all(c["before"]["n"] >= 2 and c["after"]["n"] >= 2 for c in comparisons)


def test_every_planned_index_is_there_and_valid(bench: Bench, applied: tuple[str, str]) -> None:
    record = next(r for r in bench.run("evidence", "list", "-o", "json").json() if r["body"]["run"] == applied[1])
    planned = {action["name"] for action in record["body"]["actions"]}
    there = {name: ok for table in ("jobs", "results", "pipeline_jobs") for name, ok in bench.indexes(table).items()}
    assert planned <= set(there)
    assert all(there[name] for name in planned)
    assert record["body"]["why"] == "OPS-1"
    assert record["body"]["lease"][0]["token"] >= 1
    assert record["body"]["verification"]


def test_applied_twice_is_nothing_to_do(bench: Bench, applied: tuple[str, str]) -> None:
    runs = len(bench.journals())
    again = bench.run("run", BOOK, "--apply", applied[0])
    assert again.exit == 0, again.said
    assert "nothing to do" in again.out
    assert len(bench.journals()) == runs


def test_the_alembic_revision_upgrades_and_downgrades_another_database(
    bench: Bench, applied: tuple[str, str], tmp_path: Path
) -> None:
    (written,) = (bench.state / "runs" / applied[1] / "files").glob("*.py")
    (tmp_path / "versions").mkdir()
    for name in ("env.py", "script.py.mako"):
        source = Path(str(importlib.util.find_spec("aiprod_ops.migrations").submodule_search_locations[0])) / name  # type: ignore[union-attr,index]
        (tmp_path / name).write_text(source.read_text())
    first = source.parent / "versions/001_create_schema.py"
    (tmp_path / "versions/001_create_schema.py").write_text(first.read_text())
    (tmp_path / "versions" / written.name).write_text(written.read_text())
    bench.sql("CREATE DATABASE second")
    with postgres.session(bench.admin.replace("/aiprod?", "/second?")) as session:
        from alembic import command
        from alembic.config import Config
        from sqlalchemy import create_engine

        engine = create_engine("postgresql+psycopg2://", creator=lambda: session)
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(tmp_path))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            names = "select count(*) from pg_indexes where schemaname = 'public' and indexname like 'idx_%%'"
            assert connection.exec_driver_sql(names).scalar() == len(json.loads(written_actions(bench, applied[1])))
            command.upgrade(config, "head")
            command.downgrade(config, "001")
            assert connection.exec_driver_sql(names).scalar() == 0


def written_actions(bench: Bench, run: str) -> str:
    record = next(r for r in bench.run("evidence", "list", "-o", "json").json() if r["body"]["run"] == run)
    return json.dumps([a for a in record["body"]["actions"] if a["kind"] == "create-index"])


def test_every_command_speaks_json(bench: Bench, applied: tuple[str, str]) -> None:
    for words in (
        ("list",), ("check", BOOK), ("plan", BOOK), ("runs", "list"), ("runs", "show", applied[1]),
        ("evidence", "list"), ("evidence", "verify"), ("resume", applied[1]), ("resume", "no-such-run"),
    ):  # fmt: skip
        assert bench.run(*words, "-o", "json").json() is not None, words
    assert bench.run("check", BOOK, "-o", "nagios").out.split(" ")[0] in ("OK", "WARNING", "CRITICAL")
    assert "aiprod_ops_check_status{" in bench.run("check", BOOK, "-o", "prom").out


def test_a_finished_run_is_rolled_back_with_an_approval_of_its_own(bench: Bench, applied: tuple[str, str]) -> None:
    asked = bench.run("rollback", applied[1])
    assert asked.exit == 12, asked.said
    digest = next(word for word in asked.err.split() if len(word) == 12 and word.isalnum())
    back = bench.run("rollback", applied[1], "--apply", digest)
    assert back.exit == 0, back.said
    there = {name for table in ("jobs", "results", "pipeline_jobs") for name in bench.indexes(table)}
    assert not {name for name in there if name.startswith("idx_")}
    assert bench.run("evidence", "verify").exit == 0
