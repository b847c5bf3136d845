"""verify-indexes from the fault to the verified repair, on a fleet with two replicas."""

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from command_line import Bench, Done, lab, session_of, until

from aiprod_ops.lab import workload

pytestmark = pytest.mark.lab
BOOK = "verify-indexes"
OPTIONS = ("--window", "1s", "--least", "100kB")

REVISION = '''"""Made by hand."""

from alembic import op

revision = "003"
down_revision = "001"


def upgrade() -> None:
    op.execute("CREATE INDEX declared ON results (quality_score DESC NULLS LAST) WHERE size_bytes > 10")
'''
PLANTED = """
    CREATE TABLE ledger (id int PRIMARY KEY, amount int, note text);
    ALTER TABLE ledger OWNER TO aiprod_owner;
    INSERT INTO ledger SELECT g, g, 'n' FROM generate_series(1, 60000) g;
    CREATE UNIQUE INDEX bloated ON ledger (amount);
    DELETE FROM ledger WHERE id % 20 <> 0;
    CREATE INDEX twin_a ON jobs (preset);
    CREATE INDEX twin_b ON jobs (preset);
    CREATE INDEX halfdone ON jobs (preset);
    UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'halfdone'::regclass;
    CREATE INDEX idle ON jobs (language);
    CREATE INDEX narrow ON jobs (status);
    UPDATE alembic_version SET version_num = '003';
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(20_000) as made:
        (made.fleet.migrations / "003_declared.py").write_text(REVISION)
        made.sql(PLANTED)
        made.sql("VACUUM (ANALYZE) ledger")
        with session_of(made) as (_, cursor), pytest.raises(psycopg2.Error, match="could not create unique index"):
            cursor.execute("CREATE UNIQUE INDEX CONCURRENTLY never ON jobs (priority)")
        made.sql("SELECT pg_stat_statements_reset()")
        workload.run(made.fleet.dsn("aiprod_app"), made.fleet.scale, rounds=5)
        assert made.run("check", BOOK, *OPTIONS).exit in (1, 2, 3)
        time.sleep(1.2)  # the window over which an index is unused
        yield made


def check(bench: Bench) -> dict[str, str]:
    """Findings that are not OK, by id."""
    done = bench.run("check", BOOK, *OPTIONS, "-o", "json")
    assert done.out.startswith("{"), done.said
    findings = done.json()["checks"][0]["findings"]
    return {finding["id"]: finding["status"] for finding in findings if finding["status"] != "OK"}


def planned(done: Done) -> dict[str, str]:
    """Actions of a plan: name → kind."""
    assert done.exit == 0, done.said
    return {action["name"]: action["kind"] for action in done.json()["plan"]["actions"]}


def test_what_is_found_is_planned(bench: Bench) -> None:
    found = check(bench)
    wanted = {"duplicate:public.twin_b", "invalid:public.halfdone", "invalid:public.never", "bloat:public.bloated",
              "unused:public.idle", "narrow:public.narrow", "missing:public.declared"}  # fmt: skip
    assert wanted <= found.keys(), found
    actions = planned(bench.run("plan", BOOK, *OPTIONS, "-o", "json"))
    assert actions.items() >= {
        "twin_b": "remove-index", "halfdone": "remove-index", "never": "rebuild-index", "bloated": "rebuild-index",
        "idle": "remove-index", "narrow": "remove-index", "declared": "restore-index",
        "idx_results_job_id": "create-index",
    }.items(), actions  # fmt: skip
    assert any(name.startswith("idx_jobs_status_created_at") for name in actions), "the wide one for the narrow one"
    kinds = list(actions.values())
    assert kinds == sorted(kinds, key=["create-index", "restore-index", "rebuild-index", "remove-index"].index)


def test_a_waived_finding_is_not_repaired(bench: Bench) -> None:
    own = bench.config.with_name("waiving.toml")
    waiver = '[[waivers]]\nfinding = "unused:public.idle"\nuntil = 2999-01-01\nreason = "the yearly report"\n'
    own.write_text(f"{bench.config.read_text()}\n{waiver}")
    made = bench.run("plan", BOOK, *OPTIONS, "-o", "json", "--config", str(own))
    assert "idle" not in planned(made)
    assert "until 2999-01-01" in bench.run("check", BOOK, *OPTIONS, "--config", str(own)).out


def test_an_index_that_is_used_after_all_stays(bench: Bench) -> None:
    """The workload needs one of them, which the copy tells; somebody needs the other before it is applied."""
    plan = bench.run("plan", BOOK, *OPTIONS, "--only", "unused", "-o", "json")
    assert planned(plan) == {"idle": "remove-index", "narrow": "remove-index"}
    proof = bench.run("prove", BOOK, "--plan", plan.json()["digest"], "-o", "json", timeout_s=300)
    assert proof.exit == 10, proof.said
    refused = proof.json()["refused"]
    assert refused.keys() == {"narrow"}, refused
    assert "worse" in refused["narrow"]
    worth = {row["index"]: row for row in proof.json()["worth"]}
    assert worth["public.narrow"]["used by"] == "3 statements"
    assert worth["public.narrow"]["HOT"] == "100% → 0%"
    assert worth["public.idle"]["used by"] == "0 statements"
    bench.sql("SET enable_seqscan = off; SELECT count(*) FROM jobs WHERE language = 'fr'")
    time.sleep(1.2)  # until the session's statistics are flushed
    done = bench.run("run", BOOK, "--apply", proof.json()["proves"])
    assert done.exit == 10, done.said
    assert "uses of idle since it was planned" in done.said
    assert "idle" in bench.indexes()


def test_all_is_proven_and_repaired_but_what_cannot_be(bench: Bench) -> None:
    check(bench)  # sees that one of them was used
    time.sleep(1.2)  # and this is not in the window any more
    plan = bench.run("plan", BOOK, *OPTIONS, "-o", "json")
    proof = bench.run("prove", BOOK, "--plan", plan.json()["digest"], "-o", "json", timeout_s=300)
    assert proof.exit == 10, proof.said
    body = proof.json()
    refused = body["refused"]
    # Whether the wide index is as good for each statement as the narrow one was is a matter of a few buffers here.
    assert refused.keys() - {"narrow"} == {"never", "idle"}, refused
    assert "SELECT count(*) FROM jobs WHERE language = $1” worse" in refused["idle"]
    assert "could not create unique index" in refused["never"]
    assert any(note.startswith("rebuilt on the copy: bloated") for note in body["notes"]), body["notes"]
    assert {"public.narrow", "public.twin_a", "public.jobs_pkey"} <= {row["index"] for row in body["worth"]}
    done = bench.run("run", BOOK, "--apply", body["proves"], timeout_s=300)
    assert done.exit == 0, done.said
    left = {name for name in bench.indexes() if not name.startswith("idx_jobs_status_created_at")}
    assert left == {"twin_a", "idx_jobs_user_id", *refused}
    assert set(bench.indexes("ledger")) == {"bloated"}
    (written,) = bench.fleet.migrations.glob("*_add_*.py")
    text = written.read_text()
    assert "CREATE INDEX CONCURRENTLY twin_b ON public.jobs USING btree (preset)" in text
    assert "declared" not in text
    assert "bloated" not in text
    assert check(bench).keys() & {"duplicate:public.twin_b", "bloat:public.bloated", "missing:public.declared"} == set()
    again = bench.run("run", BOOK, "--apply", body["proves"])
    assert again.exit == 0, again.said
    assert "Nothing was changed" in again.out
    bench.sound()


def test_a_rebuild_survives_kill_9(bench: Bench) -> None:
    bench.sql("INSERT INTO ledger SELECT g, g, 'n' FROM generate_series(100001, 160000) g")
    bench.sql("DELETE FROM ledger WHERE id % 20 <> 0")
    bench.sql("VACUUM (ANALYZE) ledger")
    plan = bench.run("plan", BOOK, *OPTIONS, "--only", "bloat", "--patience", "60s", "-o", "json")
    assert planned(plan) == {"bloated": "rebuild-index", "ledger_pkey": "rebuild-index"}
    digest = plan.json()["digest"]
    proof = bench.run("prove", BOOK, "--plan", digest, timeout_s=300)
    assert proof.exit == 0, proof.said
    before = filenode(bench)
    going = bench.start("run", BOOK, "--apply", digest)
    with psycopg2.connect(bench.admin) as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLE ledger IN ACCESS SHARE MODE")  # a reader lets it come as far as the swap
        until(lambda: remains(bench), "no rebuild is under way")
        going.kill()
    (run,) = bench.unfinished()
    done = bench.run("resume", run)
    assert done.exit == 0, done.said
    assert remains(bench) == []
    assert filenode(bench) != before
    assert set(bench.indexes("ledger")) == {"bloated"}
    bench.sound()


def filenode(bench: Bench) -> Any:
    return bench.sql("SELECT pg_relation_filenode('bloated')")[0][0]


def remains(bench: Bench) -> list[str]:
    return [str(name) for (name,) in bench.sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
                                               " AND indexrelid::regclass::text LIKE 'bloated%'")]  # fmt: skip


def test_the_evidence_tells_what_each_index_is_worth(bench: Bench) -> None:
    records = [json.loads(path.read_text()) for path in sorted(bench.state.glob("evidence/0*.json"))]
    worth = [row for record in records for row in record["body"].get("worth", [])]
    assert {"index", "size", "used by", "WAL", "HOT"} <= worth[0].keys()
