"""Quotas over sliding windows: never over the limit in any window, and the wait that is told is the right one."""

import doctest
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain import quotas, tiers
from aiprod_ops.domain.quotas import SLOTS, Quota, Spent, take
from aiprod_ops.service.limiting import fields
from aiprod_ops.units import Seconds

MINUTE = Quota("minute", 7, Seconds(0.6))
DAY = Quota("day", 20, Seconds(6))
requests = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), min_size=1, max_size=80)


@pytest.mark.parametrize("module", [quotas, tiers, fields])
def test_the_examples_are_right(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(requests)
def test_no_window_holds_more_than_the_limit(steps: list[tuple[int, int]]) -> None:
    now, spent, granted = 0, ((), ()), list[tuple[int, int]]()
    for pause, cost in steps:
        now += pause
        decision, spent = take(spent, (MINUTE, DAY), cost, now)
        if decision.is_allowed:
            granted.append((now, cost))
    for quota in (MINUTE, DAY):
        for begin, _ in granted:
            inside = sum(cost for at, cost in granted if begin <= at < begin + quota.window * 1000)
            assert inside <= quota.limit


@given(requests)
def test_who_waits_as_long_as_he_is_told_is_let_through_and_not_earlier(steps: list[tuple[int, int]]) -> None:
    now, spent = 0, ((), ())
    for pause, cost in steps:
        now += pause
        decision, spent = take(spent, (MINUTE, DAY), cost, now)
        if not decision.is_allowed:
            assert decision.wait_ms is not None
            assert decision.wait_ms > 0
            assert take(spent, (MINUTE, DAY), cost, now + decision.wait_ms)[0].is_allowed
            assert not take(spent, (MINUTE, DAY), cost, now + decision.wait_ms - 1)[0].is_allowed


@given(requests)
def test_a_window_is_a_sixtieth_longer_at_the_most(steps: list[tuple[int, int]]) -> None:
    """What is refused would have been too much for a window and one slot."""
    now, spent, granted = 0, ((),), list[tuple[int, int]]()
    for pause, cost in steps:
        now += pause
        decision, spent = take(spent, (MINUTE,), cost, now)
        if decision.is_allowed:
            granted.append((now, cost))
        else:
            since = now - MINUTE.slot_ms * (SLOTS + 1)
            assert sum(each for at, each in granted if at > since) + cost > MINUTE.limit


def test_all_or_nothing() -> None:
    """A request that one quota refuses is counted by none."""
    spent: tuple[Spent, ...] = ((), ((0, 20),))
    decision, after = take(spent, (MINUTE, DAY), 1, 0)
    assert (decision.is_allowed, decision.violated, after) == (False, ("day",), spent)


def test_what_costs_more_than_the_quota_is_never_let_through() -> None:
    decision, _ = take(((), ()), (MINUTE, DAY), 8, 0)
    assert (decision.is_allowed, decision.wait_ms, decision.retry_after) == (False, None, None)
    assert "Retry-After" not in fields.response_fields(decision)
    assert "smaller parts" in fields.problem(decision)["detail"]


def test_a_clock_that_is_set_back_forgets_nothing() -> None:
    _, spent = take(((),), (MINUTE,), 7, 3_600_000)
    decision, spent = take(spent, (MINUTE,), 1, 1_000)
    assert (decision.is_allowed, decision.wait_ms) == (False, 610)
    assert not take(spent, (MINUTE,), 1, 1_609)[0].is_allowed
    assert take(spent, (MINUTE,), 1, 1_610)[0].is_allowed


def test_looking_costs_nothing() -> None:
    decision, spent = take((((0, 7),),), (MINUTE,), 0, 10)
    assert (decision.is_allowed, decision.standings[0].remaining, spent) == (True, 0, (((0, 7),),))


def test_slots_grow_no_further_than_the_window() -> None:
    spent: tuple[Spent, ...] = ((),)
    for now in range(0, 10_000, 3):
        _, spent = take(spent, (Quota("much", 10**6, Seconds(0.6)),), 1, now)
        assert len(spent[0]) <= SLOTS + 1
        assert all(a < b for (a, _), (b, _) in pairwise(spent[0]))


@pytest.mark.parametrize(("limit", "window"), [(0, 60), (1, 0), (1, 0.05), (1, float("inf")), (1, float("nan"))])
def test_a_quota_that_makes_no_sense_is_refused(limit: int, window: float) -> None:
    with pytest.raises(ValueError, match="expected a limit from 1"):
        Quota("x", limit, Seconds(window))
