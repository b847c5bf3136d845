"""The JSON log: what is a call, what is not, and that no file is ever read whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from memory_database import MemoryDatabase

from aiprod_ops.actions import measurements
from aiprod_ops.adapters.postgres.log import (
    LogFile,
    call,
    calls,
    lines,
    local_files,
    samples,
    workload,
)
from aiprod_ops.adapters.postgres.server_log import local_log
from aiprod_ops.domain.schema import Column, Name, Schema, Table
from aiprod_ops.domain.statements import Statement
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.logs.parameters import parameters
from aiprod_ops.logs.shapes import identity
from aiprod_ops.units import Milliseconds


def entry(message: str, **fields: object) -> str:
    usual = {"timestamp": "2026-11-22 00:03:53.599 UTC", "dbname": "shop", "query_id": -5, "message": message}
    return json.dumps(usual | fields)


def file(content: bytes, reads: list[int] | None = None) -> LogFile:
    def read(offset: int, length: int) -> bytes:
        if reads is not None:
            reads.append(length)
        return content[offset : offset + length]

    return LogFile("x.json", len(content), read)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (entry("duration: 512.345 ms  statement: SELECT 'a'\nFROM t"), (-5, "SELECT 'a'\nFROM t", 512.345, ())),
        (
            entry("duration: 1.5 ms  execute S_1: SELECT $1, $2", detail="Parameters: $1 = 'x''y, $2 = 1', $2 = NULL"),
            (-5, "SELECT $1, $2", 1.5, ("'x''y, $2 = 1'", "NULL")),
        ),
        (
            entry("duration: 1.5 ms  execute <unnamed>: update t set a = $1", detail="parameters: $1 = '1'"),
            (-5, "update t set a = $1", 1.5, ("'1'",)),
        ),
        (entry("duration: 2 ms  execute a/portal: /* c */ WITH x AS (SELECT 1) TABLE x"), (-5, None, 2.0, ())),
    ],
)
def test_calls(line: str, expected: tuple[int, str | None, float, tuple[str, ...]]) -> None:
    found = call(line.encode(), "shop")
    assert found is not None
    assert (found.query_id, expected[1] and found.text, found.duration_ms, found.parameters) == expected


@pytest.mark.parametrize(
    "line",
    [
        entry("duration: 1 ms  parse S_1: SELECT 1"),
        entry("duration: 1 ms  bind S_1: SELECT 1"),
        entry("duration: 1 ms  execute fetch from S_1: SELECT 1"),
        entry("duration: 1 ms  plan:\nQuery Text: SELECT 1"),
        entry("duration: 1 ms  statement: EXECUTE foo('x')", detail="prepare: PREPARE foo AS SELECT $1"),
        entry("duration: 1 ms  statement: BEGIN"),
        entry("duration: 1 ms"),
        entry("checkpoint starting"),
        entry("duration: 1 ms  statement: SELECT 1", dbname="other"),
        entry("duration: 1 ms  statement: SELECT 1", application_name="aiprod-ops probe"),
        entry("duration: 1 ms  execute S: SELECT $1", detail="Parameters: $1 = 'cut...'"),
        entry("duration: 1 ms  statement: SELECT FROM WHERE", query_id=0),
        entry("duration: 1 ms  statement: SELECT 1")[:-4],
        '["duration: "]',
        "2026-11-22 LOG:  duration: 1 ms  statement: SELECT 1",
    ],
)
def test_what_is_no_call(line: str) -> None:
    assert call(line.encode(), "shop") is None


def test_parameters_that_are_not_in_order_are_refused() -> None:
    assert parameters("Parameters: $2 = 'x'") is None
    assert parameters("Parameters: $1 = 'x") is None
    assert parameters("Parameters: $1 = 'a\nb, $2 = ''', $2 = '\\'") == ("'a\nb, $2 = '''", "'\\'")


def test_without_a_query_id_the_same_statement_has_the_same_identity() -> None:
    one, two = (
        identity("SELECT * FROM t WHERE a = 'x' AND b = 5"),
        identity("SELECT * FROM t WHERE a = 'it''s' AND b = 6"),
    )
    assert one == two != 0
    assert identity("SELECT * FROM t WHERE b = 5") not in (0, one)
    assert -(2**63) <= one < 2**63


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_lines_come_last_first_whatever_the_chunk(chunk: int) -> None:
    text = "\n".join(f"line {n} é" for n in range(50)) + "\n"
    found = list(lines([file(text.encode()), file(b"older 1\nolder 2")], chunk=chunk))
    expected = [*(f"line {n} é" for n in reversed(range(50))), "older 2", "older 1"]
    assert [line.decode() for line in found if line] == expected


def test_only_the_end_is_read() -> None:
    reads: list[int] = []
    found = [line for line in lines([file(b"x" * 99 + b"\n", reads)] * 1000, most=1000, chunk=300) if line]
    assert sum(reads) == 1000
    assert len(found) == 10


def test_a_huge_line_does_not_stay_in_memory() -> None:
    content = b"first\n" + b"y" * 20_000_000 + b"\nlast\n"
    found = [line for line in lines([file(content)], chunk=1_000_000) if line]
    assert found[0] == b"last"
    assert found[-1] == b"first"
    assert max(map(len, found)) < 10_000_000


def test_samples_and_workload() -> None:
    texts = [f"SELECT * FROM t WHERE a = 'secret{n}'" for n in range(3)] + [
        "SELECT 1; DELETE FROM t WHERE a = 'secret'"
    ]
    content = "\n".join(
        entry(f"duration: {n + 1} ms  statement: {text}", timestamp=f"2026-11-22 00:00:0{n}.000 UTC", query_id=9)
        for n, text in enumerate(texts)
    )
    log = [file(content.encode() + b"\n{torn")]
    taken = samples(calls(log, "shop", [9]), [9, 8], most=2)
    assert [sample.text for sample in taken] == [texts[2], texts[1]]
    assert list(calls(log, "shop", [8])) == []
    figures = workload(calls(log, "shop"), ())
    assert [(each.query_id, each.calls, each.total, each.source) for each in figures.statements] == [
        (9, 4, 10.0, "log")
    ]
    assert float(figures.window) == 3
    assert "secret" not in repr(figures)


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(entry("duration: 1 ms  statement: SELECT 1"))
    (tmp_path / "a.log").write_text("no")
    assert len(list(calls(local_files(tmp_path), "shop"))) == 1
    assert len(list(calls(local_files(tmp_path / "a.json"), "shop"))) == 1
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        local_files(tmp_path / "nothing.json")


def test_a_log_of_another_format_is_no_log_and_says_what_is_needed(tmp_path: Path) -> None:
    plain = tmp_path / "postgresql.log"
    plain.write_text("2026-11-22 LOG:  duration: 1 ms  statement: SELECT 1\n")
    for place in (tmp_path, plain):
        found = local_log(place, "shop")
        assert (found.files, len(found.missing)) == ((), 1)
        assert f"no JSON log in {place}: it needs log_destination = 'jsonlog'" in found.missing[0]
    (tmp_path / "postgresql.json").write_text(entry("duration: 1 ms  statement: SELECT 1"))
    for place in (tmp_path, tmp_path / "postgresql.json"):
        found = local_log(place, "shop")
        assert (len(found.files), found.missing) == (1, ())


def test_what_a_call_in_the_log_would_tell_names_the_log_that_cannot_be_used() -> None:
    text = "select id from t where at > now() - $1::interval"
    asked = Statement(1, text, 10, Milliseconds(10.0), Milliseconds(1.0))
    schema = Schema((Table(Name("public", "t"), (Column("id", "integer"), Column("at", "timestamptz"))),))
    for unlogged in ("", "There is no JSON log in /var/log"):
        found, notes = measurements.subjects(MemoryDatabase(unlogged=unlogged), [asked], schema)
        assert (found, notes[1:]) == ([], [unlogged] if unlogged else [])
        assert "it needs a call in the JSON log" in notes[0]
        plain = replace(asked, text="select id from t")
        found, notes = measurements.subjects(MemoryDatabase(unlogged=unlogged), [plain], schema)
        assert (len(found), notes) == (1, [unlogged] if unlogged else [])
