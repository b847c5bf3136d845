"""Names of WAL segments: what follows, what is missing, and where a timeline ends."""

import doctest

import pytest

from aiprod_ops.domain import wal
from aiprod_ops.units import Bytes


def names(timeline: int, *numbers: int) -> list[str]:
    return [f"{timeline:08X}{number // 256:08X}{number % 256:08X}" for number in numbers]


def test_the_examples_hold() -> None:
    assert doctest.testmod(wal).failed == 0


def test_a_line_begins_where_it_is_asked_to_and_crosses_logs() -> None:
    stored = names(1, *range(250, 260))
    assert wal.line(stored, stored[3]).names == tuple(stored[3:])


def test_a_gap_is_named_by_what_comes_before_it() -> None:
    found = wal.line(names(1, 4, 5, 7, 9), names(1, 4)[0])
    assert found.gap == names(1, 5)[0]


@pytest.mark.parametrize("left_over", [(7,), (7, 8), (7, 8, 9)])
def test_what_an_old_primary_archived_after_the_switch_is_not_taken(left_over: tuple[int, ...]) -> None:
    """Timeline 2 begins in segment 6: what timeline 1 has from there on belongs to another history."""
    found = wal.line([*names(1, 4, 5, 6, *left_over), *names(2, 6, 7)], names(1, 4)[0])
    assert found.names == (*names(1, 4, 5), *names(2, 6, 7))
    assert not found.gap


def test_histories_and_beginnings_are_no_segments() -> None:
    stored = [
        *names(1, 4),
        "00000002.history",
        "000000010000000000000005.partial",
        "000000010000000000000004.00000028.backup",
    ]
    assert wal.line(stored, names(1, 4)[0]).names == tuple(names(1, 4))


@pytest.mark.parametrize("size", wal.SIZES)
def test_the_size_follows_from_an_lsn_and_its_segment(size: Bytes) -> None:
    at = 3 * wal.LOG + (1 << 30) + 40
    per_log = wal.LOG // size
    name = f"{1:08X}{at // size // per_log:08X}{at // size % per_log:08X}"
    assert wal.number(name, size) == at // size
    assert wal.size_of(f"{at >> 32:X}/{at % wal.LOG:X}", name) == size


def test_where_the_size_is_open_it_is_the_usual_one() -> None:
    assert wal.size_of("0/28", names(1, 0)[0]) == wal.USUAL


LEFT = {"00000002": wal.branches("1\t0/6000060\tno recovery target specified\n"), "00000003": {}}


@pytest.mark.parametrize(
    ("stored", "asked", "is_reached"),
    [
        (names(2, 6, 7), names(2, 7), True),
        (names(2, 6, 7), names(2, 8), False),
        (names(1, 5, 6, 7, 8, 9), names(2, 8), False),  # the old primary ran further than the new one
        (names(2, 8), names(1, 6), True),  # where timeline 2 left timeline 1
        (names(2, 8), names(1, 7), False),  # what timeline 1 has from there on is not in it
        (names(3, 8), names(1, 6), False),  # it came from elsewhere
        ([], names(1, 6), False),
    ],
)
def test_what_comes_to_a_segment_is_of_its_history(stored: list[str], asked: list[str], is_reached: bool) -> None:
    assert wal.comes_to(stored, asked[0], LEFT) == is_reached


def test_a_history_has_comments_and_empty_lines() -> None:
    text = "# from elsewhere\n\n1\t0/5000000\tbefore 2000-01-01 01:00:00+01\n11\tA/6000060\tno recovery target\n"
    assert wal.branches(text) == {"00000001": 5 << 24, "0000000B": 10 * wal.LOG + (6 << 24) + 0x60}
