"""Each format tells the same; no cut, no order and no damage changes what the others say."""

import csv
import doctest
import io
import json
import random
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_lines import (
    FORMATS,
    FULL,
    PREFIXES,
    Logged,
    cloud_entries,
    csvlog,
    json_line,
    jsonlog,
    stderr,
    stderr_lines,
)

from aiprod_ops.logs import digests, formats, parameters, plans, prefixes, shapes, stamps
from aiprod_ops.logs import jsonlog as jsonlog_reader
from aiprod_ops.logs import lines as whole_lines
from aiprod_ops.logs.digester import Digester, Wanted
from aiprod_ops.logs.digests import Digest
from aiprod_ops.logs.formats import LogReader

NASTY = 'duration: 9.000 ms  statement: "query_id":-99,"message":"duration: 7.000 ms  statement: x" \\" \\\\'
UPDATE = "UPDATE t SET a = $1 WHERE b = $2"
CALLS = [
    Logged("SELECT * FROM jobs WHERE id = 5", 512.345, 1, query_id=-5),
    Logged("SELECT * FROM jobs WHERE id = 6", 0.0, 2, query_id=-5, application="psql"),
    Logged("SELECT *\n\tFROM t\n\nWHERE a = 'it''s, 7' AND b = '\"x\"'", 20.001, 3, pid=78, query_id=7),
    Logged(UPDATE, 3.5, 64, 79, query_id=8, name="S_1", detail="Parameters: $1 = 'x', $2 = NULL"),
    Logged(UPDATE, 4.5, 65, 79, query_id=8, name="", detail="Parameters: $1 = 'y\nz', $2 = '1'"),
    Logged(f"SELECT '{NASTY}'", 5.0, 66, query_id=9, application="naïve, app=x"),
    Logged("SELECT 1", 6.0, 67, database="other", query_id=10),
    Logged("COMMIT", 0.5, 68, query_id=11),
]  # fmt: skip


def digest(data: bytes, block: int = 1 << 20, **options: str) -> Digest:
    return digester(data, block, **options).digest()


def digester(data: bytes, block: int = 1 << 20, database: str = "", **options: str) -> Digester:
    made = Digester(Wanted(database))
    reader = LogReader(made.reading, **options)
    for start in range(0, len(data), block):
        made.add(reader.read(data[start : start + block]))
    made.add(reader.end())
    return made


def told(found: Digest) -> Digest:
    """The digest without what depends on the bytes of the format."""
    return replace(found, size=0, unread=0)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_the_same(name: str) -> None:
    found, expected = digest(FORMATS[name](CALLS)), digest(jsonlog(CALLS))
    assert told(found) == told(expected)
    assert (found.calls, found.total, found.unread) == (8, pytest.approx(551.846), 0)


def test_what_a_digest_says() -> None:
    found = digest(jsonlog(CALLS))
    slowest = found.rows[0]
    assert (slowest.query_id, slowest.calls, slowest.max, slowest.text) == (
        -5, 2, 512.345, "SELECT * FROM jobs WHERE id = $1",
    )  # fmt: skip
    assert str(slowest.first) == "2026-11-22 10:00:01.001000+00:00"
    assert slowest.p99 == pytest.approx(512.345, rel=0.011)
    update = next(row for row in found.rows if row.query_id == 8)
    assert (update.calls, update.prepared) == (2, 1)
    assert [(example.kind, example.parameters) for example in update.examples] == [
        ("fast", ("'x'", "NULL")),
        ("fast", ("'y\nz'", "'1'")),
    ]
    assert {one.name: (one.calls, one.prepared) for one in found.applications} == {
        "api": (6, 1), "psql": (1, 0), "naïve, app=x": (1, 0),
    }  # fmt: skip
    assert found.window == pytest.approx(67.067)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("is_told", [True, False])
def test_prefixes_of_the_plain_log(prefix: str, is_told: bool) -> None:
    calls = [replace(call, query_id=0) for call in CALLS if "app=" not in call.application]
    found = digest(stderr(calls, prefix), prefix=prefix if is_told else "")
    assert (found.calls, found.unread) == (7, 0)
    assert sum(row.calls for row in found.rows if "jobs" in row.text) == 2
    assert {row.database for row in found.rows} == ({"shop", "other"} if "%d" in prefix else {""})
    assert {"api", "psql"} <= {one.name for one in found.applications} or "%a" not in prefix


