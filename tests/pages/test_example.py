"""The example of "write your own runbook", called as plain functions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from aiprod_ops.domain.findings import Status, worst
from aiprod_ops.pages.sources import Sources

THEN = datetime(2026, 11, 21, 3, tzinfo=UTC)


@pytest.fixture
def example(bare: Sources) -> ModuleType:
    entry = bare.runbooks["terminate-idle-sessions"]
    assert entry.book.phases.keys() == {"facts", "judge", "plan", "guard", "verify", "inject"}
    return entry.module


class Sessions:
    """A database with nothing but pg_stat_activity."""

    def __init__(self, *idle: float, hidden: int = 0, state: str = "idle in transaction") -> None:
        self.hidden, self.state = hidden, state
        zone = THEN.astimezone(tz=None)
        self.rows = [
            {"pid": pid, "backend_start": zone, "xact_start": zone + timedelta(seconds=pid), "user": "shop",
             "application": "psql", "idle": seconds}
            for pid, seconds in enumerate(idle, start=1)
        ]  # fmt: skip

    def query(self, sql: str, values: dict[str, Any] | None = None, **_: Any) -> list[dict[str, Any]]:
        if "count(*)" in sql:
            return [{"sessions": self.hidden}]
        if values is None:
            return self.rows
        keys = ("pid", "backend_start", "xact_start")
        return [
            {"state": self.state, "is_hidden": row.get("is_hidden", False)}
            for row in self.rows
            if all(row[key] == values[key] for key in keys) or row.get("is_hidden")
        ]


def context(sessions: Sessions) -> Any:
    return type("Context", (), {"db": sessions})()


def status(example: ModuleType, sessions: Sessions, **params: Any) -> Status:
    params = example.Params(**params)
    facts = example.facts(context(sessions), params)
    return worst(finding.status for finding in example.judge(facts, params))


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        (Sessions(), Status.OK),
        (Sessions(299.0), Status.OK),
        (Sessions(1.0, 300.0), Status.WARNING),
        (Sessions(1200.0), Status.CRITICAL),
        (Sessions(hidden=3), Status.UNKNOWN),
        (Sessions(1200.0, hidden=3), Status.CRITICAL),
    ],
)
def test_it_judges(example: ModuleType, sessions: Sessions, expected: Status) -> None:
    assert status(example, sessions) is expected


def test_it_plans_those_over_the_limit_and_spares_one(example: ModuleType) -> None:
    sessions = Sessions(10.0, 400.0, 500.0)
    sessions.rows[2]["application"] = "pg_dump"
    facts = example.facts(context(sessions), example.Params())
    actions = list(example.plan(facts, example.Params()))
    assert [(action.kind, action.subject.pid) for action in actions] == [("terminate-session", 2)]
    assert "rolled back" in actions[0].irreversible


def test_one_that_came_after_the_plan_is_left_alone(example: ModuleType) -> None:
    before = example.facts(context(Sessions(400.0)), example.Params())
    after = example.facts(context(Sessions(401.0, 0.1)), example.Params())
    again = replace(after, idle=before.idle)
    assert list(example.plan(again, example.Params(limit=0.0))) == list(example.plan(before, example.Params(limit=0.0)))


def test_a_process_id_that_was_given_away_is_another_session(example: ModuleType) -> None:
    sessions = Sessions(400.0)
    action = next(iter(example.plan(example.facts(context(sessions), example.Params()), example.Params())))
    assert not example.is_over(context(sessions), action.subject)
    sessions.rows[0]["xact_start"] = THEN + timedelta(hours=1)
    assert example.is_over(context(sessions), action.subject)
    sessions.rows[0]["is_hidden"] = True
    assert example.is_over(context(sessions), action.subject) is None


@pytest.mark.parametrize(
    ("state", "most", "expected"), [("idle in transaction", 20, 0), ("active", 20, 2), ("x", 0, 2)]
)
def test_its_guard(example: ModuleType, state: str, most: int, expected: int) -> None:
    sessions = Sessions(400.0, state=state)
    params = example.Params(most=most)
    actions = tuple(example.plan(example.facts(context(sessions), params), params))
    plan = type("Plan", (), {"actions": actions})()
    assert worst(finding.status for finding in example.guard(context(sessions), plan, params)) == expected
