"""What is read from statements: tables, in the words of the statements themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.schema import Column, Name, Schema, Table
from aiprod_ops.domain.sql.queries import Access, Query, Unreadable, read
from aiprod_ops.domain.sql.trees import repaired

SCHEMA = Schema(
    (
        Table(Name("app", "users"), (Column("id", "bigint"), Column("email", "text"), Column("plan", "text"))),
        Table(Name("public", "jobs"), (Column("id", "bigint"), Column("user_id", "bigint"), Column("status", "text"))),
        Table(Name("public", "results"), (Column("job_id", "bigint"), Column("kind", "text"))),
    )
)


def only(text: str) -> Access:
    """The one access of a statement."""
    (access,) = read(text).accesses
    return access


def by_alias(text: str, schema: Schema | None = None) -> dict[str, Access]:
    return {access.alias: access for access in read(text, schema).accesses}


@pytest.mark.parametrize(
    ("where", "equal"),
    [
        ("a = $1", ("a",)),
        ("$1 = a", ("a",)),
        ("a = 5 AND b = 'x' AND (c = 1 AND d = 2)", ("a", "b", "c", "d")),
        ("a = $1::text", ("a",)),
        ("a::text = $1", ()),
        ("a + 1 = $1", ()),
        ("a = b", ()),
        ("a = now() - interval $1", ("a",)),
        ("a = random()", ()),
        ("a = (SELECT max(x) FROM other_t)", ("a",)),
        ("a IS NULL", ("a",)),
        ("a IS NOT NULL", ()),
        ("a AND NOT b AND c IS TRUE", ("a", "b", "c")),
        ("a <> $1", ()),
        ("a IN ($1)", ("a",)),
        ("a IN ($1 /*, ... */)", ("a",)),
        ("a NOT IN ($1, $2)", ()),
        ("a = ANY ($1)", ("a",)),
        ("a = ALL ($1)", ()),
        ("a = 1 OR a = 2 OR a IN (3, 4)", ("a",)),
        ("a = 1 OR b = 2", ()),
        ("a = 1 OR a > 2", ()),
        ("(a, b) = ($1, $2)", ("a", "b")),
        ("NOT (a = 1)", ()),
        ("lower(a) = $1", ("lower(a)",)),
        ("date_trunc('day', a) = $1", ()),
        ("t.a = $1", ("a",)),
        ("public.t.a = $1", ("a",)),
        ("elsewhere.a = $1", ()),
        ('"We""ird Name" = $1', ('We"ird Name',)),
        ('lower("We""ird") = $1', ('lower("We""ird")',)),
        ("tags @> ARRAY[$1] AND doc ->> $2 = $3", ()),
    ],
)
def test_equality(where: str, equal: tuple[str, ...]) -> None:
    access = next(each for each in read(f"SELECT * FROM t WHERE {where}").accesses if each.table == "t")
    assert access.equal == equal


@pytest.mark.parametrize(
    ("where", "ranges", "prefixes"),
    [
        ("a > $1 AND $2 >= b", ("a", "b"), ()),
        ("a BETWEEN 1 AND 2", ("a",), ()),
        ("a NOT BETWEEN 1 AND 2", (), ()),
        ("(a, b) < ($1, $2)", ("a",), ()),
        ("a LIKE 'abc%'", (), ("a",)),
        ("a LIKE $1", (), ("a",)),
        ("a LIKE $1 || '%'", (), ("a",)),
        ("a LIKE '%abc'", (), ()),
        ("a LIKE '%' || $1", (), ()),
        ("a ILIKE 'abc%'", (), ()),
        ("a NOT LIKE 'abc%'", (), ()),
        ("a LIKE ANY ($1)", (), ()),
    ],
)
def test_ranges_and_prefixes(where: str, ranges: tuple[str, ...], prefixes: tuple[str, ...]) -> None:
    access = only(f"SELECT * FROM t WHERE {where}")
    assert (access.ranges, access.prefixes) == (ranges, prefixes)


def test_lists_and_nulls_are_told_apart() -> None:
    access = only("SELECT 1 FROM t WHERE a = $1 AND b IN ($2 /*, ... */) AND c IS NULL AND d IN ($3)")
    assert (access.lists, access.nulls) == (("b",), ("c",))


@pytest.mark.parametrize(
    ("rest", "sort", "limit"),
    [
        ("ORDER BY a", (("a", False, False),), False),
        ("ORDER BY a DESC LIMIT $1", (("a", True, True),), True),
        ("ORDER BY a DESC NULLS LAST, b LIMIT 3", (("a", True, False), ("b", False, False)), True),
        ("ORDER BY a FETCH FIRST $1 ROWS ONLY", (("a", False, False),), True),
        ("ORDER BY a LIMIT ALL", (("a", False, False),), False),
        ("ORDER BY a + 1 LIMIT 1", (), False),
        ("LIMIT 1", (), True),
        ("GROUP BY a ORDER BY a LIMIT 1", (), False),
    ],
)
def test_order(rest: str, sort: tuple[tuple[str, bool, bool], ...], limit: bool) -> None:
    access = only(f"SELECT x FROM t {rest}")
    assert (access.sort, access.limit) == (sort, limit)


def test_output_names_and_numbers_stand_for_their_columns() -> None:
    assert only("SELECT a AS z FROM t ORDER BY z LIMIT 1").sort == (("a", False, False),)
    assert only("SELECT b, a FROM t ORDER BY 2 LIMIT 1").sort == (("a", False, False),)
    assert only("SELECT count(*) AS n FROM t ORDER BY n LIMIT 1").sort == ()


def test_the_largest_value_is_read_like_the_first_in_order() -> None:
    access = only("SELECT max(created_at) FROM t WHERE a = $1")
    assert (access.sort, access.limit) == ((("created_at", True, True),), True)
    assert only("SELECT max(a), min(a) FROM t").sort == ()


def test_joins_are_seen_from_both_sides() -> None:
    for source in ("jobs j JOIN results r ON r.job_id = j.id", "jobs j, results r WHERE r.job_id = j.id"):
        found = by_alias(f"SELECT * FROM {source}")
        assert found["j"].join == (("id", "r", "job_id"),)
        assert found["r"].join == (("job_id", "j", "id"),)
    found = by_alias("SELECT * FROM a JOIN b USING (k)")
    assert found["a"].join == (("k", "b", "k"),)


def test_an_outer_join_filters_only_what_may_be_missing() -> None:
    found = by_alias("SELECT * FROM a LEFT JOIN b ON b.a_id = a.id AND a.x = 1 AND b.y = 2 WHERE a.z = 3")
    assert (found["a"].equal, found["a"].join) == (("z",), ())
    assert (found["b"].equal, found["b"].join) == (("y",), (("a_id", "a", "id"),))


def test_one_table_under_two_aliases_is_two_accesses() -> None:
    found = by_alias("SELECT * FROM jobs a JOIN jobs b ON b.user_id = a.user_id WHERE a.id = $1 AND b.status = $2")
    assert (found["a"].equal, found["b"].equal) == (("id",), ("status",))


def test_subqueries_are_levels_of_their_own() -> None:
    found = by_alias(
        "SELECT 1 FROM jobs j WHERE EXISTS (SELECT 1 FROM results r WHERE r.job_id = j.id AND r.kind = $1)"
    )
    assert found["r"].equal == ("kind",)
    assert found["r"].join == (("job_id", "j", "id"),)
    assert found["j"].level != found["r"].level
    found = by_alias("SELECT 1 FROM jobs j WHERE j.id IN (SELECT r.job_id FROM results r WHERE r.kind = 'x')")
    assert found["j"].join == (("id", "r", "job_id"),)
    found = by_alias("SELECT 1 FROM a, LATERAL (SELECT 1 FROM b WHERE b.a_id = a.id ORDER BY b.t DESC LIMIT 1) x")
    assert found["b"].join == (("a_id", "a", "id"),)
    assert found["b"].limit


def test_a_cte_hides_a_table_of_its_name() -> None:
    found = by_alias("WITH jobs AS (SELECT * FROM old_jobs WHERE a = $1) SELECT * FROM jobs WHERE b = $2")
    assert list(found) == ["old_jobs"]
    found = by_alias("WITH RECURSIVE c AS (SELECT 1 FROM t UNION ALL SELECT 1 FROM t JOIN c ON t.up = c.id) TABLE c")
    assert found["t"].join == (("up", "c", "id"),)


def test_set_operations_read_each_branch() -> None:
    tables = [each.table for each in read("SELECT * FROM a UNION (SELECT * FROM b EXCEPT TABLE c) ORDER BY 1").accesses]
    assert tables == ["a", "b", "c"]


def test_writes() -> None:
    query = read("UPDATE jobs SET status = $1 WHERE id = (SELECT id FROM jobs j WHERE status = $2 ORDER BY t LIMIT 1)")
    assert query.writes
    assert [each.equal for each in query.accesses] == [("id",), ("status",)]
    assert [each.equal for each in read("DELETE FROM a USING b WHERE a.id = b.id AND b.x = 1").accesses] == [(), ("x",)]
    assert [each.table for each in read("INSERT INTO a SELECT * FROM b WHERE x = $1").accesses] == ["b"]
    assert read("INSERT INTO a VALUES ($1, $2)") == Query((), writes=True)
    assert read("WITH gone AS (DELETE FROM a WHERE x = 1 RETURNING *) SELECT * FROM gone").writes
    assert read("SELECT * FROM a FOR UPDATE SKIP LOCKED").writes
    assert not read("SELECT * FROM a").writes


@pytest.mark.parametrize(
    "text",
    [
        "SET work_mem = $1",
        "BEGIN",
        "SELECT 1",
        "VACUUM t",
        "SELECT * FROM pg_class WHERE relname = $1",
        "CREATE TABLE t ()",
    ],
)
def test_nothing_to_index(text: str) -> None:
    assert read(text) == Query()


def test_the_catalogue_is_left_out_by_its_schema() -> None:
    assert read("SELECT * FROM pg_catalog.pg_class c, information_schema.tables t WHERE c.oid = 1").accesses == ()


@pytest.mark.parametrize(
    "text",
    ["SELECT FROM WHERE", "nonsense", "SELECT 'open", "SELECT \x00", "SELECT " + "1 + (" * 500 + "1" + ")" * 500],
)
def test_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


def test_the_schema_resolves_unqualified_columns() -> None:
    text = "SELECT * FROM jobs JOIN results ON job_id = id WHERE kind = $1 AND status = $2"
    found = by_alias(text, SCHEMA)
    assert (found["jobs"].equal, found["results"].equal) == (("status",), ("kind",))
    assert found["jobs"].join == (("id", "results", "job_id"),)
    found = by_alias("SELECT 1 FROM jobs WHERE EXISTS (SELECT 1 FROM results WHERE job_id = id)", SCHEMA)
    assert found["results"].join == (("job_id", "jobs", "id"),)
    assert by_alias(text)["jobs"].equal == ()


def test_no_data_in_the_reason() -> None:
    with pytest.raises(Unreadable) as caught:
        read("SELECT * FROM users WHERE email = 'somebody@example.com")
    assert "somebody" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "repaired_text"),
    [
        ("SELECT now() - interval $1", "SELECT now() - CAST($1 AS interval)"),
        ("SELECT interval(3) $1, x", "SELECT CAST($1 AS interval(3)), x"),
        ("SELECT interval $1 day to second(3), x", "SELECT CAST($1 AS interval day to second(3)), x"),
        ("SELECT interval $1 days", "SELECT CAST($1 AS interval) days"),
        ("SELECT 'é', timestamp with time zone $1", "SELECT 'é', CAST($1 AS timestamp with time zone)"),
        ("SELECT $1::interval, CAST($2 AS date)", "SELECT $1::interval, CAST($2 AS date)"),
        ("SELECT extract($1 from a)", "SELECT pg_catalog.extract($1, a)"),
        ("prepare p(text, int) as select $1", "select $1"),
    ],
)
def test_repair(text: str, repaired_text: str) -> None:
    assert repaired(text) == repaired_text
    assert repaired(repaired_text) == repaired_text


def is_read_or_refused(text: str) -> bool:
    """Whether there is an answer, and not another error."""
    try:
        return isinstance(read(text), Query)
    except Unreadable as exc:
        return str(exc) != ""


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert is_read_or_refused(text)


WORDS = [
    "SELECT",
    "*",
    "FROM",
    "t",
    "a",
    ",",
    "WHERE",
    "x",
    "=",
    "$1",
    "AND",
    "(",
    ")",
    "LIMIT",
    "1",
    "IN",
    "JOIN",
    "b.y",
]


@given(st.lists(st.sampled_from(WORDS)))
def test_any_shuffle_of_words_is_read_or_refused(words: list[str]) -> None:
    assert is_read_or_refused(" ".join(words))