@pytest.mark.parametrize(
    ("begun", "prefix"),
    [
        ("{t} UTC [77]: [5-1] user=a,db=shop,app=psql - my app,client=10.0.0.1 ",
         "%t [%p]: [%l-%x] user=%u,db=%d,app=%a,client=%h "),
        ("{t}.123 +02 [77]: [5-1] db=shop,user=api ", "%m [%p]: [%l-%x] db=%d,user=%u "),
        ("{t} UTC:10.0.0.1(3344):app@shop:[77]:", "%t:%r:%u@%d:[%p]:"),
        ("{t}.123 UTC [77] app@shop ", "%m [%p] %u@%d "),
        ("{t}.123 UTC [77] app@shop/psql ", "%m [%p] %u@%d/%a "),
        ("{t} UTC [77-1] app@shop ", "%t [%p-%x] %u@%d "),
        ("{t}.123 CET [77] 6920f3a1.4d db=shop ", "%m [%p] %c db=%d "),
    ],
)  # fmt: skip
def test_prefixes_are_told_from_their_look(begun: str, prefix: str) -> None:
    lines = [
        f"{begun.format(t='2026-11-22 10:00:00')}LOG:  duration: 1.000 ms  statement: SELECT {n}" for n in range(9)
    ]
    assert prefixes.detect(lines) == prefix
    found = digest("\n".join(lines).encode())
    assert [(row.calls, row.database) for row in found.rows] == [(9, "shop")]


@pytest.mark.parametrize("module", [digests, formats, jsonlog_reader, parameters, plans, prefixes, shapes, stamps])
def test_examples_in_docstrings(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(block=st.integers(1, 700))
def test_any_cut_into_blocks_gives_the_same(name: str, block: int) -> None:
    data = FORMATS[name](CALLS)
    assert digest(data, block) == digest(data)


@settings(max_examples=25, deadline=None)
@given(shuffle=st.randoms(use_true_random=False))
def test_entries_in_any_order_give_the_same(shuffle: random.Random) -> None:
    shuffled = [*CALLS]
    shuffle.shuffle(shuffled)
    for write in (jsonlog, csvlog, FORMATS["cloud fields"]):
        assert told(digest(write(shuffled))) == told(digest(write(CALLS)))


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_log_that_another_program_wrote_again(quoting: int, end: str) -> None:
    """The server quotes every text, a program's own writer what needs it: not a call less, whoever wrote it."""
    out = io.StringIO()
    rows = csv.reader(io.StringIO(csvlog(CALLS).decode(), newline=""))
    csv.writer(out, quoting=quoting, lineterminator=end).writerows(rows)  # type: ignore[arg-type]
    found = digest(out.getvalue().encode())
    assert told(found) == told(digest(csvlog(CALLS)))
    assert found.notes == ()


@settings(max_examples=25, deadline=None)
@given(order=st.permutations([0, 0, 0, 1, 1, 1, 2, 2, 2]))
def test_sessions_that_speak_in_between_do_not_matter(order: list[int]) -> None:
    """The order within a session stays; the DETAIL of one comes after entries of others."""
    calls = [[replace(CALLS[3], pid=pid, second=n, duration_ms=pid + n / 10) for n in range(3)] for pid in range(3)]
    entries = [[line for call in of_one for line in stderr_lines(call)] for of_one in calls]
    queues = [iter(lines) for lines in entries]
    mixed = "".join(next(queues[pid]) for pid in [*order, *order]).encode()
    straight = "".join(line for lines in entries for line in lines).encode()
    assert told(digest(mixed)) == told(digest(straight))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [0.13, 0.5, 0.77])
def test_a_log_cut_at_both_ends(name: str, cut: float) -> None:
    """A rotated or copied file: at the most one entry is lost at each end, and told."""
    data = FORMATS[name]([replace(call, second=n) for n, call in enumerate(CALLS * 40)])
    size = len(data) // len(CALLS) // 40
    found = digest(data[int(size * cut) : -int(size * cut)])
    assert 40 * 8 - 4 <= found.calls <= 40 * 8
    assert found.unread < 4 * size


