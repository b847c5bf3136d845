"""The part of a limit that one process lets through alone."""

from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.quotas import Decision, Quota, Spent, Standing, take
from aiprod_ops.service.limiting import local
from aiprod_ops.service.limiting.local import LocalLimits
from aiprod_ops.units import Seconds

QUOTAS = (Quota("minute", 60, Seconds(60)), Quota("day", 1_000, Seconds(86_400)))


class Clock:
    """Seconds that pass when they are told to."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def granted(limits: LocalLimits, quotas: tuple[Quota, ...] = QUOTAS, cost: int = 1, tries: int = 100) -> int:
    return sum(limits.decide("u", quotas, cost).is_allowed for _ in range(tries))


def told(limits: LocalLimits, *remaining: int) -> None:
    standings = tuple(Standing(quota, left, 1) for quota, left in zip(QUOTAS, remaining, strict=True))
    limits.hear("u", Decision(all(remaining), 1, standings))


def test_all_processes_together_keep_the_limit() -> None:
    assert [granted(LocalLimits(count)) for count in (1, 8, 60)] == [60, 7, 1]


def test_where_there_are_more_processes_than_requests_each_lets_one_through() -> None:
    assert granted(LocalLimits(1_000)) == 1


def test_the_part_comes_back_when_its_window_is_over() -> None:
    clock = Clock()
    limits = LocalLimits(8, clock=clock)
    assert granted(limits) == 7
    decision = limits.decide("u", QUOTAS, 1)
    assert decision.is_local
    assert decision.wait_ms == 61_000
    clock.now += 61
    assert granted(limits) == 7


def test_who_had_used_his_limit_up_gets_no_second_helping() -> None:
    for remaining, expected in (((60, 1_000), 7), ((30, 1_000), 4), ((1, 1_000), 1), ((0, 1_000), 0), ((60, 0), 0)):
        limits = LocalLimits(8, clock=Clock())
        told(limits, *remaining)
        assert granted(limits) == expected


def test_redis_is_told_what_was_let_through_without_it() -> None:
    clock = Clock()
    limits = LocalLimits(8, clock=clock)
    assert limits.owed("u", QUOTAS) == ()
    told(limits, 30, 1_000)
    assert granted(limits) == 4
    assert limits.owed("u", QUOTAS) == (4, 4)
    clock.now += 61
    assert limits.owed("u", QUOTAS) == (0, 4)  # the minute is over, the day is not
    told(limits, 60, 996)
    assert limits.owed("u", QUOTAS) == ()


def test_a_cost_above_the_part_is_not_refused_for_ever_unless_it_is_above_the_quota() -> None:
    limits = LocalLimits(8, clock=Clock())
    assert limits.decide("a", QUOTAS, 50).is_allowed
    assert not limits.decide("a", QUOTAS, 1).is_allowed
    never = limits.decide("b", QUOTAS, 61)
    assert (never.is_allowed, never.wait_ms) == (False, None)


def test_a_changed_tier_is_another_part() -> None:
    limits = LocalLimits(1, clock=Clock())
    assert granted(limits) == 60
    assert granted(limits, (Quota("minute", 100, Seconds(60)),)) == 100


def test_memory_is_bounded() -> None:
    limits = LocalLimits(1, clock=Clock())
    for number in range(local.MOST_CALLERS + 50):
        limits.hear(str(number), Decision(True, 1, ()))
        limits.decide(f"x{number}", QUOTAS, 1)
    assert len(limits._heard) == len(limits._granted) == local.MOST_CALLERS


PROCESSES = 4
SMALL = (Quota("minute", 8, Seconds(0.6)), Quota("day", 22, Seconds(6)))
steps = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, PROCESSES - 1), st.booleans(), st.integers(1, 5)),
    min_size=20,
    max_size=150,
)


@given(steps)
def test_no_window_holds_more_than_twice_the_limit_while_redis_comes_and_goes(
    drawn: list[tuple[int, int, bool, int]],
) -> None:
    clock = Clock()
    processes = [LocalLimits(PROCESSES, clock=clock) for _ in range(PROCESSES)]
    spent: tuple[Spent, ...] = ((), ())
    moments: list[float] = []
    for pause_ms, number, is_there, tries in drawn:
        clock.now += pause_ms / 1000
        for _ in range(tries):
            if is_there:
                owed = processes[number].owed("u", SMALL)
                decision, spent = take(spent, SMALL, 1, int(clock.now * 1000), owed)
                processes[number].hear("u", decision)
            else:
                decision = processes[number].decide("u", SMALL, 1)
            if decision.is_allowed:
                moments.append(clock.now)
    for quota in SMALL:
        assert all(sum(at <= each < at + quota.window for each in moments) <= 2 * quota.limit for at in moments)


def test_what_redis_has_lost_is_told_to_it_again() -> None:
    clock = Clock()
    one, eight = LocalLimits(1, clock=clock), LocalLimits(8, clock=clock)
    for limits in (one, eight):
        told(limits, 10, 900)
        assert limits.owed("u", QUOTAS) == ()
        clock.now += 1
        limits.lost()
        assert limits.owed("stranger", QUOTAS) == ()
    assert one.owed("u", QUOTAS) == (50, 100)
    assert eight.owed("u", QUOTAS) == (5, 12)  # each its share, rounded down
    told(one, 9, 899)  # as Redis says when it was told
    assert one.owed("u", QUOTAS) == ()
    clock.now += 61
    assert eight.owed("u", QUOTAS) == (0, 12)
