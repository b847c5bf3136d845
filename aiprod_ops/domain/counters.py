"""Counters of statements as a server shows them at one moment. They only grow, until a reset or an eviction.

Source: PostgreSQL manual, appendix F, "pg_stat_statements": `dealloc`, `stats_reset`, `stats_since`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.units import Bytes, Milliseconds, Seconds

NOT_SHOWN = 0  #: the query id of what other users sent, where the role may not see which statements these are


class Counters(NamedTuple):
    """What one or several statements did. A tuple, for the history keeps hundreds of them in each file."""

    calls: int = 0
    total: Milliseconds = Milliseconds(0)  #: execution
    planning: Milliseconds = Milliseconds(0)  #: 0 unless pg_stat_statements.track_planning
    rows: int = 0
    blocks: int = 0  #: shared blocks, hit or read
    temp: Bytes = Bytes(0)  #: written to temporary files
    wal: Bytes = Bytes(0)

    @property
    def mean(self) -> Milliseconds:
        """Execution time of one call.

        >>> Counters(4, Milliseconds(10)).mean, Counters().mean
        (2.5, 0.0)
        """
        return Milliseconds(self.total / self.calls if self.calls else 0.0)

    def plus(self, other: "Counters") -> "Counters":
        return Counters._make(mine + theirs for mine, theirs in zip(self, other, strict=True))

    def minus(self, other: "Counters") -> "Counters":
        return Counters._make(mine - theirs for mine, theirs in zip(self, other, strict=True))

    def is_below(self, other: "Counters") -> bool:
        """Whether any figure is smaller: counters that only grow were not the same ones then."""
        return any(mine < theirs for mine, theirs in zip(self, other, strict=True))


class Entry(NamedTuple):
    """What one user's calls of one statement added up to. `since` is told by version 1.11 (PostgreSQL 17) and later."""

    query_id: int
    user: int
    since: datetime | None
    is_query: bool  #: it reads or writes rows; not CREATE INDEX, VACUUM, COPY, …
    counters: Counters

    @property
    def key(self) -> tuple[int, int]:
        return self.query_id, self.user


@dataclass(frozen=True, slots=True)
class StatementsSnapshot:
    """The counters of one database. All times are the server's own.

    `evictions` counts how often entries were thrown out for want of room, `since` is the last reset; None where the
    server does not tell (version 1.8, PostgreSQL 13). `cut` is 0 if all entries are here; else the others took at the
    most so long, each. `missing` says what could not be read.
    """

    taken: datetime
    started: datetime  #: the server
    since: datetime | None
    evictions: int | None
    entries: tuple[Entry, ...]
    cut: Milliseconds = Milliseconds(0)
    missing: tuple[str, ...] = ()

    @property
    def begins(self) -> datetime:
        """Since when the counters count, as far as the server tells."""
        return self.since or self.started

    def largest(self, most: int) -> "StatementsSnapshot":
        """Only the entries with the largest total time: what a history has room for."""
        ranked = sorted(self.entries, key=lambda entry: (-entry.counters.total, entry.key))
        if len(ranked) <= most:
            return self
        return replace(self, entries=tuple(ranked[:most]), cut=ranked[most].counters.total)

    def workload(self, texts: dict[int, str], missing: tuple[str, ...] = ()) -> Workload:
        """The statements whose texts are given, with their figures since the counters began."""
        summed = summed_up((entry.query_id, entry.counters) for entry in self.entries)
        total = sum(counters.total for counters in summed.values())
        statements = tuple(
            Statement(query_id, texts[query_id], each.calls, each.total, each.mean, each.rows)
            for query_id, each in sorted(summed.items(), key=lambda item: (-item[1].total, item[0]))
            if query_id in texts
        )
        window = Seconds(max(0.0, (self.taken - self.begins).total_seconds()))
        return Workload(statements, window, Milliseconds(total), missing)


def summed_up(parts: Iterable[tuple[int, Counters]]) -> dict[int, Counters]:
    """One sum for each query id."""
    found: dict[int, Counters] = {}
    for query_id, counters in parts:
        found[query_id] = found.get(query_id, Counters()).plus(counters)
    return found


def read_snapshot(plain: Any) -> StatementsSnapshot | None:
    """A snapshot from a history; None if another version of this program wrote it in another shape."""
    try:
        return msgspec.convert(plain, StatementsSnapshot)
    except msgspec.ValidationError:
        return None