@pytest.mark.parametrize("name", ["jsonlog", "jsonlog with blanks", "csvlog", "stderr"])
def test_a_torn_line_runs_into_the_next_one(name: str) -> None:
    """What a full disk or a crash leaves: the torn call is lost, no other one is, none is mixed up with it."""
    whole = [FORMATS[name]([call]) for call in CALLS]
    data = whole[0] + whole[2][: len(whole[2]) // 2] + b"".join(whole[3:]) + b"\0\0\0\0" + whole[1]
    found = digest(data)
    assert {row.query_id: row.calls for row in found.rows} | {7: 0} == {-5: 2, 7: 0, 8: 2, 9: 1, 10: 1, 11: 1}
    assert next(row for row in found.rows if row.query_id == -5).max == 512.345


@pytest.mark.parametrize("name", FORMATS)
def test_broken_characters_nul_bytes_and_carriage_returns(name: str) -> None:
    data = FORMATS[name](CALLS).replace("naïve".encode(), b"na\xff\xfeve")
    found = digest(b"\0\0\0" + data.replace(b"\n", b"\r\n") if name in ("jsonlog", "cloud lines") else data)
    assert found.calls == 8
    assert found.unread == 0


def test_a_huge_line_is_left_out_and_counted() -> None:
    huge = json_line(Logged("SELECT '" + "x" * (whole_lines.LONGEST + (2 << 20)) + "'")).encode()
    found = digest(jsonlog(CALLS[:1]) + huge + jsonlog(CALLS[1:]))
    assert found.calls == len(CALLS)
    assert whole_lines.LONGEST < found.unread <= len(huge)
    assert "1 line could not be read" in found.notes[0]


@pytest.mark.parametrize("name", ["jsonlog", "csvlog", "stderr"])
@pytest.mark.parametrize("shift", [0, 1, 700])
def test_a_huge_line_takes_no_line_beside_it(name: str, shift: int) -> None:
    """However the blocks are cut: also where one ends with the healthy line before it."""
    write = FORMATS[name]
    before, after = write(CALLS[:3]), write(CALLS[3:])
    huge = write([Logged("SELECT '" + "x" * (20 << 20) + "'")])
    made = Digester()
    reader = LogReader(made.reading)
    start = max(len(before) + shift, formats.HEAD)
    data = b"\n" * (start - shift - len(before)) + before + huge + after
    for block in (data[:start], *(data[at : at + (1 << 20)] for at in range(start, len(data), 1 << 20))):
        made.add(reader.read(block))
    made.add(reader.end())
    found = made.digest()
    assert found.calls == len(CALLS)
    assert "1 line could not be read" in found.notes[0]


@pytest.mark.parametrize("name", ["csvlog", "stderr"])
def test_a_huge_line_takes_the_entry_that_it_belongs_to(name: str) -> None:
    """Half a statement is none."""
    write = FORMATS[name]
    huge = write([Logged("SELECT a,\n'" + "x" * (20 << 20) + "'")])
    found = digest(write(CALLS[:3]) + huge + write(CALLS[3:]))
    assert found.calls == len(CALLS)
    assert whole_lines.LONGEST < found.unread <= len(huge) + 1  # a newline may count twice


def test_a_huge_entry_of_many_lines_takes_no_line_after_it() -> None:
    huge = stderr([Logged("SELECT 1" + "\n, 'x'" * (2 << 20))])
    found = digest(stderr(CALLS[:3]) + huge + stderr(CALLS[3:]))
    assert found.calls == len(CALLS)
    assert whole_lines.LONGEST < found.unread <= len(huge)


@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_order_mark(name: str) -> None:
    data = FORMATS[name](CALLS)
    assert told(digest(b"\xef\xbb\xbf" + data)) == told(digest(data))


def test_objects_that_are_no_log_entries_are_counted() -> None:
    found = digest(FORMATS["cloud lines"](CALLS) + b'{"level": "info"}\n7\n{"logName": "audit", "protoPayload": {}}\n')
    assert (found.calls, found.notes) == (8, ("2 lines could not be read: torn, too long, of another kind or prefix",))


def test_a_text_that_looks_like_keys_does_not_fool() -> None:
    found = digest(jsonlog([Logged('SELECT \'","application_name":"x","query_id":-99}\'', 5.0, query_id=9)]))
    assert [(row.query_id, row.calls) for row in found.rows] == [(9, 1)]


def test_without_query_ids_the_fingerprint_groups() -> None:
    calls = [
        Logged("SELECT * FROM jobs WHERE status = 'new' AND n IN (1, 2)", 1.0),
        Logged("select * from jobs where status = 'it''s' and n in (3)", 2.0),
        Logged("SELECT * FROM jobs WHERE status = $1 AND n IN ($2)", 3.0, name="S_1"),
        Logged("SELECT * FROM jobs WHERE other = 'new'", 4.0),
        Logged("SELECT 'don''t' -- don't", 5.0),
        Logged("SELECT b FROM t -- don't\nWHERE a = 'x'", 5.0),
        Logged("SELECT c FROM t -- don't\nWHERE a = 'x'", 5.0),
        Logged("SELEC nonsense 'x' 5", 6.0),
        Logged("SELEC nonsense 'y' 6", 7.0),
    ]
    found = digest(stderr(calls))
    assert sorted((row.calls, row.total) for row in found.rows) == [
        (1, 4.0), (1, 5.0), (1, 5.0), (1, 5.0), (2, 13.0), (3, 6.0),
    ]  # fmt: skip
    assert not any(row.is_servers for row in found.rows)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT t.id FROM jobs t WHERE t.a = 1", "SELECT t.id FROM results t WHERE t.a = 1"),
        ("SELECT t.id FROM jobs t JOIN users u ON u.id = t.a", "SELECT t.id FROM results t JOIN users u ON u.id = t.a"),
        ("UPDATE jobs AS t SET a = 1", "UPDATE results AS t SET a = 1"),
        ("""SELECT "it's", 'x' FROM t""", """SELECT "it's not", 'x' FROM t"""),
        ("SELECT a1 FROM t WHERE b = 'x'", "SELECT a2 FROM t WHERE b = 'x'"),
    ],
)
def test_statements_that_must_not_be_taken_for_one(one: str, other: str) -> None:
    """libpg_query's fingerprint leaves out the table behind an alias."""
    same = Logged(one.replace("'x'", "'y'").replace("= 1", "= 2"))
    assert [row.calls for row in digest(stderr([Logged(one), Logged(other), same])).rows] == [2, 1]


