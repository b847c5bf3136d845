"""Logs to measure with: the same calls as a JSON log and as a plain one, the same bytes every time."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

#: What PostgreSQL is told, and what pgBadger has to be told to read it.
PREFIX = "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h "
_APPLICATIONS = ("api", "worker", "reports")
_TABLES = ("jobs", "results", "pipeline_jobs", "users", "api_keys")
#: Text with one `{}` for each value, and how its values are made; each for every table.
_SHAPES = (
    ("SELECT id, user_id, prompt, created_at FROM {table} WHERE status = {} ORDER BY created_at DESC LIMIT {}", "sn"),
    ("SELECT count(*) FROM {table} WHERE created_at >= {} AND status = {}", "ds"),
    ("UPDATE {table} SET status = {}, updated_at = now() WHERE id = {}", "sn"),
    ("INSERT INTO {table} (user_id, status, prompt) VALUES ({}, {}, {}) RETURNING id", "nst"),
    ("SELECT t.id, u.email FROM {table} t JOIN users u ON u.id = t.user_id WHERE u.email = {} AND t.id > {}", "tn"),
    ("DELETE FROM {table} WHERE id = {}", "n"),
)  # fmt: skip
_STATES = ("'done'", "'failed'", "'new'", "'running'")
_BEGUN = datetime(2026, 11, 21, tzinfo=UTC)
_BLOCK = 5_000  # lines that are written at once


def write(path: Path, size_bytes: int, kind: str) -> None:
    """A log of at least so many bytes; `kind` is `jsonlog` or `stderr`."""
    line = {"jsonlog": _json_line, "stderr": _plain_line}[kind]
    written = 0
    with path.open("wb") as file:
        calls = _calls()
        while written < size_bytes:
            written += file.write("".join(line(*next(calls)) for _ in range(_BLOCK)).encode())


def _calls() -> Iterator[tuple[int, int, str, str, str]]:
    """Number, shape, duration, text, detail. Half of the calls are prepared, as drivers do, half hold their values."""
    drawn = random.Random(20261122)
    texts = [text.replace("{table}", table) for text, _ in _SHAPES for table in _TABLES]
    kinds = [kinds for _, kinds in _SHAPES for _ in _TABLES]
    weights = [1 / (n + 1) for n in range(len(texts))]
    number = 0
    while True:
        for shape in drawn.choices(range(len(texts)), weights, k=_BLOCK):
            number += 1
            duration = f"{math.exp(drawn.gauss(shape % 5, 1.5)):.3f}"
            values = [_value(kind, number, drawn) for kind in kinds[shape]]
            if shape % 2:
                text = texts[shape].format(*values)
                yield number, shape, duration, f"statement: {text}", ""
            else:
                text = texts[shape].format(*(f"${n}" for n in range(1, len(values) + 1)))
                quoted = ", ".join(f"${n} = '{v.strip(chr(39))}'" for n, v in enumerate(values, start=1))
                name = "<unnamed>" if shape % 4 else "__asyncpg_stmt_7__"
                yield number, shape, duration, f"execute {name}: {text}", f"Parameters: {quoted}"


def _value(kind: str, number: int, drawn: random.Random) -> str:
    if kind == "s":
        return _STATES[number % 4]
    if kind == "n":
        return str(drawn.randrange(1, 1_000_000))
    if kind == "d":
        return f"'2026-11-{number % 28 + 1:02d}'"
    return f"'user{number % 9973}@example.com'"


def _stamp(number: int) -> str:
    return f"{_BEGUN + timedelta(milliseconds=7 * number):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _json_line(number: int, shape: int, duration: str, text: str, detail: str) -> str:
    more = f',"detail":"{detail}"' if detail else ""
    return (
        f'{{"timestamp":"{_stamp(number)}","user":"aiprod_app","dbname":"aiprod","pid":{4000 + number % 60},'
        f'"remote_host":"10.0.0.12","remote_port":{40000 + number % 60},"session_id":"6920f3a1.{4000 + number % 60:x}",'
        f'"line_num":{number},"ps":"SELECT","session_start":"2026-11-21 00:00:00 UTC","vxid":"{number % 60}/{number}",'
        f'"txid":0,"error_severity":"LOG","message":"duration: {duration} ms  {text}"{more},'
        f'"application_name":"{_APPLICATIONS[number % 3]}","backend_type":"client backend",'
        f'"query_id":{(shape + 1) * 307445734561825860}}}\n'
    )


def _plain_line(number: int, _shape: int, duration: str, text: str, detail: str) -> str:
    begun = (
        f"{_stamp(number)} [{4000 + number % 60}]: [{number}-1] user=aiprod_app,db=aiprod,"
        f"app={_APPLICATIONS[number % 3]},client=10.0.0.12 "
    )
    more = f"{begun}DETAIL:  {detail}\n" if detail else ""
    return f"{begun}LOG:  duration: {duration} ms  {text}\n{more}"
