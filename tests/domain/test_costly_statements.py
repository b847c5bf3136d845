"""What checks make of costly statements: pure, on given facts; and which columns each version of the view has."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiprod_ops.adapters.postgres.statements import columns
from aiprod_ops.domain.counters import NOT_SHOWN, Counters, Entry, StatementsSnapshot
from aiprod_ops.domain.findings import Finding, Status, worst
from aiprod_ops.domain.schema import Column, ColumnStatistics, Name, Schema, Table, TableSize
from aiprod_ops.domain.statements import Logged, Statement, Workload
from aiprod_ops.domain.windows import Window
from aiprod_ops.engine import registry
from aiprod_ops.ports import Sample
from aiprod_ops.units import Bytes, Milliseconds, Seconds

BOOK = registry.find()["slow-queries"]
SLOW = BOOK.module
DAWN = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)


def spent(calls: int, mean_ms: float, *, blocks: int = 0, temp: int = 0, wal: int = 0) -> Counters:
    return Counters(
        calls, Milliseconds(calls * mean_ms), blocks=blocks * calls, temp=Bytes(temp), wal=Bytes(wal), rows=calls
    )


def window(statements: dict[int, Counters], **changes: Any) -> Window:
    return replace(Window(DAWN, DAWN + HOUR, statements, frozenset(), frozenset(), 0, is_reset=False), **changes)


def facts(
    seen: Window, usual: Window | None = None, missing: tuple[str, ...] = (), examples: Sequence[Sample] = ()
) -> Any:
    entries = tuple(Entry(query_id, 1, None, True, each) for query_id, each in seen.statements.items())
    snapshot = StatementsSnapshot(DAWN + HOUR, DAWN, DAWN, 0, entries, missing=missing)
    texts = {query_id: f"SELECT {query_id}" for query_id in seen.statements}
    return SLOW.Facts(snapshot, seen, "since the check", usual, texts, {}, "", tuple(examples))


def judged(given: Any, **changes: Any) -> list[Finding]:
    params = replace(SLOW.Params(objective=Milliseconds(500), load=0.01), **changes)
    return list(BOOK.book.phases["judge"](given, params))


def by_id(found: list[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in found}


@pytest.mark.parametrize(
    ("counters", "status"),
    [
        (spent(10, 499.0), Status.OK),
        (spent(10, 500.0), Status.WARNING),
        (spent(10, 1999.0), Status.WARNING),
        (spent(10, 2000.0), Status.CRITICAL),
        (spent(35, 1000.0), Status.WARNING),
        (spent(36_000, 0.99), Status.OK),
        (spent(36_000, 1.0), Status.WARNING),  # 36 s an hour: 0.01 of a core
        (spent(144_000, 1.0), Status.CRITICAL),
    ],
)
def test_slow_in_one_call_or_in_the_sum_of_all(counters: Counters, status: Status) -> None:
    found = judged(facts(window({7: counters})))
    assert by_id(found)["statement:7"].status is status
    assert worst(finding.status for finding in found) is status


@pytest.mark.parametrize(
    ("counters", "breaks"),
    [
        (spent(1, 400.0), "–"),
        (spent(1, 500.0), "mean ≤ 500 ms"),
        (spent(36_000, 1.0), "load ≤ 0.01"),
        (spent(3600, 600.0), "mean ≤ 500 ms, load ≤ 0.01"),
    ],
)
def test_which_promise_a_statement_breaks(counters: Counters, breaks: str) -> None:
    assert by_id(judged(facts(window({7: counters}))))["statement:7"].columns["breaks"] == breaks


def test_utility_statements_are_listed_and_not_judged() -> None:
    found = by_id(judged(facts(window({7: spent(1, 60_000.0)}, utilities=frozenset({7})))))
    assert found["statement:7"].status is Status.OK
    cells = found["statement:7"].columns
    assert (cells["mean"], cells["breaks"]) == ("60.0 s", "–")


@pytest.mark.parametrize(("by", "first"), [("total", 1), ("mean", 2), ("calls", 3), ("temp", 4), ("wal", 5)])
def test_the_list_is_sorted_and_cut(by: str, first: int) -> None:
    statements = {
        1: spent(10, 100.0), 2: spent(1, 400.0), 3: spent(100, 0.5), 4: spent(1, 1.0, temp=10**6),
        5: spent(2, 1.0, wal=10**7), NOT_SHOWN: spent(10**6, 9.0, temp=10**9, wal=10**9),
    }  # fmt: skip
    found = judged(facts(window(statements)), by=by, top=1)
    assert [finding.id for finding in found if finding.columns] == [f"statement:{first}"]
    assert len(judged(facts(window(statements)), by=by, top=2)) == len(found) + 1


def test_what_is_over_the_objective_is_listed_however_far_down() -> None:
    statements = {n: spent(100, 10.0) for n in range(1, 20)} | {99: spent(1, 600.0)}
    found = judged(facts(window(statements)), top=2, by="calls")
    assert [finding.id for finding in found if finding.columns] == ["statement:1", "statement:2", "statement:99"]


def test_lower_bounds_are_shown_as_such() -> None:
    cells = by_id(judged(facts(window({7: spent(3, 2.0)}, lower=frozenset({7})))))["statement:7"].columns
    assert (cells["calls"], cells["total"]) == ("≥ 3", "≥ 6.00 ms")


@pytest.mark.parametrize(
    ("before", "now", "is_slower"),
    [
        (spent(100, 10.0), spent(100, 20.0), True),
        (spent(100, 10.0), spent(100, 19.9), False),
        (spent(100, 1.0), spent(100, 2.9), False),  # less than 2 ms
        (spent(19, 10.0), spent(100, 90.0), False),  # too few calls
        (spent(100, 10.0), spent(19, 90.0), False),
        (Counters(), spent(100, 90.0), False),  # new
        (spent(20, 0.0), spent(20, 5.0), True),
    ],
)
def test_slower_than_the_day_before(before: Counters, now: Counters, is_slower: bool) -> None:
    found = by_id(judged(facts(window({7: now}), window({7: before})), load=1.0))
    assert ("regression:7" in found) is is_slower
    if is_slower:
        assert found["regression:7"].status is Status.WARNING


def test_a_regression_shows_whether_the_plan_changed() -> None:
    given = facts(window({7: spent(100, 40.0, blocks=5000)}), window({7: spent(1000, 4.0, blocks=12)}))
    cells = by_id(judged(given))["regression:7"].columns
    assert (cells["blocks a call before"], cells["blocks a call"]) == ("12", "5,000")
    assert by_id(judged(given))["statement:7"].columns["vs before"] == "10.0 ×"


@pytest.mark.parametrize(
    ("changes", "finding", "says"),
    [
        ({"evicted": 12}, "evictions", "ALTER SYSTEM SET pg_stat_statements.max"),
        ({"evicted": None}, "evictions", "ALTER EXTENSION pg_stat_statements UPDATE"),
        ({"ends": DAWN + timedelta(seconds=9)}, "window", "aiprod-ops check slow-queries --over 60s"),
        ({"ends": DAWN}, "window", "0 s"),
    ],
)
def test_what_cannot_be_seen_is_unknown(changes: dict[str, Any], finding: str, says: str) -> None:
    found = judged(facts(window({7: spent(1, 1.0)}, **changes)), load=1.0)
    assert by_id(found)[finding].status is Status.UNKNOWN
    assert says in by_id(found)[finding].note
    assert worst(each.status for each in found) is Status.UNKNOWN


def test_a_look_as_short_as_it_was_asked_for_is_no_reason_to_doubt() -> None:
    short = window({7: spent(1, 1.0)}, ends=DAWN + timedelta(seconds=5))
    assert worst(each.status for each in judged(facts(short), load=1.0, over=5.0)) is Status.OK


def test_nothing_at_all_is_unknown() -> None:
    found = judged(replace(facts(window({})), seen=StatementsSnapshot(DAWN, DAWN, None, None, (), missing=("x",))))
    assert [(each.status, each.note) for each in found] == [(Status.UNKNOWN, "x")]


def test_values_are_shown_to_those_who_ask_and_kept_nowhere() -> None:
    secret = Sample(7, "SELECT $1", 8.0, ("'hunter2'",))
    given = facts(window({7: spent(1, 1.0)}), examples=[secret])
    assert by_id(judged(given, show_parameters=True))["example:7"].note == "SELECT $1; $1 = 'hunter2'"
    kept = BOOK.book.phases["keep"](given, SLOW.Params(objective=Milliseconds(1), load=1.0))
    assert "hunter2" not in repr(kept)
    assert "SELECT" not in repr(kept)


def test_the_log_adds_the_slow_end_and_the_plan() -> None:
    logged = {7: Logged(9, Milliseconds(88.0), "Seq Scan on t\n  Filter: (a = 'hunter2'::text)")}
    given = replace(facts(window({7: spent(9, 1.0), 8: spent(1, 1.0)})), logged=logged)
    found = by_id(judged(given))
    assert [found[f"statement:{n}"].columns["p95 logged"] for n in (7, 8)] == ["88.0 ms", "–"]
    assert "hunter2" not in repr(found)
    assert "hunter2" in by_id(judged(given, show_parameters=True))["plan:7"].note
    torn = judged(replace(given, unlogged="The log x cannot be read"))
    assert [each.note for each in torn if each.status is Status.UNKNOWN] == ["The log x cannot be read"]
    assert "p95 logged" not in by_id(judged(facts(window({7: spent(9, 1.0)}))))["statement:7"].columns


@pytest.mark.parametrize(
    ("text", "status", "advice"),
    [
        ("SELECT * FROM some_view WHERE a = $1", Status.UNKNOWN, "cannot be told"),
        ("SELECT FROM WHERE", Status.UNKNOWN, "cannot be told"),
        ("SELECT pg_sleep($1)", Status.OK, "no index helps: check slow-queries"),
        ("SELECT * FROM pg_stat_activity WHERE pid = $1", Status.OK, "no index helps: check slow-queries"),
        ("SELECT 1 FROM pg_catalog.pg_class", Status.OK, "no index helps: check slow-queries"),
    ],
)
def test_an_index_for_a_statement_that_cannot_be_read_is_not_ruled_out(text: str, status: Status, advice: str) -> None:
    entry = registry.find()["add-missing-index"]
    costly = Statement(7, text, 10, Milliseconds(10_000), Milliseconds(1000))
    given = entry.module.Facts(Schema(()), False, Workload((costly,), Seconds(3600), Milliseconds(10_000)), {})
    params = entry.module.Params(objective=Milliseconds(500), load=0.01, wasted=0.1)
    (found,) = [each for each in entry.book.phases["judge"](given, params) if each.id == "statement:7"]
    assert (found.status, found.columns["advice"]) == (status, advice)
    assert bool(found.note) is (status is Status.UNKNOWN)


@pytest.mark.parametrize(
    ("text", "window", "status"),
    [
        ("SELECT 1", 0.4, Status.UNKNOWN),
        ("SELECT 1", 30, Status.OK),
        ("SELECT * FROM t WHERE a = $1", 0.4, Status.CRITICAL),
    ],
)
def test_nothing_found_in_no_time_is_not_ok(text: str, window: float, status: Status) -> None:
    entry = registry.find()["add-missing-index"]
    table = Table(Name("public", "t"), (Column("a", "int4"),), ())
    costly = Statement(7, text, 10, Milliseconds(10_000), Milliseconds(1000))
    workload = Workload((costly,), Seconds(window), Milliseconds(10_000))
    sizes = {"public.t": TableSize(10**7, 10**5, Bytes(8 * 10**8), {"a": ColumnStatistics(0.0, 10.0**7)})}
    params = entry.module.Params(objective=Milliseconds(500), load=0.01, wasted=0.1)
    found = list(entry.book.phases["judge"](entry.module.Facts(Schema((table,)), False, workload, sizes), params))
    assert found[0].status is status
    assert ("check again in a minute" in found[0].note) is (status is Status.UNKNOWN)
    assert worst(each.status for each in found) is status


#: Columns of the view by version of the extension, and the server that ships it: those that figures are taken from.
VIEWS = {
    "1.7 (12)": ("total_time", "blk_read_time"),
    "1.8 (13)": ("total_plan_time", "total_exec_time", "wal_bytes", "blk_read_time"),
    "1.9 (14)": ("toplevel", "total_plan_time", "total_exec_time", "wal_bytes", "blk_read_time"),
    "1.10 (15, 16)": ("toplevel", "total_plan_time", "total_exec_time", "wal_bytes", "jit_functions"),
    "1.11 (17)": ("toplevel", "total_plan_time", "total_exec_time", "wal_bytes", "shared_blk_read_time", "stats_since"),
    "1.12 (18)": ("toplevel", "total_plan_time", "total_exec_time", "wal_bytes", "wal_buffers_full", "stats_since"),
}  # fmt: skip


@pytest.mark.parametrize("version", VIEWS)
def test_each_version_gives_what_it_has(version: str) -> None:
    chosen = columns(VIEWS[version])
    lacking = {figure for figure, name in chosen.items() if name.schema == "lacking"}
    assert chosen["total"] == Name("s", "total_time" if version.startswith("1.7") else "total_exec_time")
    assert lacking == {
        "1.7 (12)": {"planning", "wal", "toplevel", "since"},
        "1.8 (13)": {"toplevel", "since"},
        "1.9 (14)": {"since"},
        "1.10 (15, 16)": {"since"},
    }.get(version, set())
    assert {name.name for name in chosen.values() if name.schema == "lacking"} <= {"zero", "always", "never"}
