"""Parameters: which column each belongs to, what the log gave for it, and which real values stand in."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.schema import Column, Name, Schema, Table
from aiprod_ops.domain.sql.trees import Unreadable, parse
from aiprod_ops.domain.values.parameters import (
    ColumnValues,
    Logged,
    Missing,
    Slot,
    ValueSet,
    literals,
    logged,
    normalise,
    quote,
    slots,
    types,
    value_sets,
)

JOBS, RESULTS = Name("public", "jobs"), Name("app", "results")
SCHEMA = Schema(
    (
        Table(RESULTS, (Column("job_id", "uuid"), Column("kind", "text"))),
        Table(
            JOBS,
            (
                Column("id", "uuid"),
                Column("status", "text"),
                Column("created_at", "timestamptz"),
                Column("user_id", "integer"),
                Column('We"ird', "integer"),
            ),
        ),
    )
)
#: What PostgreSQL 18.6 with pg_stat_statements made of these statements.
NORMALISED = [
    ("select * from jobs where created_at > now() - interval '1 day'",
     "select * from jobs where created_at > now() - interval $1"),
    ("select 1 from jobs where created_at > now() - interval '1' day limit all",
     "select $1 from jobs where created_at > now() - interval $2 day limit $3"),
    ("select * from jobs where a > timestamp with time zone '2020-01-01' and b > numeric '3' and c > -5 and d > - 6.5",
     "select * from jobs where a > timestamp with time zone $1 and b > numeric $2 and c > $3 and d > $4"),
    ("select * from jobs where s in ('a','b','c') and id = any(array[1,2,3]) and id = any('{1,2}')",
     "select * from jobs where s in ($1 /*, ... */) and id = any(array[$2 /*, ... */]) and id = any($3)"),
    ("select * from jobs where status in ('a') limit 10 offset 5",
     "select * from jobs where status in ($1) limit $2 offset $3"),
    ("select * from jobs where d in (date '2020-01-01', date '2020-01-02') and e in ('x'::text)",
     "select * from jobs where d in ($1 /*, ... */) and e in ($2::text)"),
    ("select * from jobs where email like 'abc%' and e = E'a\\'b' and f = $$q$$ -- why",
     "select * from jobs where email like $1 and e = $2 and f = $3 -- why"),
    ("select extract(year from c), 'é' as y, count(*) filter (where s='x') from jobs group by 1, c order by 1",
     "select extract($1 from c), $2 as y, count(*) filter (where s=$3) from jobs group by 1, c order by 1"),
    ("update jobs set status='a', amount = amount + 1 where id = 5 returning *",
     "update jobs set status=$1, amount = amount + $2 where id = $3 returning *"),
    ("select * from jobs where (u, id) in ((1,2),(3,4)) and (c,id) < ('2020-01-01', 5) fetch first 5 rows only",
     "select * from jobs where (u, id) in (($1,$2),($3,$4)) and (c,id) < ($5, $6) fetch first $7 rows only"),
    ("select null, true, B'1', X'1F', 1e5 from jobs where u = 0x1F",
     "select $1, $2, $3, $4, $5 from jobs where u = $6"),
    ("select * from jobs where a = $1 and b = 'x'", "select * from jobs where a = $1 and b = $2"),
    ("with x as (select * from j where s='a' limit 3) select * from x union all select * from jobs where u = 5",
     "with x as (select * from j where s=$1 limit $2) select * from x union all select * from jobs where u = $3"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "text"), NORMALISED)
def test_normalised_as_the_server_does(sample: str, text: str) -> None:
    assert normalise(sample)[0] == text


def test_literals_in_order() -> None:
    assert normalise(NORMALISED[3][0])[1] == ("'a'", "1", "'{1,2}'")
    assert normalise(NORMALISED[5][0])[1] == ("CAST('2020-01-01' AS date)", "'x'")
    assert normalise(NORMALISED[10][0])[1] == ("NULL", "true", "b'1'", "x'1F'", "1e5", "31")
    assert normalise(NORMALISED[11][0])[1] == ("'x'",)
    assert normalise("select 1 from t where a in (1, 2)", squash=False)[0] == "select $1 from t where a in ($2, $3)"


def test_literals_through_what_may_differ() -> None:
    text = "select * from jobs where status = $1 and n in ($2 /*, ... */) and m > $3 limit $4"
    sample = "SELECT *  FROM public.jobs WHERE (status = 'a''b') AND n IN (-7, 8, 9) AND m > -1.5 LIMIT 10"
    assert literals(text, sample) == {1: "'a''b'", 2: "-7", 3: "-1.5", 4: "10"}
    assert literals("select - $1 from t", "select -5 from t") == {1: "5"}
    assert literals("select * from t where a = $1", "select * from t where a = $1") == {}


@pytest.mark.parametrize(
    "sample",
    [
        "select * from jobs where status = 'a' and user_id = 1",
        "select * from jobs where state = 'a'",
        "select * from jobs where status > 'a'",
        "select * from jobs where status = lower('a')",
        "select * from jobs where status in ('a', 'b')",
        "select * from jobs where status = $2",
        "update jobs set status = 'a'",
        "nonsense",
    ],
)
def test_another_statement_has_no_literals(sample: str) -> None:
    assert literals("select * from jobs where status = $1", sample) is None


def test_unreadable_samples_are_refused() -> None:
    with pytest.raises(Unreadable):
        normalise("select from where")


@given(
    st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), st.integers(-(2**40), 2**40)
)
def test_every_literal_comes_back(value: str, number: int) -> None:
    sample = f"SELECT * FROM jobs WHERE a = {quote(value)} AND b > {number}"
    text, found = normalise(sample)
    assert text == "SELECT * FROM jobs WHERE a = $1 AND b > $2"
    assert found == (quote(value), str(number))
    (statement,) = parse(f"SELECT {quote(value)}")
    assert (statement.targetList[0].val.val.sval or "") == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM jobs WHERE status = $1 ORDER BY created_at LIMIT $2 OFFSET $3",
         ["status =", "limit", "offset"]),
        ("SELECT * FROM jobs WHERE $1 < created_at AND created_at <= $2::timestamptz",
         ["created_at >", "created_at <"]),
        ("SELECT * FROM jobs WHERE created_at BETWEEN $1 AND $2", ["created_at >", "created_at <"]),
        ("SELECT * FROM jobs WHERE created_at > now() - interval $1", ["other"]),
        ("SELECT * FROM jobs WHERE status IN ($1 /*, ... */) AND user_id = ANY ($2)", ["status in", "user_id any"]),
        ("SELECT * FROM jobs WHERE user_id = ANY (ARRAY[$1 /*, ... */])", ["user_id in"]),
        ("SELECT * FROM jobs WHERE status LIKE $1 AND status <> $2", ["status like", "status <>"]),
        ("SELECT count(*) FILTER (WHERE status = $1) FROM jobs", ["status ="]),
        ("SELECT * FROM jobs WHERE (created_at, id) < ($1, $2)", ["created_at <", "id <"]),
        ("SELECT * FROM jobs WHERE (status IS NULL) = $1 AND (NOT (status = $2)) = $3", ["other", "status =", "other"]),
        ("SELECT * FROM jobs WHERE length(status) > $1 AND nullif(status, $2) = $3", ["other", "other", "status ="]),
        ("SELECT * FROM jobs WHERE lower(status) = $1 AND status || $2 = $3", ["status =", "other", "status ="]),
        ("UPDATE jobs SET status = $1 WHERE id = $2", ["status set", "id ="]),
        ("INSERT INTO jobs VALUES ($1, $2)", ["id set", "status set"]),
        ("SELECT * FROM jobs UNION SELECT * FROM jobs WHERE status = $1 LIMIT $2", ["status =", "limit"]),
        ('SELECT * FROM jobs WHERE "We""ird" = $1', ['We"ird =']),
        ("SELECT * FROM nowhere WHERE a = $1", ["other"]),
        ("SELECT 1", []),
    ],
)  # fmt: skip
def test_slots(text: str, expected: list[str]) -> None:
    found = slots(text, SCHEMA)
    assert [f"{slot.column} {slot.operator}".strip() for slot in found] == expected
    assert [slot.number for slot in found] == list(range(1, len(expected) + 1))


def test_slots_know_their_table_in_joins() -> None:
    text = "SELECT 1 FROM jobs j JOIN app.results r ON r.job_id = j.id WHERE r.kind = $1 AND status = $2"
    assert slots(text, SCHEMA) == (Slot(1, RESULTS, "kind", "=", "text"), Slot(2, JOBS, "status", "=", "text"))
    text = "SELECT 1 FROM jobs a, jobs b WHERE a.user_id = $1 AND b.status = $2"
    assert [slot.column for slot in slots(text, SCHEMA)] == ["user_id", "status"]


STATUS = ColumnValues((("completed", 0.93), ("failed", 0.03), ("it's", 0.01)), type="text")
DATES = ColumnValues((), tuple(f"2026-01-{day:02}" for day in range(1, 32)), "timestamptz")
USERS = ColumnValues((("7", 0.05), ("8", 0.02)), ("1", "50", "100"), "integer")
STATISTICS: Mapping[tuple[Name, str], ColumnValues] = {
    (JOBS, "status"): STATUS, (JOBS, "created_at"): DATES, (JOBS, "user_id"): USERS,
}  # fmt: skip


def sets(text: str, *samples: Logged, statistics: Mapping[tuple[Name, str], ColumnValues] = STATISTICS) -> object:
    found = value_sets(slots(text, SCHEMA), statistics, samples)
    return found.reason if isinstance(found, Missing) else [(each.kind, *each.values) for each in found]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("status = $1", [("rare", "'it''s'"), ("median", "'failed'"), ("common", "'completed'")]),
        ("user_id = $1", [("rare", "'50'"), ("median", "'8'"), ("common", "'7'")]),
        ("created_at = $1", [("rare", "'2026-01-03'"), ("median", "'2026-01-16'"), ("common", "'2026-01-29'")]),
        ("created_at > $1", [("rare", "'2026-01-29'"), ("median", "'2026-01-16'"), ("common", "'2026-01-03'")]),
        ("created_at < $1", [("rare", "'2026-01-03'"), ("median", "'2026-01-16'"), ("common", "'2026-01-29'")]),
        ("created_at BETWEEN $1 AND $2", [
            ("rare", "'2026-01-16'", "'2026-01-17'"), ("median", "'2026-01-09'", "'2026-01-23'"),
            ("common", "'2026-01-03'", "'2026-01-29'"),
        ]),
        ("status LIKE $1", [("rare", "'it''s%'"), ("median", "'fai%'"), ("common", "'com%'")]),
        ("status = ANY ($1)",
         [("rare", "'{\"it''s\"}'"), ("median", "'{\"failed\"}'"), ("common", "'{\"completed\"}'")]),
        ("true", [("rare",)]),
    ],
)  # fmt: skip
def test_values_from_statistics(where: str, expected: list[tuple[str, ...]]) -> None:
    assert sets(f"SELECT * FROM jobs WHERE {where}") == expected


def test_a_set_value_does_not_change_with_the_class() -> None:
    found = sets("UPDATE jobs SET status = $1 WHERE user_id = $2")
    assert found == [
        ("rare", "'completed'", "'50'"),
        ("median", "'completed'", "'8'"),
        ("common", "'completed'", "'7'"),
    ]


def test_limit_comes_from_the_log_or_not_at_all() -> None:
    text = "SELECT * FROM jobs WHERE status = $1 LIMIT $2"
    assert "$2 (LIMIT)" in str(sets(text))
    samples = [Logged({1: "'x'", 2: str(number)}, float(number)) for number in (30, 10, 20)]
    assert sets(text, *samples) == [
        ("rare", "'it''s'", "20"),
        ("median", "'failed'", "20"),
        ("common", "'completed'", "20"),
    ]
    assert value_sets(slots(text, SCHEMA), STATISTICS, samples)[0] == ValueSet(  # type: ignore[index]
        "rare", ("'it''s'", "20"), "statistics and log"
    )


def test_without_statistics_the_log_stands_in() -> None:
    text = "SELECT * FROM jobs WHERE status = $1 LIMIT $2"
    assert "$1 (public.jobs.status)" in str(sets(text, statistics={}))
    samples = [Logged({1: f"'{number}'", 2: "5"}, float(number)) for number in (3, 1, 2)]
    assert sets(text, *samples, statistics={}) == [("rare", "'1'", "5"), ("median", "'2'", "5"), ("common", "'3'", "5")]
    assert sets(text, samples[0], statistics={}) == [("rare", "'3'", "5")]


def test_how_wide_a_range_is_comes_from_the_log() -> None:
    text = "SELECT * FROM jobs WHERE status = $1 AND created_at >= $2 AND created_at < $3"
    samples = [Logged({1: "'x'", 2: f"'{day}'", 3: f"'{day + 1}'"}, float(day)) for day in (1, 2)]
    assert sets(text, *samples) == [
        ("rare", "'it''s'", "'1'", "'2'"),
        ("median", "'failed'", "'1'", "'2'"),
        ("common", "'completed'", "'2'", "'3'"),
    ]


def test_values_of_several_columns_come_from_whole_calls() -> None:
    """Drawn one by one, the rarest status would meet days on which it never was."""
    text = "SELECT * FROM jobs WHERE status = $1 AND created_at > $2"
    samples = [Logged({1: f"'s{day}'", 2: f"'{day}'"}, float(day)) for day in (3, 1, 2)]
    assert sets(text, *samples) == [("rare", "'s1'", "'1'"), ("median", "'s2'", "'2'"), ("common", "'s3'", "'3'")]
    assert sets(text, *samples[:2])[0][1:] == sets(text)[0][1:]


def test_what_is_compared_with_nothing_needs_the_log() -> None:
    assert "$1 (compared with no column)" in str(sets("SELECT * FROM jobs WHERE created_at > now() - interval $1"))


def test_wildcards_of_real_values_are_escaped() -> None:
    values = {(JOBS, "status"): ColumnValues((("a_%", 1.0),))}
    assert sets("SELECT * FROM jobs WHERE status LIKE $1", statistics=values) == [("rare", r"E'a\\_\\%%'")]


def test_numbers_without_a_histogram_are_ordered_as_numbers() -> None:
    values = {(JOBS, "user_id"): ColumnValues((("9", 0.5), ("10", 0.3), ("100", 0.2)))}
    found = sets("SELECT * FROM jobs WHERE user_id > $1", statistics=values)
    assert found == [("rare", "'100'"), ("median", "'10'"), ("common", "'9'")]


def test_logged_calls() -> None:
    text = "SELECT * FROM jobs WHERE status = $1 LIMIT $2"
    assert logged(text, "SELECT * FROM jobs WHERE status = 'a' LIMIT 5", 3.0) == Logged({1: "'a'", 2: "5"}, 3.0)
    assert logged(text, text, 3.0, ("'a'", "'5'")) == Logged({1: "'a'", 2: "'5'"}, 3.0)
    assert logged(text, "SELECT * FROM jobs WHERE status = $1 LIMIT 5", 3.0, ("'a'",)) == Logged(
        {1: "'a'", 2: "5"}, 3.0
    )
    assert logged(text, text, 3.0) is None
    assert logged(text, "SELECT 1", 3.0) is None


def test_types_that_the_server_cannot_infer() -> None:
    where = "user_id = ANY (ARRAY[$1 /*, ... */]) AND created_at > current_date - $2 AND id = $3"
    text = f"SELECT 1 FROM jobs WHERE {where} LIMIT $4"
    assert types(slots(text, SCHEMA), ("'7'", "5", "'x'", "10")) == ("integer", "integer", "unknown", "unknown")
    other = slots("SELECT $1, $2, $3, $4", SCHEMA)
    assert types(other, ("true", "1.5", "-3000000000", "'x'")) == ("boolean", "numeric", "bigint", "unknown")


@given(
    st.lists(
        st.sampled_from(sorted(["status = ", "user_id > ", "created_at < ", "status LIKE ", "user_id <> "])), max_size=5
    )
)
def test_values_fit_their_slots(conditions: list[str]) -> None:
    where = " AND ".join(f"{condition}${number}" for number, condition in enumerate(conditions, 1))
    wanted = slots(f"SELECT * FROM jobs {'WHERE ' if where else ''}{where}", SCHEMA)
    found = value_sets(wanted, STATISTICS, ())
    assert isinstance(found, tuple)
    assert 1 <= len({each.values for each in found}) == len(found) <= 3
    assert all(len(each.values) == len(wanted) == len(conditions) for each in found)
