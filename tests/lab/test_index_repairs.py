"""Rebuilding, removing and restoring indexes on a real server, interrupted where it hurts."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from command_line import lone_server, short_folder, until

from aiprod_ops.actions import index_repairs as repairs
from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.adapters.local.platform import LocalPlatform
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.catalogue.faults import Existing
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.history import History
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed, Unreachable
from aiprod_ops.lab import postgres

pytestmark = pytest.mark.lab

ORDERS = """
CREATE SCHEMA "Odd %(x)s {y}";
CREATE TABLE "Odd %(x)s {y}".orders (id int PRIMARY KEY, state text, note text, at timestamptz, "per cent %" int);
INSERT INTO "Odd %(x)s {y}".orders
  SELECT g, CASE g % 9 WHEN 0 THEN 'open' ELSE 'done' END, 'n' || g, now(), g FROM generate_series(1, 20000) g;
"""
SCHEMA = "Odd %(x)s {y}"
TABLE = f'"{SCHEMA}".orders'
DEFINITIONS = {
    "plain": f"CREATE INDEX plain ON {TABLE} (state)",
    "wide": f"CREATE UNIQUE INDEX wide ON {TABLE} (at DESC NULLS LAST, id) INCLUDE (note)",
    "part": f"CREATE INDEX part ON {TABLE} (lower(note) text_pattern_ops) WHERE state = 'open {{}} 100%'",
    "odd {0} %s": f'CREATE INDEX "odd {{0}} %s" ON {TABLE} ("per cent %") WITH (fillfactor=70)',
    "hashed": f"CREATE INDEX hashed ON {TABLE} USING hash (note)",
}


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with short_folder() as folder, lone_server(folder) as server:
        postgres.rows(server.dsn("postgres", "postgres"), "CREATE DATABASE odd", None)
        made = server.dsn("postgres", "odd")
        postgres.rows(made, ORDERS, None)
        yield made


@pytest.fixture
def context(dsn: str, tmp_path: Path) -> Iterator[Context]:
    with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops 2-test") as database:
        platform = LocalPlatform(
            lambda: dsn, tmp_path, lambda each: PostgresDatabase(each, writes=True, application_name="")
        )
        history = History(FolderStore(tmp_path), "here", timedelta(days=1))
        yield Context(
            database, Target("here", dsn), platform, SystemClock(), Promises({}, "test"), lambda _: None, history
        )
        for name in DEFINITIONS:
            database.execute("drop index if exists {name}", names={"name": Name(SCHEMA, name)})


def made(context: Context, name: str) -> Existing:
    """The index as it stands now."""
    if not rows(context, name):
        context.db.execute(DEFINITIONS[name].replace("{", "{{").replace("}", "}}"))
    (row,) = rows(context, name)
    return Existing(Name(SCHEMA, name), Name(SCHEMA, "orders"), row["definition"], row["filenode"])


def rows(context: Context, name: str) -> list[dict[str, Any]]:
    return context.db.query(repairs._FOUND, {"schema": SCHEMA, "name": name})


def invalid(context: Context) -> list[str]:
    found = context.db.query(repairs._INVALID, {"schema": SCHEMA, "table": "orders"})
    return [row["name"] for row in found]


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_what_was_removed_comes_back_by_its_definition(context: Context, name: str) -> None:
    index = made(context, name)
    repairs.remove_it(context, index)
    assert repairs.is_removed(context, index)
    repairs.restore(context, index)
    assert repairs.is_restored(context, index)
    (row,) = rows(context, name)
    assert row["definition"] == index.definition
    repairs.restore(context, index)  # a second time changes nothing
    assert rows(context, name) == [row]


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_a_rebuild_is_seen_by_its_new_file(context: Context, name: str) -> None:
    index = made(context, name)
    assert not repairs.is_rebuilt(context, index)
    repairs.rebuild(context, index)
    assert repairs.is_rebuilt(context, index)
    assert invalid(context) == []


def test_another_index_of_the_name_is_left_alone(context: Context) -> None:
    index = made(context, "plain")
    repairs.remove_it(context, index)
    context.db.execute("create index plain on {table} (note)", names={"table": index.table})
    for act in (repairs.remove_it, repairs.rebuild, repairs.restore):
        with pytest.raises(Failed, match="not the index that was planned for"):
            act(context, index)
    assert len(rows(context, "plain")) == 1


def test_a_failed_restore_leaves_nothing(context: Context) -> None:
    index = made(context, "plain")
    repairs.remove_it(context, index)
    wrong = Existing(index.name, index.table, index.definition.replace("CREATE", "CREATE UNIQUE"))
    with pytest.raises(Failed, match="could not create unique index"):
        repairs.restore(context, wrong)
    assert rows(context, "plain") == []


def test_a_rebuild_that_died_after_the_swap_is_only_cleared_away(context: Context, dsn: str) -> None:
    """A reader without a snapshot lets the rebuild come as far as the swap; then the server ends its session."""
    index = made(context, "plain")
    with reader(dsn), PostgresDatabase(dsn, writes=True, application_name="aiprod-ops 2-victim") as victim:
        failed: list[BaseException] = []
        thread = threading.Thread(target=_rebuild, args=(context, victim, index, failed))
        thread.start()
        until(lambda: phase(dsn).startswith("waiting for readers before marking dead"), "no rebuild waits")
        postgres.rows(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index", None)
        thread.join(30)
    assert isinstance(failed[0], Unreachable)
    assert invalid(context) == ["plain_ccold"]
    assert not repairs.is_rebuilt(context, index)
    (before,) = rows(context, "plain")
    repairs.rebuild(context, index)
    assert repairs.is_rebuilt(context, index)
    assert rows(context, "plain") == [before]
    assert invalid(context) == []


def test_a_rebuild_that_is_cancelled_leaves_no_half_of_itself(context: Context, dsn: str) -> None:
    index = made(context, "plain")
    with PostgresDatabase(dsn, writes=True, application_name="aiprod-ops 2-victim") as victim:
        failed: list[BaseException] = []
        thread = threading.Thread(target=_rebuild, args=(context, victim, index, failed))
        with writer(dsn):
            thread.start()
            until(lambda: phase(dsn).startswith("waiting for writers"), "no rebuild waits")
            victim.cancel()
            until(lambda: not phase(dsn), "the rebuild goes on")
        thread.join(60)
    assert isinstance(failed[0], Failed)
    assert invalid(context) == []
    assert not repairs.is_rebuilt(context, index)


def test_the_remains_of_other_indexes_are_not_ours(context: Context) -> None:
    """`plain_ccnew` that is valid is somebody's own index, whatever its name."""
    index = made(context, "plain")
    context.db.execute("create index plain_ccnew on {table} (at)", names={"table": index.table})
    repairs.rebuild(context, index)
    assert len(rows(context, "plain_ccnew")) == 1
    context.db.execute("drop index {name}", names={"name": Name(SCHEMA, "plain_ccnew")})