def test_durations_without_a_text_are_paired_with_what_the_session_said() -> None:
    said = Logged("SELECT 1", pid=1)
    begun = stderr_lines(said)[0].partition("LOG:")[0]
    other = stderr_lines(replace(said, pid=2))[0].partition("LOG:")[0]
    data = (
        f"{begun}LOG:  statement: SELECT a FROM t WHERE b = 1\n{other}LOG:  execute S_1: SELECT $1\n"
        f"{begun}LOG:  duration: 5.000 ms\n{other}DETAIL:  Parameters: $1 = 'x'\n"
        f"{other}LOG:  duration: 7.000 ms\n{other}LOG:  duration: 9.000 ms\n"
    )
    found = digest(data.encode())
    assert [(row.text, row.total, row.prepared) for row in found.rows] == [
        ("SELECT $1", 7.0, 1),
        ("SELECT a FROM t WHERE b = $1", 5.0, 0),
    ]
    assert found.rows[0].examples[0].parameters == ("'x'",)
    assert "1 duration stands without a statement" in found.notes[0]


@pytest.mark.parametrize(
    "message",
    [
        "duration: 1.000 ms  parse S_1: SELECT 1",
        "duration: 1.000 ms  bind S_1: SELECT 1",
        "duration: 1.000 ms  bind <unnamed>/portal: SELECT 1",
        "duration: 1.000 ms  execute fetch from S_1/portal: SELECT 1",
        "checkpoint starting: time",
        "duration of things",
    ],
)
def test_what_is_no_call(message: str) -> None:
    line = json_line(CALLS[0], message=message)
    assert digest((line + json_line(CALLS[0])).encode()).calls == 1


def test_temporary_files_belong_to_the_statement_that_follows() -> None:
    spill = 'temporary file: path "base/pgsql_tmp/pgsql_tmp1.0", size 1000000'
    data = json_line(CALLS[0]) + 2 * json_line(CALLS[0], message=spill, statement=CALLS[0].text)
    begun = stderr_lines(CALLS[0])[0].partition("LOG:")[0]
    plain = stderr_lines(CALLS[0])[0] + 2 * f"{begun}LOG:  {spill}\n{begun}STATEMENT:  {CALLS[0].text}\n"
    for found in (digest(data.encode()), digest(plain.encode())):
        assert [(row.calls, row.temporary_files, row.temporary_bytes) for row in found.rows] == [(1, 2, 2_000_000)]


PLAN = """duration: 600.000 ms  plan:
Query Text: SELECT * FROM jobs
WHERE id = 5
Seq Scan on jobs  (cost=0.00..1.05 rows=1 width=4)
  Filter: (id = 5)"""


