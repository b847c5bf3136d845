"""What happened between two snapshots, whatever became of the counters: never negative, never more than the truth."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.counters import NOT_SHOWN, Counters, Entry, StatementsSnapshot, read_snapshot, summed_up
from aiprod_ops.domain.plans import canonical
from aiprod_ops.domain.windows import Window, delta, since_reset
from aiprod_ops.units import Bytes, Milliseconds

DAWN = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    return DAWN + hours * HOUR


def entry(query_id: int, calls: int, total: float, *, user: int = 1, since: datetime | None = None) -> Entry:
    return Entry(query_id, user, since, True, Counters(calls, Milliseconds(total), rows=calls, wal=Bytes(100 * calls)))


def snapshot(hours: float, *entries: Entry, since: datetime | None = DAWN, evictions: int | None = 0) -> (
    StatementsSnapshot
):  # fmt: skip
    return StatementsSnapshot(at(hours), DAWN, since, evictions, entries)


def calls(window: Window) -> dict[int, int]:
    return {query_id: counters.calls for query_id, counters in window.statements.items()}


def test_what_grew_is_what_happened() -> None:
    window = delta(snapshot(1, entry(7, 100, 50.0), entry(8, 5, 5.0)), snapshot(2, entry(7, 130, 95.0), entry(8, 5, 5)))
    assert calls(window) == {7: 30}, "nobody called the other one"
    assert window.statements[7].mean == 1.5
    assert window.statements[7].wal == 3000
    assert (window.seconds, window.lower, window.is_reset) == (3600, frozenset(), False)
    assert window.load(Counters(1, Milliseconds(7_200_000))) == 2.0


def test_a_new_statement_counts_in_full_and_users_are_summed() -> None:
    before = snapshot(1, entry(7, 10, 1.0, user=1))
    after = snapshot(2, entry(7, 11, 2.0, user=1), entry(7, 5, 5.0, user=2), entry(9, 4, 4.0))
    assert calls(delta(before, after)) == {7: 6, 9: 4}
    assert delta(before, after).everything.calls == 10
    assert not delta(before, after).lower


def test_a_reset_between_starts_the_window_there() -> None:
    window = delta(snapshot(1, entry(7, 100, 50.0)), snapshot(3, entry(7, 120, 60.0), since=at(2)))
    assert calls(window) == {7: 120}
    assert (window.begins, window.seconds, window.is_reset) == (at(2), 3600, True)


def test_another_server_after_a_failover_is_a_reset() -> None:
    """A standby counts by itself, perhaps for longer: its own beginning is all there is."""
    window = delta(snapshot(5, entry(7, 100, 50.0), since=at(4)), snapshot(6, entry(7, 900, 60.0), since=at(2)))
    assert (window.begins, calls(window), window.is_reset) == (at(2), {7: 900}, True)


def test_an_entry_that_went_down_was_thrown_out_and_came_back() -> None:
    before, after = snapshot(1, entry(7, 100, 50.0)), snapshot(2, entry(7, 3, 1.0), evictions=2)
    window = delta(before, after)
    assert (calls(window), window.lower, window.evicted) == ({7: 3}, {7}, 2)


def test_of_two_users_one_was_thrown_out() -> None:
    """The sum over users went down, and yet the second user's old calls did not happen again."""
    before = snapshot(1, entry(7, 100, 50.0, user=1), entry(7, 50, 5.0, user=2))
    after = snapshot(2, entry(7, 10, 5.0, user=1), entry(7, 60, 6.0, user=2), evictions=1)
    assert (calls(delta(before, after)), delta(before, after).lower) == ({7: 20}, {7})


def test_the_age_of_entries_tells_what_counters_hide() -> None:
    """Version 1.11: an entry that came back and has outgrown its old figures."""
    before = snapshot(1, entry(7, 10, 5.0, since=DAWN), entry(8, 1, 1.0, since=DAWN))
    after = snapshot(2, entry(7, 12, 6.0, since=at(1.5)), entry(8, 2, 2.0, since=DAWN), evictions=1)
    window = delta(before, after)
    assert (calls(window), window.lower) == ({7: 12, 8: 1}, {7})


def test_a_server_that_tells_nothing_gives_lower_bounds() -> None:
    """Version 1.8, PostgreSQL 13: neither resets nor evictions are told."""
    before = snapshot(1, entry(7, 10, 5.0), since=None, evictions=None)
    after = snapshot(2, entry(7, 12, 6.0), since=None, evictions=None)
    window = delta(before, after)
    assert (calls(window), window.lower, window.evicted) == ({7: 2}, {7}, None)
    assert since_reset(after).begins == DAWN, "the server's start stands for the reset"


def test_what_was_too_small_to_be_kept_is_not_counted_twice() -> None:
    before = snapshot(1, *(entry(n, 10, 101.0 - n) for n in range(1, 6))).largest(3)
    assert ([each.query_id for each in before.entries], before.cut) == ([1, 2, 3], 97.0)
    after = snapshot(2, *(entry(n, 10, 101.0 - n) for n in range(1, 4)), entry(4, 30, 250.0), entry(5, 10, 96.0))
    window = delta(before, after)
    assert window.statements == {4: Counters(total=Milliseconds(153.0))}
    assert window.lower == {4, 5}
    told = replace(after, entries=(*after.entries[:3], entry(4, 30, 250.0, since=at(1.2))))
    assert delta(before, told).statements[4].calls == 30, "its age tells that it is new"
    assert snapshot(1, entry(7, 1, 1.0)).largest(3).cut == 0


