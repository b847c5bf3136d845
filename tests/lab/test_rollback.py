"""A run that is taken back days later: others have changed the schema since, and its migration was delivered."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import BOOK, INDEX, Bench, Done, lab, snapshot, until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(20_000) as made:
        yield made


@pytest.fixture
def run(bench: Bench) -> Iterator[str]:
    """A verified run that built an index and delivered its migration."""
    before = {path.parent.name for path in bench.journals()}
    done = bench.apply(bench.proven())
    assert done.exit == 0, done.said
    (made,) = [
        path.parent.name
        for path in bench.journals()
        if path.parent.name not in before and "intended" in path.read_text()
    ]
    yield made
    bench.clean()
    for path in delivered(bench):
        path.unlink()


def delivered(bench: Bench) -> list[Path]:
    return sorted(bench.fleet.migrations.glob("*_add_*.py"))


def rolled_back(bench: Bench, run: str) -> Done:
    digest = bench.run("rollback", run).out.split("digest")[1].split()[0]
    return bench.run("rollback", run, "--apply", digest)


def test_others_have_changed_the_table_since(bench: Bench, run: str) -> None:
    bench.sql("ALTER TABLE jobs ADD COLUMN later int")
    done = rolled_back(bench, run)
    assert done.exit == 0, done.said
    assert INDEX not in bench.indexes()
    assert delivered(bench) == []
    assert "withdrawn" in done.out
    body = json.loads(max(bench.state.glob("evidence/0*.json")).read_text())["body"]
    assert (body["kind"], body["exit"], next(iter(body["withdrawn"].values()))[:7]) == ("rollback", 0, "removed")
    again = bench.run("rollback", run)
    assert (again.exit, "was rolled back already" in again.said) == (10, True)
    bench.sound()


def test_a_migration_that_others_follow_stays(bench: Bench, run: str) -> None:
    (path,) = delivered(bench)
    revision = path.name.partition("_")[0]
    after = path.with_name("900_after.py")
    after.write_text(f'revision = "900"\ndown_revision = "{revision}"\n')
    try:
        done = rolled_back(bench, run)
    finally:
        after.unlink()
    assert done.exit == 0, done.said
    assert "write a revision that takes it back" in done.out
    assert delivered(bench) == [path]


def test_a_migration_that_has_run_stays(bench: Bench, run: str) -> None:
    (path,) = delivered(bench)
    ((was,),) = bench.sql("SELECT version_num FROM alembic_version")
    bench.sql("UPDATE alembic_version SET version_num = %(to)s", {"to": path.name.partition("_")[0]})
    done = rolled_back(bench, run)
    bench.sql("UPDATE alembic_version SET version_num = %(to)s", {"to": was})
    assert done.exit == 0, done.said
    assert delivered(bench) == [path]


def test_no_folder_for_the_migration_is_told_before_anything_is_done(bench: Bench) -> None:
    digest = bench.proven()
    own = bench.config.with_name("nowhere.toml")
    own.write_text(bench.config.read_text().replace(str(bench.fleet.migrations), "/nowhere/at/all"))
    done = bench.run("run", BOOK, "--apply", digest, "--config", str(own))
    assert (done.exit, bench.indexes()) == (78, {}), done.said
    assert "/nowhere/at/all" in done.err
    bench.sound()


def test_a_folder_that_cannot_be_written_to_is_named_and_resume_goes_on(bench: Bench) -> None:
    """The file's place is taken by a folder: that stops root, too."""
    digest = bench.proven()
    taken = bench.fleet.migrations / f"{digest[:12]}_add_{INDEX}.py"
    taken.mkdir()
    done = bench.run("run", BOOK, "--apply", digest)
    assert (done.exit, taken.name in done.err) == (21, True), done.said
    assert "journal" not in done.err
    (run,) = bench.unfinished()
    taken.rmdir()
    done = bench.run("resume", run)
    assert done.exit == 0, done.said
    assert taken.is_file()
    bench.clean()
    taken.unlink()


def test_kill_9_while_an_index_is_dropped(bench: Bench, run: str) -> None:
    """A reader holds the drop up; what it leaves is INVALID until the rollback is gone on with."""
    digest = bench.run("rollback", run).out.split("digest")[1].split()[0]
    with snapshot(bench, "jobs"):
        going = bench.start("rollback", run, "--apply", digest)
        until(lambda: bench.indexes().get(INDEX) is False, "the drop does not wait")
        going.kill()
        until(lambda: not bench.doing("drop index"), "the server does not notice")
    (reverse,) = bench.unfinished()
    refused = bench.run("rollback", reverse)
    assert (refused.exit, f"resume {reverse}" in refused.err) == (10, True), refused.said
    done = bench.run("resume", reverse)
    assert done.exit == 0, done.said
    assert INDEX not in bench.indexes()
    assert delivered(bench) == []
    bench.sound()
