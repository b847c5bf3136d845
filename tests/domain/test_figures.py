"""A restored copy held against its source."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aiprod_ops.domain.figures import Figures, Rows, between, same_moment
from aiprod_ops.domain.findings import Finding, Status


def table(rows: int, digest: str | None = "") -> Rows:
    return Rows(rows, f"{rows}" if digest == "" else digest, None)


def seen(revision: str = "1", roles: tuple[str, ...] = ("app",), **tables: Rows) -> Figures:
    return Figures(tables, revision, ("plpgsql",), roles)


def bad(findings: Iterable[Finding]) -> dict[str, str]:
    return {each.metric: each.status.name for each in findings if each.status is not Status.OK}


BOTH = {"plans": table(3), "jobs": table(50_000)}
OURS = {"plans": table(3), "jobs": table(51_000)}
LATER = {"plans": table(3), "jobs": table(52_000)}

LACKS, FEWER = "tables that the backup lacks", "tables with far fewer rows"
CHANGED, EMPTIED = "tables that nobody wrote to and that differ", "tables without their rows"
BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
OLDER, YOUNGER = BEGUN - timedelta(hours=2), BEGUN + timedelta(hours=1)


@pytest.mark.parametrize(
    ("before", "ours", "after", "found"),
    [
        pytest.param(BOTH, OURS, LATER, {}, id="work went on"),
        pytest.param(BOTH, OURS, {**LATER, "jobs": table(400_000)}, {}, id="much work"),
        pytest.param({**BOTH, "jobs": table(10)}, {**OURS, "jobs": table(20)}, LATER, {}, id="it grew since"),
        pytest.param({**BOTH, "old": table(9)}, OURS, LATER, {}, id="a table was dropped before the backup"),
        pytest.param(BOTH, {**OURS, "old": table(9)}, LATER, {}, id="a table came and went"),
        pytest.param(BOTH, OURS, {**LATER, "new": table(9)}, {}, id="a table was made since"),
        pytest.param({**BOTH, "jobs": table(90_000)}, OURS, {**LATER, "jobs": table(10)}, {}, id="a purge"),
        pytest.param(BOTH, {"jobs": OURS["jobs"]}, LATER, {LACKS: "CRITICAL"}, id="a table is missing"),
        pytest.param(BOTH, {**OURS, "plans": table(0)}, LATER, {CHANGED: "CRITICAL"}, id="a small table is empty"),
        pytest.param(BOTH, {**OURS, "plans": table(3, "x")}, LATER, {CHANGED: "CRITICAL"}, id="another row in it"),
        pytest.param(BOTH, {**OURS, "jobs": table(0)}, LATER, {EMPTIED: "CRITICAL"}, id="a large table is empty"),
        pytest.param(BOTH, {**OURS, "jobs": table(20_000)}, LATER, {FEWER: "CRITICAL"}, id="it lost more than half"),
        pytest.param(
            {**BOTH, "queue": table(5)}, {**OURS, "queue": table(0)}, {**LATER, "queue": table(7)},
            {EMPTIED: "WARNING"}, id="a queue was empty for once, or the backup lacks it",
        ),
        pytest.param(
            {**BOTH, "queue": table(5)}, {**OURS, "queue": table(0)},
            {**LATER, "queue": replace(table(7), oldest=YOUNGER)},
            {EMPTIED: "WARNING"}, id="a queue was empty for once, as its rows tell",
        ),
        pytest.param(
            {**BOTH, "load": table(5000)}, {**OURS, "load": table(0)},
            {**LATER, "load": replace(table(6000), oldest=YOUNGER)},
            {EMPTIED: "WARNING"}, id="a large table was just being filled anew",
        ),
    ],
)  # fmt: skip
def test_between_two_moments(
    before: dict[str, Rows], ours: dict[str, Rows], after: dict[str, Rows], found: dict[str, str]
) -> None:
    assert bad(between(seen(**before), seen(**ours), seen(**after), BEGUN)) == found


@pytest.mark.parametrize(
    ("oldest", "begun", "status"),
    [(OLDER, BEGUN, "CRITICAL"), (YOUNGER, BEGUN, "WARNING"), (None, BEGUN, "WARNING"), (OLDER, None, "WARNING")],
)
def test_a_row_that_is_older_than_the_backup_is_in_it(
    oldest: datetime | None, begun: datetime | None, status: str
) -> None:
    """Nothing was read before the backup: what the source has now tells."""
    now = seen(**BOTH, orders=replace(table(3), oldest=oldest))
    found = list(between(None, seen(**OURS, orders=table(0)), now, begun))
    assert bad(found) == {EMPTIED: status}
    (note,) = [each.note for each in found if each.metric == EMPTIED]
    assert note == ("orders" if status == "CRITICAL" else "orders; perhaps written since the backup")


def test_a_warning_says_what_is_not_known() -> None:
    notes = {each.metric: each.note for each in between(None, seen(roles=(), **OURS), seen(**LATER))}
    assert notes["missing roles"] == "app; perhaps since the backup: no test before it has read the source"
    notes = {each.metric: each.note for each in between(seen(**BOTH), seen(roles=(), **OURS), None)}
    assert notes["missing roles"] == "app; perhaps dropped before the backup"


def test_figures_of_an_older_version_have_no_oldest_row() -> None:
    first, last = {"plans": table(3)}, {"plans": replace(table(3), oldest=OLDER)}
    assert bad(between(seen(**first), seen(plans=table(3, "x")), seen(**last))) == {CHANGED: "CRITICAL"}


def test_who_knows_one_side_alone_is_sure_of_nothing_but_an_empty_backup() -> None:
    for known in ((seen(**BOTH), None), (None, seen(**BOTH))):
        before, after = known
        assert bad(between(before, seen(**OURS), after)) == {}
        assert bad(between(before, seen(jobs=table(0)), after)) == {
            "a backup without rows": "CRITICAL", LACKS: "WARNING", EMPTIED: "WARNING",
        }  # fmt: skip
        assert bad(between(before, seen("2", (), **OURS), after)) == {
            "another schema revision": "WARNING", "missing roles": "WARNING",
        }  # fmt: skip


def test_what_came_since_the_backup_is_no_fault_and_what_was_there_before_it_is() -> None:
    one, two = seen(roles=("app",), **BOTH), seen(roles=("app", "report"), **LATER)
    assert bad(between(one, seen(roles=("app",), **OURS), two)) == {}
    assert bad(between(one, seen(roles=("report",), **OURS), two)) == {"missing roles": "CRITICAL"}


def test_a_migration_may_lie_on_either_side() -> None:
    one, two = seen("1", **BOTH), seen("3", **LATER)
    assert bad(between(one, seen("1", **OURS), two)) == bad(between(one, seen("3", **OURS), two)) == {}
    assert bad(between(one, seen("2", **OURS), two)) == {"another schema revision": "WARNING"}, "it may have passed by"
    assert bad(between(one, seen("2", **OURS), seen("1", **LATER))) == {"another schema revision": "CRITICAL"}


def test_at_the_same_moment_all_is_the_same() -> None:
    source = seen(**BOTH, empty=table(0), large=table(9, None))
    assert bad(same_moment(source, source)) == {}
    (told,) = [each.note for each in same_moment(source, source) if each.metric.startswith("tables that differ")]
    assert told == "50,012 rows of 4 tables; only counted: large"
    for other in (OURS, {"plans": table(3)}, {**BOTH, "more": table(0)}, {**BOTH, "plans": table(3, "x")}):
        found = bad(same_moment(seen(**BOTH), seen(**other)))
        assert found == {"tables that differ at the same moment": "CRITICAL"}
    assert set(bad(same_moment(seen("2", ("app", "x"), **BOTH), seen(**BOTH)))) == {
        "another schema revision", "missing roles",
    }  # fmt: skip


def test_a_row_of_a_time_that_has_not_come_yet_makes_nothing_young() -> None:
    tables = {"jobs": replace(table(3), newest=BEGUN), "plans": replace(table(3), newest=BEGUN + timedelta(days=9))}
    assert seen(**tables, other=table(3)).newest_at(BEGUN + timedelta(hours=1)) == (BEGUN, ["plans"])
    assert seen(plans=tables["plans"]).newest_at(BEGUN) == (None, ["plans"])


def test_of_a_table_that_cannot_be_read_whole_nothing_is_said() -> None:
    ours = seen(**BOTH)
    part = seen(**{**BOTH, "plans": table(1)})
    hidden, rewritten = replace(part, hidden=("plans",)), replace(part, rewritten=("plans",))
    assert bad(same_moment(hidden, ours)) == {"tables that may not be read whole": "WARNING"}
    assert bad(same_moment(rewritten, ours)) == {}
    assert bad(between(hidden, ours, part)) == {"tables that may not be read whole": "WARNING"}
    assert bad(between(part, ours, rewritten)) == {}
