"""A replica that may be read from is never staler than the limit, whatever primary and replica did and will do."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.service.freshness import Progress, Replayed, fresh_until, position, staleness
from aiprod_ops.service.reading import Limits
from aiprod_ops.units import Seconds

LIMIT = Seconds(5)


@dataclass
class Servers:
    """A primary that writes records, some of them commits, and a replica that replays them in order."""

    now: float = 0.0
    records: list[tuple[float, bool]] = field(default_factory=list)
    replayed: int = 0

    def progress(self) -> Progress:
        return Progress(len(self.records), self.now)

    def replica(self) -> Replayed:
        commits = [when for when, is_commit in self.records[: self.replayed] if is_commit]
        return Replayed(self.replayed, commits[-1] if commits else None)

    @property
    def stale(self) -> float:
        """The truth: since when there is something that the replica lacks."""
        return self.now - self.records[self.replayed][0] if self.replayed < len(self.records) else 0.0


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 8)),
    st.tuples(st.just("write"), st.booleans()),
    st.tuples(st.just("replay"), st.integers(1, 5)),
    st.tuples(st.just("measure"), st.none()),
    st.tuples(st.just("look"), st.none()),
)


@given(st.lists(STEPS, max_size=60))
def test_what_may_be_read_from_is_under_the_limit(steps: list[tuple[str, float | bool | int | None]]) -> None:
    servers, before, until = Servers(), list[Progress](), -1.0
    for what, amount in steps:
        if what == "wait":
            servers.now += float(amount or 0)
        elif what == "write":
            servers.records.append((servers.now, bool(amount)))
        elif what == "replay":
            servers.replayed = min(len(servers.records), servers.replayed + int(amount or 0))
        elif what == "measure":
            primary = servers.progress()
            stale = staleness(primary, servers.replica(), before)
            assert stale is None or stale >= servers.stale
            until = fresh_until(servers.now, stale, LIMIT)
            before.append(primary)
        if servers.now <= until:
            assert servers.stale <= LIMIT + 1e-9


def test_nothing_bounds_a_replica_that_has_replayed_nothing() -> None:
    assert staleness(Progress(10, 1.0), Replayed(0, None)) is None
    assert fresh_until(10.0, None, LIMIT) < 10.0


def test_clocks_that_differ_make_nothing_negative() -> None:
    assert staleness(Progress(10, 1.0), Replayed(9, 3.0)) == 0.0


@pytest.mark.parametrize(
    "token", ["", "0", "/", "0/", "/0", "0/0/0", "0x1/0", "-1/0", "0/123456789", "0/ 1", "ſ/0", "'"]
)
def test_what_is_no_token(token: str) -> None:
    assert position(token) is None


def test_tokens_are_in_the_order_of_wal() -> None:
    assert [position(each) for each in ("0/0", "0/FF", "1/0", "ffffffff/FFFFFFFF")] == [0, 255, 2**32, 2**64 - 1]


@pytest.mark.parametrize("name", ["lag", "every", "patience", "retry"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_that_make_no_sense(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        Limits(**{name: Seconds(value)})
