"""Who left an index, from lines of the server's JSON log."""

import json

import pytest

from aiprod_ops.adapters.postgres.failed_builds import failed_builds
from aiprod_ops.adapters.postgres.log import LogFile
from aiprod_ops.domain.catalogue.indexes import FailedBuild


def log(*entries: dict[str, str] | str) -> LogFile:
    lines = [entry if isinstance(entry, str) else json.dumps({"dbname": "shop", "error_severity": "ERROR"} | entry)
             for entry in entries]  # fmt: skip
    text = "".join(f"{line}\n" for line in lines).encode()
    return LogFile("log", len(text), lambda offset, length: text[offset : offset + length])


@pytest.mark.parametrize(
    ("statement", "index", "table"),
    [
        ("CREATE INDEX CONCURRENTLY a ON shop.t (x)", "a", "t"),
        ('create unique index concurrently if not exists "A b" on t (x)', "A b", "t"),
        ("CREATE INDEX CONCURRENTLY ON t (x)", "", "t"),
        ("REINDEX INDEX CONCURRENTLY shop.a", "a", "a"),
        ("REINDEX (VERBOSE) TABLE CONCURRENTLY t", "t", "t"),
        ("DROP INDEX CONCURRENTLY shop.a", "a", ""),
    ],
)
def test_what_a_statement_should_have_built(statement: str, index: str, table: str) -> None:
    said = {"user": "ann", "application_name": "psql", "timestamp": "noon", "message": "deadlock detected"}
    found = failed_builds([log({"statement": statement} | said)], "shop")
    assert found == (FailedBuild(index, table, "ann", "psql", "noon", "deadlock detected"),)


@pytest.mark.parametrize(
    "entry",
    [
        {"statement": "CREATE INDEX a ON t (x)", "dbname": "other"},
        {"statement": "CREATE INDEX a ON t (x)", "error_severity": "LOG"},
        {"statement": "SELECT 'create index'"},
        {"statement": "CREATE INDEX a ON"},
        {"message": "the create index statement is gone"},
        '{"error_severity":"ERROR","statement":"CREATE INDEX a ON t (x)',
        "create index ERROR",
    ],
)
def test_look_alikes(entry: dict[str, str] | str) -> None:
    assert failed_builds([log(entry)], "shop") == ()


def test_the_newest_comes_first() -> None:
    first, second = ({"statement": "REINDEX INDEX CONCURRENTLY a", "timestamp": at} for at in ("noon", "night"))
    assert [build.at for build in failed_builds([log(first, second)], "shop")] == ["night", "noon"]
