"""Which replica may become the primary, and why each other may not.

A candidate streams from this primary now: a replica that does not may lack everything since it stopped, whatever lag it
tells. Source: measured on a cluster whose replicas were not streaming, where a forced switchover lost every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.replication import Node, Topology, lower_settings
from aiprod_ops.units import Bytes, Seconds, show


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica, and what speaks against it; nothing does where `against` is empty."""

    node: Node
    behind: Bytes | None
    against: tuple[str, ...]


def planned(seen: Topology, most: Bytes) -> list[Candidate]:
    """All replicas for a switchover, the best first: those that may, by how little they are behind."""
    if seen.primary is None:
        return [Candidate(each, None, ("the primary does not answer",)) for each in seen.standbys]
    found = [
        Candidate(each, seen.behind(each), tuple(_against(seen, seen.primary, each, most))) for each in seen.standbys
    ]
    return sorted(found, key=lambda each: (bool(each.against), each.behind, each.node.name))


def _against(seen: Topology, primary: Node, node: Node, most: Bytes) -> Iterator[str]:
    if node.system_identifier != primary.system_identifier:
        yield "it is of another system"
    elif node.timeline != primary.timeline:
        yield f"it is on timeline {node.timeline}, the primary on {primary.timeline}"
    elif node.name in seen.forked:
        yield seen.forked[node.name]
    if not node.sender:
        yield "it does not stream now"
    if node.is_paused:
        yield "its replay is paused"
    if (behind := seen.behind(node)) is not None and behind > most:
        yield f"it is {show(behind, 'B')} behind, more than {show(most, 'B')}"
    yield from (f"it has a lower setting: {each}" for each in lower_settings(primary, node))
    yield from _refuses_writes(node)
    yield from seen.barred.get(node.name, ())


def _refuses_writes(node: Node) -> Iterator[str]:
    if node.is_read_only:
        yield "it would refuse writes: its default_transaction_read_only is on"


def unplanned(seen: Topology) -> list[Candidate]:
    """All replicas for a failover, the most advanced first: what it has not received is lost. One that the platform
    does not promote speaks against no other, however much it has."""
    fit = [each for each in seen.standbys if not seen.barred.get(each.name)] or seen.standbys
    systems = {each.system_identifier for each in seen.standbys}
    newest = max((each.timeline for each in seen.standbys), default=0)
    furthest = max((each.has for each in fit if each.timeline == newest), default=0)
    found = []
    for node in seen.standbys:
        against = []
        if len(systems) > 1:
            against.append("the replicas are of different systems")
        if node.timeline < newest:
            against.append(f"it is on timeline {node.timeline}, another on {newest}")
        elif node.has < furthest:
            against.append(f"another has {show(Bytes(furthest - node.has), 'B')} more")
        against += [*_refuses_writes(node), *seen.barred.get(node.name, ())]
        found.append(Candidate(node, Bytes(max(0, furthest - node.has)), tuple(against)))
    return sorted(found, key=lambda each: (bool(each.against), each.node.sender == "", each.node.name))


def ends(primary: Node, oldest: Seconds) -> Iterator[Finding]:
    """What a move of this primary ends, and what outlives it; nothing of that stands against one. A transaction that is
    open for longer than `oldest` is told."""
    yield Finding(
        "longest open transaction", primary.oldest, "s", warn=oldest, id="oldest",
        note="the move ends it" if primary.oldest >= oldest else "",
    )  # fmt: skip
    yield Finding(
        "prepared transactions", float(primary.prepared), "", warn=1, id="prepared",
        note="they keep their locks on the new primary, until they are ended there" if primary.prepared else "",
    )  # fmt: skip
    yield Finding(
        "logical slots that are lost", float(len(primary.logical)), "", warn=1, id="logical",
        note=f"{', '.join(primary.logical)}: no standby has them, and their readers have to begin anew"
        if primary.logical else "",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loss:
    """What a failover may lose at the most: acknowledged writes of the last `seconds` before the primary was lost, in
    `size` bytes of WAL; None where that is not known."""

    seconds: Seconds | None
    size: Bytes | None

    def __str__(self) -> str:
        if self.size == 0:
            return "nothing"
        size = "WAL that nobody can measure" if self.size is None else f"{show(self.size, 'B')} of WAL"
        return size if self.seconds is None else f"{size}, written in the last {show(self.seconds, 's')}"

    def exceeds(self, other: "Loss") -> bool:
        """Whether more is lost than was told before."""
        return other.size is not None and (self.size is None or self.size > other.size)


def loss(chosen: Node, written: int | None) -> Loss:
    """What is lost when this one takes over from one whose WAL goes as far as `written`. The newest commit that it has
    replayed bounds the time: whatever it lacks was acknowledged later."""
    size = None if written is None else Bytes(max(0, written - chosen.has))
    return Loss(Seconds(0) if size == 0 else chosen.silent, size)