def _rebuild(context: Context, victim: PostgresDatabase, index: Existing, failed: list[BaseException]) -> None:
    try:
        repairs.rebuild(replace(context, db=victim), index)
    except (Failed, Unreachable) as error:
        failed.append(error)


def phase(dsn: str) -> str:
    found = postgres.rows(dsn, "SELECT phase FROM pg_stat_progress_create_index", None)
    return str(found[0][0]) if found else ""


class reader:  # noqa: N801
    """Somebody in a transaction who has read the table, and has no snapshot any more."""

    lock = "ACCESS SHARE"

    def __init__(self, dsn: str) -> None:
        self.session = psycopg2.connect(dsn)

    def __enter__(self) -> None:
        self.session.cursor().execute(f"LOCK TABLE {TABLE} IN {self.lock} MODE")

    def __exit__(self, *_: object) -> None:
        self.session.close()


class writer(reader):  # noqa: N801
    """Somebody who may have written to it."""

    lock = "ROW EXCLUSIVE"


def test_what_another_index_does_the_work_of_goes_only_while_that_is_there(context: Context) -> None:
    """Somebody drops the keeper between the plan and the apply, or makes another index of its name."""
    wide = made(context, "wide")
    narrow = replace(made(context, "plain"), keeper=wide.name, keeper_definition=wide.definition)
    repairs.remove_it(context, wide)
    with pytest.raises(Failed, match=r"wide, which does the work of .*plain, is not there any more"):
        repairs.remove_it(context, narrow)
    context.db.execute("create index wide on {table} (note)", names={"table": narrow.table})
    with pytest.raises(Failed, match=r"wide does not do the work of .*plain any more: CREATE INDEX wide"):
        repairs.remove_it(context, narrow)
    assert len(rows(context, "plain")) == 1
    context.db.execute("drop index {name}", names={"name": wide.name})
    repairs.restore(context, wide)
    repairs.remove_it(context, narrow)
    assert repairs.is_removed(context, narrow)
