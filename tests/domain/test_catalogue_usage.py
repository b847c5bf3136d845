"""Unused: over a stored window, on every node, minus duty; what cannot be known is UNKNOWN once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.catalogue import duplicates, usage
from aiprod_ops.domain.catalogue.faults import Fault, Level
from aiprod_ops.domain.catalogue.indexes import Catalogue, ForeignKey, IndexState
from aiprod_ops.domain.catalogue.usage import NodeUsage, UsageSnapshot
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import Bytes

NOW = datetime(2026, 6, 30, tzinfo=UTC)
WINDOW = 30 * 86400.0
TABLE = Name("public", "t")


def index(name: str, *keys: str, **details: Any) -> IndexState:
    return IndexState(
        Name("public", name), TABLE, f"CREATE {name}", tuple(Key(key) for key in keys or (name,)), **details
    )


def catalogue(*indexes: IndexState, keys: tuple[ForeignKey, ...] = ()) -> Catalogue:
    return Catalogue(180000, "d", "r", True, False, indexes, keys)


def taken(age: float, **counts: int) -> UsageSnapshot:
    return UsageSnapshot(NOW - timedelta(days=age), {"one": NodeUsage({f"public.{k}": v for k, v in counts.items()})})


def judged(snapshots: list[UsageSnapshot], *indexes: IndexState, **details: Any) -> list[Fault]:
    return list(usage.faults(catalogue(*(indexes or (index("a"),)), **details), snapshots, WINDOW))


def ids(found: list[Fault]) -> list[str]:
    return [fault.id for fault in found]


def test_idle_over_the_window_on_every_node() -> None:
    assert ids(judged([taken(31, a=7), taken(10, a=7), taken(0, a=7)])) == ["unused:public.a"]


@pytest.mark.parametrize(
    "snapshots",
    [
        [taken(31, a=7), taken(0, a=8)],
        [taken(31, a=7), taken(20, a=8), taken(0, a=8)],
        [taken(5, a=7), taken(0, a=8)],
    ],
)
def test_used_in_the_window(snapshots: list[UsageSnapshot]) -> None:
    assert judged(snapshots) == []


def test_used_before_the_window_only() -> None:
    assert ids(judged([taken(40, a=7), taken(31, a=8), taken(0, a=8)])) == ["unused:public.a"]


def reset(snapshot: UsageSnapshot, age: float) -> UsageSnapshot:
    return replace(snapshot, nodes={n: replace(u, since=NOW - timedelta(days=age)) for n, u in snapshot.nodes.items()})


@pytest.mark.parametrize(
    ("snapshots", "said"),
    [
        ([taken(0, a=0)], "0 s of 30.0 d"),
        ([taken(12, a=0), taken(0, a=0)], "12.0 d of 30.0 d"),
        ([taken(31, a=0), reset(taken(0, a=0), 3)], "0 s of 30.0 d"),
        ([taken(31, a=0), reset(taken(2, a=0), 3), reset(taken(0, a=0), 3)], "48.0 h of"),
        ([taken(31, a=9), taken(8, a=0), taken(0, a=0)], "younger than"),
        ([taken(31), taken(8, a=0), taken(0, a=0)], "younger than"),
        ([replace(taken(31, a=0), nodes={"other": NodeUsage({})}), taken(0, a=0)], "one since 2026-06-30"),
        ([taken(31, a=0), replace(taken(0, a=0), unread={"two": "no contact"})], "two could not be read: no contact"),
    ],
)
def test_not_known_yet(snapshots: list[UsageSnapshot], said: str) -> None:
    (found,) = judged(snapshots)
    assert (found.id, found.level, said in found.note) == ("unused:window", Level.UNKNOWN, True), found.note


def with_replica(snapshot: UsageSnapshot, receiver: str, *standbys: str, scans: int = 0) -> UsageSnapshot:
    nodes = {
        "one": replace(snapshot.nodes["one"], standbys=standbys),
        "two": NodeUsage({"public.a": scans}, is_standby=True, receiver=receiver),
    }
    return replace(snapshot, nodes=nodes)


def test_a_replica_counts_as_well() -> None:
    idle = [with_replica(taken(31, a=0), "r", "r", scans=5), with_replica(taken(0, a=0), "r", "r", scans=5)]
    assert ids(judged(idle)) == ["unused:public.a"]
    assert judged([idle[0], with_replica(taken(0, a=0), "r", "r", scans=6)]) == []


@pytest.mark.parametrize("standbys", [("r", "s"), ("r", "r"), ("r", "")])
def test_a_standby_that_nobody_configured(standbys: tuple[str, ...]) -> None:
    snapshots = [with_replica(taken(31, a=0), "r", "r"), with_replica(taken(0, a=0), "r", *standbys)]
    (found,) = judged(snapshots)
    assert found.level is Level.UNKNOWN
    (before,) = judged([snapshots[0], replace(snapshots[1], taken=NOW - timedelta(days=9)), snapshots[0].__class__(
        NOW, snapshots[0].nodes)])  # fmt: skip
    assert before.level is Level.UNKNOWN


def test_a_standby_alone_does_not_know() -> None:
    alone = [replace(each, nodes={"one": replace(each.nodes["one"], is_standby=True)}) for each in
             (taken(31, a=0), taken(0, a=0))]  # fmt: skip
    (found,) = judged(alone)
    assert (found.level, "the primary was not read" in found.note) == (Level.UNKNOWN, True)


def test_the_server_remembers_when_it_was_used_last() -> None:
    now = taken(0, a=3)
    used = replace(now, nodes={"one": replace(now.nodes["one"], last={"public.a": NOW - timedelta(days=4)})})
    assert judged([used]) == []
    assert used.kept.nodes["one"].last == {}
    since_reset = reset(now, 3)
    assert judged([since_reset]) == []


def test_what_nothing_but_queries_needs() -> None:
    needed = [
        index("b", is_unique=True), index("c", constraint="c"), index("d", is_replica_identity=True),
        index("e", is_clustered=True), index("f", parent=Name("public", "p")), index("g", is_valid=False),
        index("h", building="process 7"),
    ]  # fmt: skip
    counts = dict.fromkeys("bcdefgh", 0)
    assert judged([taken(31, **counts), taken(0, **counts)], *needed) == []


def test_a_foreign_key_keeps_one() -> None:
    key = ForeignKey("fk", TABLE, ("x",), Name("public", "u"))
    two = [index("a", "x", "y", size=Bytes(9)), index("b", "x", "z", size=Bytes(3))]
    snapshots = [taken(31, a=0, b=0), taken(0, a=0, b=0)]
    assert ids(judged(snapshots, *two, keys=(key,))) == ["unused:public.a"]
    assert ids(judged(snapshots, two[0], keys=(key,))) == []
    used = [taken(31, a=0, b=0), taken(0, a=0, b=1)]
    assert ids(judged(used, *two, keys=(key,))) == ["unused:public.a"]


@given(st.lists(st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True), max_size=6))
def test_never_both_halves_of_a_pair(shapes: list[list[str]]) -> None:
    """After all drops each duplicate's work and each foreign key is still served."""
    indexes = [index(f"i{number}", *keys) for number, keys in enumerate(shapes)]
    keys = tuple(ForeignKey(f"fk_{column}", TABLE, (column,), Name("public", "u")) for column in "xyz")
    counts = {each.name.name: 0 for each in indexes}
    unused = {each.subject for each in judged([taken(31, **counts), taken(0, **counts)], *indexes, keys=keys)}
    pairs = duplicates.pairs(indexes)
    assert not unused & {str(each.name) for pair in pairs for each in pair}
    gone = unused | {str(one.name) for one, _ in pairs}
    for column in "xyz":
        able = {str(each.name) for each in indexes if each.keys[0].column == column}
        assert not able or able - gone
