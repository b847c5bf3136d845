"""Partial indexes: for which statements one is proposed, what it is called, and which existing one is enough."""

from dataclasses import replace

import pytest

from aiprod_ops.domain.advice.coverage import NewIndex, exists, has_predicate, name_for
from aiprod_ops.domain.advice.indexes import Candidate, advise
from aiprod_ops.domain.schema import Column, ColumnStatistics, Condition, Index, Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.sql.queries import read
from aiprod_ops.domain.statements import Statement
from aiprod_ops.units import Bytes, Milliseconds

ROWS = 1_000_000.0
EVENTS = Name("public", "events")
PRIMARY = Index(Name("public", "events_pkey"), EVENTS, (Key("id"),), "", is_unique=True, constraint="events_pkey")
TABLE = Table(
    EVENTS,
    (
        Column("id", "bigint", is_not_null=True),
        Column("user_id", "integer", is_not_null=True),
        Column("created_at", "timestamp with time zone", is_not_null=True),
        Column("sent_at", "timestamp with time zone"),
        Column("parent", "bigint"),
        Column("deleted_at", "timestamp with time zone"),
        Column("Is Sent", "boolean"),
        Column("error", "text", is_text=True),
    ),
    (PRIMARY,),
)
COLUMNS = {
    "id": ColumnStatistics(0, ROWS),
    "user_id": ColumnStatistics(0, 20_000, width_bytes=4),
    "created_at": ColumnStatistics(0, ROWS),
    "sent_at": ColumnStatistics(0.01, ROWS),
    "parent": ColumnStatistics(0.98, 5_000),
    "deleted_at": ColumnStatistics(0.95, 50_000),
    "Is Sent": ColumnStatistics(0.0, 2, (0.99, 0.01), 1, true=0.99),
    "error": ColumnStatistics(0.99, 300, width_bytes=400),
}
SIZES = {str(EVENTS): TableSize(ROWS, 20_000, Bytes(160_000_000), COLUMNS)}


def advice(*texts: str, table: Table = TABLE) -> tuple[Candidate, ...]:
    return advise([statement(n, text) for n, text in enumerate(texts, 1)], Schema((table,)), SIZES).candidates


def statement(number: int, text: str) -> Statement:
    return Statement(number, text, 10, Milliseconds(1000.0 * number), Milliseconds(100))


def proposed(*texts: str, table: Table = TABLE) -> set[str]:
    return {str(each.index).partition(" on public.events ")[2] for each in advice(*texts, table=table)}


@pytest.mark.parametrize(
    ("where", "conditions"),
    [
        ("a IS NULL AND b IS NOT NULL", [("a", "{} IS NULL"), ("b", "{} IS NOT NULL")]),
        ("a AND NOT b", [("a", "{}"), ("b", "NOT {}")]),
        ("a = true OR b", []),
        ("a IS NULL OR b IS NULL", []),
        ("lower(a) IS NULL", []),
        ("NOT (a IS NULL)", [("a", "{} IS NOT NULL")]),
        ("NOT (a IS NOT NULL)", [("a", "{} IS NULL")]),
        ("NOT (a IS NULL OR b)", []),
        ("a IS NOT NULL OR b", []),
        ("t.x = $1 AND a IS NULL", [("a", "{} IS NULL")]),
    ],
)
def test_conditions_that_hold_no_value(where: str, conditions: list[tuple[str, str]]) -> None:
    (access,) = read(f"SELECT * FROM t WHERE {where}").accesses
    assert [(each.column, each.form) for each in access.conditions] == conditions


