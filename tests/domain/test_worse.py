"""When a proof calls a case worse: buffers and time together, time alone only where the runs are clearly apart."""

import pytest

from aiprod_ops.actions.measurements import Measured, is_worse
from aiprod_ops.actions.trials import figures


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (([100], [10, 11]), ([100], [10, 12]), False),
        (([4096], [32, 33]), ([185_746], [115, 116]), True),
        (([4096], [32, 33]), ([185_746], [33, 33.5]), False),  # cached, and no slower
        (([15], [0.05, 0.06]), ([27], [0.1, 0.2]), False),  # below the noise
        (([1000], [1.0, 1.2]), ([703], [9.0, 12.4]), False),  # a busy moment: fewer buffers
        (([1000], [10, 15]), ([1000], [12, 80]), False),  # a busy moment: the runs overlap
        (([1000], [10, 15]), ([1000], [31, 33]), True),  # clearly apart
    ],
)
def test_worse(before: tuple[list[float], list[float]], after: tuple[list[float], list[float]], worse: bool) -> None:
    assert is_worse(Measured(*before), Measured(*after)) is worse


def test_small_times_are_told_apart() -> None:
    told = figures(Measured([4], [0.104]), Measured([6], [0.0421]))
    assert told == "4 → 6 buffers, 0.10 ms → 0.04 ms"


def test_running_out_of_time_is_worse() -> None:
    assert is_worse(Measured([10], [1, 1]), Measured([], [60_000], timed_out=True))
    assert not is_worse(Measured([], [60_000], timed_out=True), Measured([], [60_000], timed_out=True))