def test_a_role_that_sees_more_or_less_than_the_one_before() -> None:
    seen, hidden = snapshot(1, entry(7, 100, 50.0)), snapshot(1, entry(NOT_SHOWN, 100, 50.0))
    assert calls(delta(seen, snapshot(2, entry(NOT_SHOWN, 130, 65.0)))) == {}
    assert calls(delta(hidden, snapshot(2, entry(NOT_SHOWN, 130, 65.0)))) == {NOT_SHOWN: 30}
    window = delta(hidden, snapshot(2, entry(7, 130, 65.0)))
    assert window.statements == {7: Counters(total=Milliseconds(15.0))}
    assert window.lower == {7, NOT_SHOWN}


@pytest.mark.parametrize("later", [0.0, -1.0])
def test_a_clock_that_was_set_back_gives_no_rate(later: float) -> None:
    window = delta(snapshot(1, entry(7, 1, 1.0)), snapshot(1 + later, entry(7, 2, 2.0)))
    assert (window.seconds, calls(window), window.load(window.statements[7])) == (0, {7: 1}, 0.0)


def test_a_snapshot_is_the_same_after_the_history() -> None:
    import json

    one = snapshot(1, entry(7, 1, 1.0, since=at(0.5)), entry(8, 2, 0.125))
    assert read_snapshot(json.loads(canonical(one))) == one
    assert read_snapshot({"taken": "what an older version wrote"}) is None


@dataclass
class Server:
    """pg_stat_statements with room for so many entries, and beside it the truth."""

    room: int
    tells_resets: bool = True  #: version 1.9
    tells_ages: bool = True  #: version 1.11
    now: datetime = DAWN
    since: datetime = DAWN
    evictions: int = 0
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict)
    truth: list[tuple[datetime, int, int]] = field(default_factory=list)
    forgotten: set[int] = field(default_factory=set)

    def call(self, query_id: int, user: int, times: int) -> None:
        key = (query_id, user)
        if key not in self.entries:
            if len(self.entries) >= self.room:
                least = min(self.entries, key=lambda each: self.entries[each].counters.calls)
                del self.entries[least]
                self.evictions += 1
            self.entries[key] = Entry(query_id, user, self.now if self.tells_ages else None, True, Counters())
        old = self.entries[key]
        self.entries[key] = old._replace(counters=old.counters.plus(Counters(times, Milliseconds(times))))
        self.truth.append((self.now, query_id, times))

    def reset(self) -> None:
        self.entries.clear()
        self.since, self.evictions = self.now, 0

    def forget(self, query_id: int) -> None:
        """`pg_stat_statements_reset(0, 0, query_id)`"""
        self.entries = {key: each for key, each in self.entries.items() if each.query_id != query_id}
        self.forgotten.add(query_id)

    def seen(self) -> StatementsSnapshot:
        since, evictions = (self.since, self.evictions) if self.tells_resets else (None, None)
        return StatementsSnapshot(self.now, DAWN, since, evictions, tuple(self.entries.values()))

    def called(self, begins: datetime, ends: datetime) -> dict[int, int]:
        happened = ((query_id, Counters(times)) for when, query_id, times in self.truth if begins < when <= ends)
        return {query_id: counters.calls for query_id, counters in summed_up(happened).items()}


CALLS = st.tuples(st.just("call"), st.integers(1, 5), st.integers(1, 2), st.integers(1, 9))
ACTS = st.lists(st.one_of(CALLS, CALLS, CALLS, st.just(("reset",)), st.just(("look",)), st.just(("forget",))))


@given(
    acts=ACTS,
    room=st.integers(1, 12),
    kept=st.integers(1, 12),
    tells=st.sampled_from([(False, False), (True, False), (True, True)]),
)
def test_a_figure_is_the_truth_or_says_that_it_is_a_lower_bound(
    acts: list[tuple[object, ...]], room: int, kept: int, tells: tuple[bool, bool]
) -> None:
    server = Server(room, *tells)
    looks = [server.seen().largest(kept)]
    for verb, *rest in acts:
        server.now += timedelta(seconds=1)
        if verb == "call":
            server.call(*rest)  # type: ignore[arg-type]
        elif verb == "reset":
            server.reset()
        elif verb == "forget" and server.tells_ages:  # an older version cannot tell this: see `delta`
            server.forget(1)
        elif verb == "look":
            looks.append(server.seen().largest(kept))
    server.now += timedelta(seconds=1)
    for before in looks:
        window = delta(before, server.seen())
        truth = server.called(window.begins, window.ends)
        assert all(min(counters) >= 0 for counters in window.statements.values())
        assert all(n <= truth.get(query_id, 0) for query_id, n in calls(window).items())
        assert all(c.total <= truth.get(query_id, 0) for query_id, c in window.statements.items())
        # What was new in the window and forgotten alone leaves no trace; after a reset all is new.
        old = set() if window.is_reset else {entry.query_id for entry in before.entries}
        untold = window.lower | (server.forgotten - old)
        known = {query_id: n for query_id, n in truth.items() if query_id not in untold}
        told = {query_id: n for query_id, n in calls(window).items() if query_id not in untold}
        gone = {query_id for query_id in known.keys() - told.keys() if window.evicted != 0}
        assert told == {query_id: n for query_id, n in known.items() if query_id not in gone}