@pytest.mark.parametrize(
    ("join", "is_wanted"),
    [
        ("a LEFT JOIN b ON b.a = a.id WHERE b.gone IS NULL", False),
        ("a LEFT JOIN b ON b.a = a.id WHERE NOT (b.gone IS NOT NULL)", False),
        ("b RIGHT JOIN a ON b.a = a.id WHERE b.gone IS NULL", False),
        ("a FULL JOIN b ON b.a = a.id WHERE b.gone IS NULL", False),
        ("a LEFT JOIN b USING (id) WHERE b.gone IS NULL", False),
        ("c LEFT JOIN (a JOIN b ON b.a = a.id) ON a.id = c.id WHERE b.gone IS NULL", False),
        ("a LEFT JOIN b ON b.a = a.id JOIN c ON c.id = a.id AND b.gone IS NULL", False),
        ("a LEFT JOIN (c LEFT JOIN b ON b.id = c.id) ON a.id = c.a AND b.gone IS NULL", False),
        ("a LEFT JOIN b ON b.a = a.id LEFT JOIN c ON c.id = a.id AND b.gone IS NULL", False),
        ("c LEFT JOIN (a LEFT JOIN b ON b.a = a.id JOIN d ON d.id = b.d) ON a.id = c.a WHERE b.gone IS NULL", False),
        ("a LEFT JOIN b ON b.a = a.id AND b.gone IS NULL", True),
        ("a LEFT JOIN (c JOIN b ON b.id = c.id AND b.gone IS NULL) ON a.id = c.a", True),
        ("a LEFT JOIN b ON b.a = a.id WHERE b.gone IS NULL AND b.kind = 3", True),
        ("a JOIN b ON b.a = a.id WHERE b.gone IS NULL", True),
        ("b LEFT JOIN a ON b.a = a.id WHERE b.gone IS NULL", True),
    ],
)
def test_what_an_outer_join_misses_is_not_null_in_the_table(join: str, is_wanted: bool) -> None:
    """Neither as a condition of a partial index nor as an equality; where no row of NULLs passes, it is both."""
    found = next(each for each in read(f"SELECT 1 FROM {join}").accesses if each.alias == "b")
    assert ([each.form for each in found.conditions] == ["{} IS NULL"]) is is_wanted
    assert (found.nulls == ("gone",)) is is_wanted


def test_what_an_outer_join_has_found_is_there() -> None:
    found = read("SELECT 1 FROM a LEFT JOIN b ON b.a = a.id WHERE b.gone IS NOT NULL").accesses[1]
    assert [each.form for each in found.conditions] == ["{} IS NOT NULL"]


def test_an_index_of_all_rows_finds_those_that_are_not_null() -> None:
    """PostgreSQL reads them as one range of it: no part is missing, whoever asks first."""
    text = "SELECT * FROM events WHERE error IS NOT NULL"
    assert proposed(text) == {"(id) WHERE error IS NOT NULL"}
    there = Index(Name("public", "i"), EVENTS, (Key("error"), Key("user_id")), "")
    assert proposed(text, table=replace(TABLE, indexes=(PRIMARY, there))) == set()
    behind = replace(there, keys=(Key("user_id"), Key("error")))
    assert proposed(text, table=replace(TABLE, indexes=(PRIMARY, behind))) != set()


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("SELECT * FROM events WHERE sent_at IS NULL ORDER BY created_at LIMIT $1",
         {"(created_at) WHERE sent_at IS NULL"}),
        ('SELECT * FROM events WHERE NOT "Is Sent" AND user_id = $1', {"(user_id) WHERE NOT Is Sent"}),
        ('SELECT * FROM events WHERE "Is Sent" AND user_id = $1', {"(user_id)"}),
        ("SELECT count(*) FROM events WHERE error IS NOT NULL", {"(id) WHERE error IS NOT NULL"}),
        ("SELECT * FROM events WHERE deleted_at < $1", {"(deleted_at) WHERE deleted_at IS NOT NULL"}),
        ("SELECT * FROM events WHERE parent = $1", {"(parent) WHERE parent IS NOT NULL"}),
        ("SELECT * FROM events WHERE parent = ANY ($1)", {"(parent)"}),
        ("SELECT * FROM events WHERE user_id = $1 AND deleted_at IS NULL", {"(user_id)"}),
        ("SELECT * FROM events e LEFT JOIN events p ON p.parent = e.id WHERE e.id = $1 AND p.sent_at IS NULL",
         {"(parent)"}),
    ],
)  # fmt: skip
def test_a_small_part_is_indexed_alone(text: str, candidates: set[str]) -> None:
    assert proposed(text) == candidates


