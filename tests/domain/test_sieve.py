"""Hypothetical indexes sift what is built on the copy; without HypoPG nothing is sifted."""

from typing import Any

import pytest

from aiprod_ops.actions.index_builds import Build
from aiprod_ops.actions.measurements import Subject
from aiprod_ops.actions.sieve import unwanted
from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.domain.statements import Statement
from aiprod_ops.domain.values.parameters import ValueSet
from aiprod_ops.errors import Failed
from aiprod_ops.units import Milliseconds

JOBS = Name("public", "jobs")
BUILDS = {
    name: Build(NewIndex(Name("public", name), JOBS, (Key(column),)), ((query_id, ""),))
    for name, column, query_id in (("good", "status", 1), ("bad", "preset", 1), ("unseen", "language", 2))
}
COUNT = Statement(1, "select count(*) from jobs where status = 'x'", 1, Milliseconds(1.0), Milliseconds(1.0))
SUBJECTS = [Subject(COUNT, COUNT.text, (), (ValueSet("rare", (), "no parameters"),), is_write=False)]


class Imagining:
    """A server with HypoPG whose every plan takes the index on status."""

    def __init__(self, *, is_there: bool = True, fails: bool = False) -> None:
        self.is_there, self.fails = is_there, fails
        self.imagined: list[str] = []
        self.forgot = False

    def query(self, sql: str, values: Any = None, **_: Any) -> list[dict[str, Any]]:
        if "pg_available_extensions" in sql:
            return [{}] if self.is_there else []
        if "hypopg_create_index" in sql:
            if self.fails:
                raise Failed("hypopg: access method is not supported")
            self.imagined.append(values["sql"])
            return [{"name": f"<{len(self.imagined)}>" + values["sql"].split("(")[1]}]
        if sql.startswith("explain"):
            name = next(f"<{n}>status)" for n, each in enumerate(self.imagined, 1) if "(status)" in each)
            return [{"QUERY PLAN": [{"Plan": {"Node Type": "Index Scan", "Index Name": name}}]}]
        self.forgot |= "hypopg_reset" in sql
        return []

    def execute(self, sql: str, **_: Any) -> None:
        assert sql == "create extension if not exists hypopg"


def test_what_no_plan_takes_is_unwanted() -> None:
    """`unseen` serves a statement that nobody measures: nothing is known of it."""
    server: Any = Imagining()
    assert unwanted(server, BUILDS, SUBJECTS) == {"bad"}
    assert server.forgot
    assert all("CONCURRENTLY" not in each for each in server.imagined)


@pytest.mark.parametrize("server", [Imagining(is_there=False), Imagining(fails=True)])
def test_without_hypopg_nothing_is_sifted(server: Any) -> None:
    assert unwanted(server, BUILDS, SUBJECTS) == set()
