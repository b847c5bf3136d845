"""Who may become the primary where the platform has a say in it."""

from dataclasses import replace

from aiprod_ops.domain.failover import ends, planned, unplanned
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.replication import Node, Topology
from aiprod_ops.units import Bytes, Seconds

MAIN = Node("main", False, "7", 1, written=2_000)
EAST = Node("east", True, "7", 1, received=1_000, replayed=1_000, sender="10.0.0.1:5432")
NEAR = Node("near", True, "7", 1, received=1_500, replayed=1_500, sender="10.0.0.1:5432")
BARRED = {"near": ("it is not the designated one",)}


def test_what_the_platform_has_against_one_counts() -> None:
    free, bound = Topology(MAIN, (EAST, NEAR)), Topology(MAIN, (EAST, NEAR), barred=BARRED)
    assert [each.node.name for each in planned(free, Bytes(5_000)) if not each.against] == ["near", "east"]
    assert [each.node.name for each in planned(bound, Bytes(5_000)) if not each.against] == ["east"]
    assert planned(bound, Bytes(5_000))[-1].against == BARRED["near"]


def test_one_that_is_ahead_and_may_not_holds_up_no_other() -> None:
    free, bound = Topology(None, (EAST, NEAR)), Topology(None, (EAST, NEAR), barred=BARRED)
    assert [each.node.name for each in unplanned(free) if not each.against] == ["near"]
    assert [each.node.name for each in unplanned(bound) if not each.against] == ["east"]
    none = Topology(None, (EAST, NEAR), barred={**BARRED, "east": ("its edition",)})
    assert [each.node.name for each in unplanned(none) if not each.against] == []


def test_what_a_move_ends_is_told() -> None:
    quiet = [each.status for each in ends(MAIN, Seconds(60))]
    assert quiet == [Status.OK] * 3
    busy = replace(MAIN, oldest=Seconds(90), prepared=2, logical=("search", "billing"))
    told = {each.id: each for each in ends(busy, Seconds(60))}
    assert {each.status for each in told.values()} == {Status.WARNING}
    assert told["logical"].note.startswith("search, billing:")