def test_the_slowest_plan_is_kept_with_its_statement() -> None:
    faster = PLAN.replace("600", "2").replace("Seq Scan", "Index Scan")
    tree = """duration: 700.000 ms  plan:
{"Query Text": "SELECT 1", "Plan": {"Node Type": "Result", "Filter": "(a = 'x')"}}"""
    data = "".join(json_line(CALLS[0], message=each) for each in (PLAN, faster, tree, CALLS[0].message))
    begun = stderr_lines(CALLS[0])[0].partition("LOG:")[0]
    tabbed = PLAN.replace("\n", "\n\t")
    plain = f"{begun}LOG:  {tabbed}\n"
    row = digest((plain + stderr_lines(CALLS[0])[0]).encode()).rows[0]
    assert (row.calls, row.plan) == (1, PLAN.partition("plan:\n")[2])
    found = digest(data.encode())
    assert [(each.calls, "Result" in each.plan) for each in found.rows] == [(1, True)]
    shown = found.without_values().rows[0]
    assert '"Filter": "(a = ?)"' in shown.plan
    assert "SELECT" not in shown.plan
    assert shown.examples == ()
    assert "Filter: (id = ?)" in replace(found, rows=(row,)).without_values().rows[0].plan


def test_databases_and_ourselves_are_left_out() -> None:
    ours = Logged("SELECT 1", 1.0, query_id=1, application="aiprod-ops probe")
    made = digester(jsonlog([*CALLS, ours]), database="shop")
    assert (made.digest().calls, made.left_out.elsewhere, made.left_out.ours) == (7, 1, 1)
    assert digester(stderr([ours, CALLS[0]], "%m [%p] "), database="shop").left_out.nameless == 2
    probe = replace(ours, text="SELECT /* aiprod-ops: what it is */ 1")
    for query_id in (0, 5):
        made = digester(stderr([replace(probe, query_id=query_id), CALLS[0]], "%m [%p] "))
        assert (made.digest().calls, made.left_out.ours) == (1, 1)


def test_no_value_is_shown() -> None:
    secret = "hunter2"
    texts = [
        f"SELECT '{secret}', 4711 FROM t /* {secret} */ -- {secret}",
        f"SELECT E'\\'{secret}', $x${secret}$x$, B'1' FROM t WHERE a IN ('{secret}', '4711')",
        f"ALTER ROLE x PASSWORD '{secret}'",
        f"EXECUTE foo('{secret}', 4711)",
        f"SET x = '{secret}'",
        f"SELECT cut FROM t WHERE a = 4711 AND b = '{secret}",
        f"SELECT cut FROM t WHERE a = $${secret}",
        f"SELEC nonsense '{secret}' 4711",
        f"/* {secret}",
        f"PREPARE a AS SELECT * FROM t WHERE x = '{secret}'",
    ]
    found = digest(jsonlog([Logged(text, n, query_id=n) for n, text in enumerate(texts, start=1)]))
    shown = repr(found.without_values())
    assert secret in repr(found)
    assert secret not in shown
    assert "4711" not in shown


def test_a_bounded_number_of_statements_keeps_equal_totals() -> None:
    calls = [Logged(f"SELECT {n} AS c{n}", 1.0 + n % 7, query_id=n + 1) for n in range(500)]
    made = Digester(most=20)
    reader = LogReader(made.reading)
    made.add(reader.read(jsonlog(calls)))
    made.add(reader.end())
    found = made.digest()
    assert len(found.rows) <= 40
    assert found.calls == sum(row.calls for row in found.rows) + found.others_calls == 500
    assert found.total == sum(row.total for row in found.rows) + found.others_total == sum(c.duration_ms for c in calls)
    assert found.rows[0].total == 7.0
    assert any("too many different statements" in note for note in found.notes)


def test_a_pretty_printed_array_is_read() -> None:
    """pgBadger finds nothing in it and answers 0."""
    entries = cloud_entries(CALLS, FULL)
    assert digest(json.dumps(entries, indent=4).encode()).calls == 8
    assert digest(json.dumps(entries).encode()).calls == 8
    assert digest(b"\xef\xbb\xbf" + json.dumps(entries, indent="\t").encode()).calls == 8


def test_cloud_entries_that_go_on_without_a_prefix() -> None:
    head, *_ = cloud_entries([replace(CALLS[0], text="SELECT *")])
    further = [head | {"textPayload": text} for text in ("FROM jobs", "WHERE id = 5")]
    rest = cloud_entries([replace(CALLS[6], second=50)])
    for entries in ([head, *further, *rest], [*rest, *further[::-1], head]):
        found = digest("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        assert found.rows[0].examples[0].text == "SELECT *\nFROM jobs\nWHERE id = 5"
