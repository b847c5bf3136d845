"""Calls from PostgreSQL's JSON log, newest first, in bounded memory whatever the size of the files.

Source: PostgreSQL manual, "Using JSON-Format Log Output", log_min_duration_statement; postgres.c, errdetail_params.
Texts and parameters are users' data: they leave as samples to measure with, or normalised.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pglast
from pglast.parser import ParseError

from aiprod_ops.domain.statements import Workload
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.logs import digests, entries, jsonlog, shapes
from aiprod_ops.logs.digester import Digester
from aiprod_ops.logs.entries import Batch
from aiprod_ops.logs.parameters import parameters
from aiprod_ops.ports import Sample
from aiprod_ops.units import Bytes

MOST_READ = Bytes(64 * 1024 * 1024)  #: from the end of the log; older calls are not looked at
CHUNK = Bytes(4 * 1024 * 1024)
_LONGEST_LINE = Bytes(8 * 1024 * 1024)
_LISTED = 200

_STATEMENT = re.compile(r"(?is)(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|insert|update|delete|with)\b")
_QUERY_ID = re.compile(rb'"query_id": ?(-?\d+)')


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
    found = jsonlog.call(line)
    if found is None or found.database != database or found.application.startswith("aiprod-ops"):
        return None
    if not _STATEMENT.match(found.text):
        return None
    values = parameters(found.detail)
    query_id = found.query_id or shapes.fingerprinted(found.text)
    if values is None or query_id == 0:
        return None
    return Call(query_id, found.text.strip(), float(found.duration_ms), values, found.stamp)


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
    digester = Digester()
    said = [entries.Call(one.at, "", str(one.duration_ms), "", one.text, "", "", one.query_id) for one in found]
    digester.add(Batch(said))
    figures = digests.workload(digester.digest(), missing)
    return replace(figures, statements=figures.statements[:_LISTED])


def _is_single(text: str) -> bool:
    try:
        return len(pglast.parse_sql(text)) == 1
    except ParseError:
        return False


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return read
