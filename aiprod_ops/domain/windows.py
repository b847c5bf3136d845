"""What statements did between two snapshots of counters that may have been reset, or thrown out, meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from aiprod_ops.domain.counters import NOT_SHOWN, Counters, Entry, StatementsSnapshot, summed_up
from aiprod_ops.units import Milliseconds, Seconds


@dataclass(frozen=True, slots=True)
class Window:
    """What each statement did in a stretch of time; statements that nobody called are left out.

    Of those in `lower` the figures are lower bounds. `evicted` counts how often entries were thrown out; None where the
    server does not tell.
    """

    begins: datetime
    ends: datetime
    statements: dict[int, Counters]  #: by query id, summed over users
    utilities: frozenset[int]  #: those that neither read nor write rows
    lower: frozenset[int]
    evicted: int | None
    is_reset: bool  #: it begins with the counters themselves

    @property
    def seconds(self) -> Seconds:
        """Its length; 0 where the server's clock was set back."""
        return Seconds(max(0.0, (self.ends - self.begins).total_seconds()))

    @property
    def everything(self) -> Counters:
        total = Counters()
        for counters in self.statements.values():
            total = total.plus(counters)
        return total

    def load(self, counters: Counters) -> float:
        """Seconds of execution a second: 1.0 keeps one core busy. 0 in a window without length."""
        return counters.total / 1000 / self.seconds if self.seconds else 0.0


def delta(before: StatementsSnapshot, after: StatementsSnapshot) -> Window:
    """What happened from one snapshot to the other, `after` being complete.

    If all counters were reset meanwhile (or another server answers: each keeps its own), the window begins there. No
    figure is negative or more than what happened; where it may be less the statement is in `lower`. Two things leave no
    trace: an entry that was new in the window and was reset alone in it, and before version 1.11 one that was reset
    alone and has outgrown its old figures since.
    """
    if before.since != after.since:
        return since_reset(after)
    then = {entry.key: entry for entry in before.entries}
    hidden = sum(entry.counters.total for entry in before.entries if entry.query_id == NOT_SHOWN)
    before = replace(before, cut=Milliseconds(max(before.cut, hidden)))  # a role that sees more since: what is new?
    evicted = _evicted(before, after)
    parts: list[tuple[int, Counters]] = []
    lower = {query_id for query_id, _ in then.keys() - {entry.key for entry in after.entries}}
    for now in after.entries:
        counters, is_exact = _grown(then.get(now.key), now, before, was_full=evicted != 0)
        parts.append((now.query_id, counters))
        if not is_exact:
            lower.add(now.query_id)
    return _window(before.taken, after, parts, lower, evicted, is_reset=False)


def since_reset(snapshot: StatementsSnapshot) -> Window:
    """All that a snapshot counted. Lower bounds where entries were thrown out, or where nobody can tell."""
    parts = [(entry.query_id, entry.counters) for entry in snapshot.entries]
    lower = set() if snapshot.evictions == 0 else {query_id for query_id, _ in parts}
    return _window(snapshot.begins, snapshot, parts, lower, snapshot.evictions, is_reset=True)


def _evicted(before: StatementsSnapshot, after: StatementsSnapshot) -> int | None:
    if before.evictions is None or after.evictions is None:
        return None
    return max(0, after.evictions - before.evictions)


def _grown(then: Entry | None, now: Entry, before: StatementsSnapshot, *, was_full: bool) -> tuple[Counters, bool]:
    """By how much an entry grew, and whether that is exact."""
    if then is None and now.query_id == NOT_SHOWN:
        return Counters(), False  # a role that sees less than the one before
    if then is None:
        is_new = now.since is not None and now.since >= before.taken
        if is_new or not before.cut:
            return now.counters, not was_full
        # It was there, too small to be kept: nothing is known of it but that.
        return Counters(total=Milliseconds(max(0.0, now.counters.total - before.cut))), False
    if now.since is not None and then.since is not None:
        is_same = now.since == then.since
        return (now.counters.minus(then.counters), True) if is_same else (now.counters, False)
    if now.counters.is_below(then.counters):
        return now.counters, False
    return now.counters.minus(then.counters), not was_full


def _window(
    begins: datetime, after: StatementsSnapshot, parts: list[tuple[int, Counters]], lower: set[int],
    evicted: int | None, *, is_reset: bool,
) -> Window:  # fmt: skip
    statements = {query_id: each for query_id, each in summed_up(parts).items() if each.calls or each.total}
    return Window(
        begins, after.taken, statements, frozenset(_utilities(after)), frozenset(lower), evicted, is_reset
    )  # fmt: skip


def _utilities(snapshot: StatementsSnapshot) -> Iterator[int]:
    return (entry.query_id for entry in snapshot.entries if not entry.is_query)
