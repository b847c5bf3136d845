"""Calls from PostgreSQL's JSON log, newest first, in bounded memory whatever the size of the files.

Source: PostgreSQL manual, "Using JSON-Format Log Output", log_min_duration_statement; postgres.c, errdetail_params.
Texts and parameters are users' data: they leave as samples to measure with, or normalised.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import pglast
from pglast.parser import ParseError, fingerprint, normalize

from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.ports import Sample
from aiprod_ops.units import Bytes, Milliseconds, Seconds

MOST_READ = Bytes(64 * 1024 * 1024)  #: from the end of the log; older calls are not looked at
CHUNK = Bytes(4 * 1024 * 1024)
_LONGEST_LINE = Bytes(8 * 1024 * 1024)
_LISTED = 200

_CALL = re.compile(r"duration: ([0-9.]+) ms  (?:statement|execute (?!fetch from )[^:]*): (.*)", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')(?:, (?=\$)|\Z)", re.DOTALL)
_STATEMENT = re.compile(r"(?is)(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|insert|update|delete|with)\b")
_QUERY_ID = re.compile(rb'"query_id": ?(-?\d+)')
_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log file, wherever it is: its size and a way to read `length` bytes from `offset`."""

    name: str
    size: int
    read: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was logged; `parameters` are SQL literals in the order of `$1`, `$2`, …"""

    query_id: int
    text: str
    duration_ms: float
    parameters: tuple[str, ...]
    at: str


def local_files(place: Path) -> list[LogFile]:
    """A JSON log file, or those of a folder, newest first. Raises ConfigurationError when there is nothing to read."""
    try:
        paths = sorted(place.glob("*.json"), key=_modified, reverse=True) if place.is_dir() else [place]
        return [LogFile(str(path), path.stat().st_size, _reader(path)) for path in paths]
    except OSError as error:
        raise ConfigurationError(
            f"The log {place} cannot be read: {error.strerror}", hint="Correct `log` in the target's configuration."
        ) from error


def calls(files: Iterable[LogFile], database: str, only: Sequence[int] = ()) -> Iterator[Call]:
    """Logged calls on a database, newest first; with `only`, lines of other query ids are left out early."""
    wanted = {b"0", *(str(number).encode() for number in only)}
    for line in lines(files):
        if b"duration: " not in line:
            continue
        if only and (told := _QUERY_ID.search(line)) and told[1] not in wanted:
            continue
        if found := call(line, database):
            yield found


def lines(files: Iterable[LogFile], most: int = MOST_READ, chunk: int = CHUNK) -> Iterator[bytes]:
    """Lines of the files, the last of the first file first, until `most` bytes were read."""
    for file in files:
        end, rest = file.size, b""
        while end > 0 and most > 0:
            start = max(0, end - min(chunk, most))
            first, *whole = (file.read(start, end - start) + rest).split(b"\n")
            yield from reversed(whole)
            most, end = most - (end - start), start
            rest = first if len(first) < _LONGEST_LINE else b""
        if end <= 0 and rest:
            yield rest


def call(line: bytes, database: str) -> Call | None:
    """The call that a line tells of; None for anything else: other messages, other databases, torn lines, our own."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("dbname") != database:
        return None
    if str(entry.get("application_name", "")).startswith("aiprod-ops"):
        return None
    match = _CALL.match(str(entry.get("message", "")))
    if match is None or not _STATEMENT.match(match[2]):
        return None
    values = parameters(str(entry.get("detail", "")))
    query_id = entry.get("query_id") or identity(match[2])
    if values is None or not isinstance(query_id, int) or query_id == 0:
        return None
    return Call(query_id, match[2].strip(), float(match[1]), values, str(entry.get("timestamp", "")))


def parameters(detail: str) -> tuple[str, ...] | None:
    """SQL literals from `Parameters: $1 = 'x', $2 = NULL` (`parameters:` up to PostgreSQL 15); None if cut short.

    >>> parameters("Parameters: $1 = 'it''s, $2 = 3', $2 = NULL")
    ("'it''s, $2 = 3'", 'NULL')
    >>> parameters("parameters: $1 = 'abc...'"), parameters("")
    (None, ())
    """
    if not detail.lower().startswith("parameters: "):
        return ()
    found: list[str] = []
    position, text = 0, detail[len("parameters: ") :]
    while match := _PARAMETER.match(text, position):
        if int(match[1]) != len(found) + 1 or match[2].endswith("...'"):
            return None
        found.append(match[2])
        position = match.end()
    return tuple(found) if position == len(text) else None


def identity(text: str) -> int:
    """A query id of our own, signed 64 bit, where the server gives none (`compute_query_id`); 0 if unparsable."""
    return _fingerprint(_LITERAL.sub(lambda literal: "'?'" if literal[0][0] == "'" else "0", text))


def samples(found: Iterable[Call], query_ids: Sequence[int], most: int) -> list[Sample]:
    """At the most `most` calls of each statement; a text that holds several statements is none of them."""
    wanted, taken = set(query_ids), Counter[int]()
    chosen: list[Sample] = []
    for one in found:
        if one.query_id not in wanted or taken[one.query_id] >= most or not _is_single(one.text):
            continue
        taken[one.query_id] += 1
        chosen.append(Sample(one.query_id, one.text, one.duration_ms, one.parameters))
        if all(taken[query_id] >= most for query_id in wanted):
            break
    return chosen


def workload(found: Iterable[Call], missing: tuple[str, ...]) -> Workload:
    """Figures of the calls in the log: lower bounds, for only slow ones are logged. Texts are normalised."""
    number, total, texts = Counter[int](), defaultdict[int, float](float), dict[int, str]()
    newest = oldest = ""
    for one in found:
        newest, oldest = newest or one.at, one.at or oldest
        if one.query_id not in texts:
            texts[one.query_id] = _normalised(one.text)
        number[one.query_id] += 1
        total[one.query_id] += one.duration_ms
    ranked = sorted((query_id for query_id in texts if texts[query_id]), key=lambda each: (-total[each], each))
    statements = tuple(_statement(each, texts[each], number[each], total[each]) for each in ranked[:_LISTED])
    return Workload(statements, _between(oldest, newest), Milliseconds(sum(total.values())), missing)


def _statement(query_id: int, text: str, calls: int, total: float) -> Statement:
    return Statement(query_id, text, calls, Milliseconds(total), Milliseconds(total / calls), source="log")


def _between(oldest: str, newest: str) -> Seconds:
    try:
        first, last = (datetime.fromisoformat(text[:19]) for text in (oldest, newest))
    except ValueError:
        return Seconds(0)
    return Seconds(max(0.0, (last - first).total_seconds()))


def _is_single(text: str) -> bool:
    try:
        return len(pglast.parse_sql(text)) == 1
    except ParseError:
        return False


def _normalised(text: str) -> str:
    try:
        return str(normalize(text))
    except ParseError:
        return ""


@lru_cache(maxsize=10_000)
def _fingerprint(text: str) -> int:
    try:
        return int.from_bytes(bytes.fromhex(fingerprint(text)), "big", signed=True)
    except ParseError:
        return 0


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return read
