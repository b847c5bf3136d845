"""What a log says, entry by entry: calls with their duration, plans, temporary files.

Source of the forms: PostgreSQL manual, "Error Reporting and Logging"; postgres.c, check_log_duration.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

#: The usual call: duration, name of the prepared statement (none: a simple query, or the unnamed one), text.
USUAL = (
    r"duration: (?P<duration>\d+\.\d+) ms  "
    r"(?:statement|execute <unnamed>|execute (?!<unnamed>|fetch from )(?P<prepared>[^:/\n]*)): "
)
CALL = re.compile(f"{USUAL}(.*)", re.DOTALL)
#: All of `duration: 1.234 ms`: alone, or with `  statement: …`, `  parse|bind|execute NAME: …`, `  plan:\n…`.
_DURATION = re.compile(
    r"duration: (\d+(?:\.\d+)?) ms(?:  (?:(statement)|(parse|bind) [^:]*|execute ([^:]*)|(plan)):\s?(.*))?\s*\Z",
    re.DOTALL,
)
_SAID = re.compile(r"(?:statement|execute ([^:]*)): (.*)\Z", re.DOTALL)
_SPILL = re.compile(r'temporary file: path "[^"]*", size (\d+)')
T = TypeVar("T")
_MOST_SESSIONS = 4096  # that are remembered between two of their entries


class Entry(NamedTuple):
    """One entry of any format. `statement` is what STATEMENT says, `session` whatever tells sessions apart.

    `query_id` is 0 where the server gives none.
    """

    stamp: str = ""
    session: str = ""
    database: str = ""
    application: str = ""
    message: str = ""
    detail: str = ""
    statement: str = ""
    query_id: int = 0


class Call(NamedTuple):
    """One call that was logged with its duration. `prepared` names its prepared statement, if it has a name.

    Readers make hundreds of thousands of them a second: a plain tuple in this order does as well.
    """

    stamp: str
    database: str
    duration_ms: str
    prepared: str
    text: str
    detail: str
    application: str
    query_id: int


class Plan(NamedTuple):
    """One plan of auto_explain, as it wrote it (text, JSON, YAML or XML), the text of the query included."""

    database: str
    duration_ms: float
    plan: str
    application: str
    query_id: int


class Spill(NamedTuple):
    """A temporary file of so many bytes, and the statement that wrote it."""

    database: str
    size: int
    text: str
    application: str
    query_id: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A log in which not one entry could be read. `looks` is the format it seems to have; empty where none fits."""

    name: str
    size_bytes: int
    looks: str


@dataclass(slots=True)
class Reading:
    """How much was read, and what was not understood. `entries` are PostgreSQL's, whatever they say."""

    size_bytes: int = 0
    unread_bytes: int = 0
    unread_lines: int = 0
    entries: int = 0
    phases: int = 0  #: durations of parse and bind, which are no calls
    fetches: int = 0  #: further rows of a call that was counted before
    textless: int = 0  #: durations whose statement nobody logged
    plans: int = 0
    cut_files: int = 0  #: compressed, and not whole
    unread_files: list[Unread] = field(default_factory=list)

    def leave_out(self, line: bytes) -> None:
        """Count a line that nobody understands; an empty one is none."""
        if line.strip(b"\0 \r\n\t"):
            self.unread_lines += 1
            self.unread_bytes += len(line) + 1


@dataclass(slots=True)
class Batch:
    """What one block told."""

    calls: list[Call] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    spills: list[Spill] = field(default_factory=list)


class Sessions:
    """Puts together what one session says in several entries, whoever speaks in between."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._said: dict[str, tuple[str, str, str]] = {}  # name, text, detail: log_statement, before its duration

    def take(self, entry: Entry, batch: Batch) -> None:
        """Add what an entry tells to the batch, if it tells anything of interest."""
        self._reading.entries += 1
        message = entry.message
        if message.startswith("duration: "):
            self._duration(entry, batch)
        elif message.startswith(("statement: ", "execute ")):
            if said := _SAID.match(message):
                remember(self._said, entry.session, (said[1] or "", said[2], entry.detail))
        elif message.startswith("temporary file: ") and (found := _SPILL.match(message)):
            size = int(found[1])
            batch.spills.append(Spill(entry.database, size, entry.statement, entry.application, entry.query_id))

    def _duration(self, entry: Entry, batch: Batch) -> None:
        match = _DURATION.match(entry.message)
        if match is None:
            return
        duration, statement, phase, name, plan, text = match.groups()
        if plan:
            self._reading.plans += 1
            batch.plans.append(Plan(entry.database, float(duration), text, entry.application, entry.query_id))
        elif phase:
            self._reading.phases += 1
        elif name is not None and name.startswith("fetch from "):
            self._reading.fetches += 1
        elif statement or name is not None:
            batch.calls.append(_call(entry, duration, name or "", text, entry.detail))
        elif said := self._said.pop(entry.session, None):
            batch.calls.append(_call(entry, duration, *said))
        else:
            self._reading.textless += 1


def _call(entry: Entry, duration: str, name: str, text: str, detail: str) -> Call:
    name = name.partition("/")[0]  # what follows is the portal's
    prepared = "" if name == "<unnamed>" else name
    return Call(entry.stamp, entry.database, duration, prepared, text, detail, entry.application, entry.query_id)


def remember(held: dict[str, T], session: str, value: T) -> T | None:
    """Set a session's value; answers the value of a session that had to be forgotten for it."""
    forgotten = held.pop(next(iter(held))) if len(held) >= _MOST_SESSIONS and session not in held else None
    held[session] = value
    return forgotten