def test_what_the_whole_needs_anyway_serves_the_part_too() -> None:
    part = "SELECT * FROM events WHERE user_id = $1 AND sent_at IS NULL"
    assert proposed(part) == {"(user_id) WHERE sent_at IS NULL"}
    assert proposed(part, "SELECT * FROM events WHERE user_id = $1") == {"(user_id, sent_at)"}


def test_one_index_of_a_part_serves_all_who_want_it() -> None:
    pick = "SELECT * FROM events WHERE sent_at IS NULL ORDER BY created_at LIMIT $1"
    since = "SELECT * FROM events WHERE sent_at IS NULL AND created_at < $1"
    (found,) = advice(pick, since)
    assert (str(found.index.where), found.serves) == (str(Condition("sent_at", "{} IS NULL")), (1, 2))
    assert found.size < 2_000_000, "a hundredth of the table"
    assert found.reason.startswith("sent_at IS NULL, then ORDER BY created_at: ")
    assert "all 1,000,000 rows" in found.reason


@pytest.mark.parametrize("predicate", ["(sent_at IS NULL)", "sent_at IS NULL"])
def test_an_existing_index_of_the_part_is_enough(predicate: str) -> None:
    there = Index(Name("public", "i"), EVENTS, (Key("created_at"),), "", predicate=predicate)
    table = replace(TABLE, indexes=(PRIMARY, there))
    pick = "SELECT * FROM events WHERE sent_at IS NULL ORDER BY created_at LIMIT $1"
    assert proposed(pick, table=table) == set()
    other = replace(there, predicate="(sent_at IS NOT NULL)")
    assert proposed(pick, table=replace(TABLE, indexes=(PRIMARY, other))) != set()


def test_a_large_part_that_is_indexed_needs_no_whole() -> None:
    there = Index(Name("public", "i"), EVENTS, (Key("user_id"),), "", predicate="(deleted_at IS NULL)")
    table = replace(TABLE, indexes=(PRIMARY, there))
    assert proposed("SELECT * FROM events WHERE user_id = $1 AND deleted_at IS NULL", table=table) == set()


def test_the_name_tells_the_part_and_what_is_there_is_known_by_it() -> None:
    where = Condition("Is Sent", "NOT {}")
    name = name_for(TABLE, (Key("user_id"),), (), where)
    assert name.name == "idx_events_user_id_where_not_is_sent"
    new = NewIndex(name, EVENTS, (Key("user_id"),), where)
    assert new.place == "events (user_id) WHERE NOT Is Sent"
    assert replace(new, table=Name("app", "events"), where=None).place == "app.events (user_id)"
    there = Index(name, EVENTS, new.keys, "", predicate='(NOT "Is Sent")')
    assert exists(new, replace(TABLE, indexes=(there,))) == there
    assert exists(replace(new, where=None), replace(TABLE, indexes=(there,))) is None


@pytest.mark.parametrize(
    ("predicate", "is_same"),
    [('(NOT "Is Sent")', True), ('"Is Sent"', False), ("", False), ("(sent IS NULL)", False)],
)
def test_predicates_as_the_server_prints_them(predicate: str, is_same: bool) -> None:
    assert has_predicate(predicate, Condition("Is Sent", "NOT {}")) is is_same
    assert has_predicate(predicate, None) is (predicate == "")


def test_a_condition_of_columns_nobody_counted_proposes_no_part() -> None:
    unknown = {**COLUMNS, "sent_at": replace(COLUMNS["sent_at"], null_fraction=0.01), "Is Sent": ColumnStatistics(0, 2)}
    size = {str(EVENTS): replace(SIZES[str(EVENTS)], statistics=unknown)}
    unsent = statement(1, 'SELECT * FROM events WHERE NOT "Is Sent" AND user_id = $1')
    (found,) = advise([unsent], Schema((TABLE,)), size).candidates
    assert found.index.where is None
