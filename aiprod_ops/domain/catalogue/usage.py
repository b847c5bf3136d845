"""Indexes that no query used on any node over a window of stored snapshots.

Counters grow until something sets them back: pg_stat_reset(), a crash (all statistics are discarded, and
pg_stat_bgwriter.stats_reset tells it while the database's own does not), a server made anew. A window ends there.
Source: PostgreSQL manual, "The Cumulative Statistics System"; pgstat.c, pgstat_reset_after_failure.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from aiprod_ops.domain.catalogue.duplicates import pairs
from aiprod_ops.domain.catalogue.faults import Drop, Fault, Level
from aiprod_ops.domain.catalogue.foreign_keys import serves
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState, listed
from aiprod_ops.domain.schema import Name
from aiprod_ops.units import show


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What one node counted. `since` is when its counters were last set to 0, None where nobody ever did.

    `scans` are by index; `last` (PostgreSQL 16) is when each was last used. `receiver` is the name under which a
    standby asks for WAL, `standbys` the names of those that stream from here, both as application_name.
    """

    scans: dict[str, int]
    since: datetime | None = None
    last: dict[str, datetime] = field(default_factory=dict)
    is_standby: bool = False
    receiver: str = ""
    standbys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageSnapshot:
    """All nodes at one time; `unread` are those that could not be read, with the reason."""

    taken: datetime
    nodes: dict[str, NodeUsage]
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> "UsageSnapshot":
        """What the next checks need: the counts. When an index was last used the server itself remembers."""
        return replace(self, nodes={name: replace(node, last={}) for name, node in self.nodes.items()})

    @property
    def strangers(self) -> tuple[str, ...]:
        """Standbys that stream from a node we read, and that nobody configured."""
        known = Counter(node.receiver for node in self.nodes.values() if node.is_standby)
        seen = Counter(name for node in self.nodes.values() for name in node.standbys)
        return tuple(sorted((seen - known).elements()))


def faults(catalogue: Catalogue, snapshots: Sequence[UsageSnapshot], window: float) -> Iterator[Fault]:
    """`snapshots` are oldest first, the last one of now. One UNKNOWN for all that cannot be said yet."""
    if not snapshots:
        return
    now = snapshots[-1]
    begin = now.taken - timedelta(seconds=window)
    quiet = [index for index in candidates(catalogue) if not _is_used(str(index.name), now, begin)]
    if not quiet:
        return
    if reasons := [*_unseen(snapshots, begin)]:
        yield from _unknown(quiet, reasons)
        return
    chain = {node: _chain(snapshots, node) for node in now.nodes}
    starts = {node: chain[node][0].taken for node in chain}
    counts = {index.name: list(_counts(str(index.name), chain)) for index in quiet}
    still = [index for index in quiet if not _moved(counts[index.name])]
    if late := [f"{node} since {starts[node]:%Y-%m-%d %H:%M}" for node in sorted(starts) if starts[node] > begin]:
        stored = show((now.taken - max(starts.values())).total_seconds(), "s")
        reason = f"{stored} of {show(window, 's')} are stored without a reset of the counters ({', '.join(late)})"
        yield from _unknown(still, [reason])
        return
    idle = {index.name: _idle_since(counts[index.name]) for index in quiet}
    over = [index for index in quiet if (since := idle[index.name]) is not None and since <= begin]
    young = [index for index in still if index not in over]
    yield from _unknown(young, [f"younger than {show(window, 's')}"])
    for index in _without_duty(over, catalogue):
        yield _fault(index, now, max(starts.values()))


def candidates(catalogue: Catalogue) -> list[IndexState]:
    """Indexes that only queries need. Of a pair of duplicates neither: the one that stays takes over the other's work.

    A partition's index follows its topmost parent, whose count is the sum of theirs.
    """
    paired = {each.name for pair in pairs(catalogue.indexes) for each in pair}
    return [
        index
        for index in catalogue.indexes
        if index.is_usable
        and not (index.is_unique or index.is_needed or index.building)
        and index.name not in paired
        and index.name.schema != "pg_toast"
    ]


def _is_used(name: str, now: UsageSnapshot, begin: datetime) -> bool:
    """Some node knows by itself that it was used in the window: when last, or a count that began in it."""
    for node in now.nodes.values():
        if (last := node.last.get(name)) is not None and last >= begin:
            return True
        if node.scans.get(name, 0) > 0 and node.since is not None and node.since >= begin:
            return True
    return False


def _unseen(snapshots: Sequence[UsageSnapshot], begin: datetime) -> Iterator[str]:
    """Nodes that may use an index without our seeing it, now or at any time in the window."""
    for node, why in sorted(snapshots[-1].unread.items()):
        yield f"{node} could not be read: {why}"
    if all(node.is_standby for node in snapshots[-1].nodes.values()):
        yield "the primary was not read: name its standbys as the replicas of a target that is the primary"
    strangers = {name for each in snapshots if each.taken >= begin for name in each.strangers}
    if strangers:
        names = ", ".join(sorted(name or "(not shown: `GRANT pg_monitor` to the role)" for name in strangers))
        yield f"standbys stream that no target names as its replica: {names}; add them to the configuration"


def _chain(snapshots: Sequence[UsageSnapshot], node: str) -> list[UsageSnapshot]:
    """The newest snapshots between which this node's counters were not set back, oldest first."""
    found = [snapshots[-1]]
    for each in reversed(snapshots[:-1]):
        if node not in each.nodes:
            continue
        since = found[0].nodes[node].since
        if since is not None and since > each.taken:
            break
        found.insert(0, each)
    return found


Counts = list[tuple[datetime, int]]


def _counts(name: str, chain: Mapping[str, Sequence[UsageSnapshot]]) -> Iterator[Counts]:
    """By node: each count with the time it was first seen, since the index was made or its counter fell."""
    for node, snapshots in chain.items():
        counts: Counts = []
        for each in snapshots:
            count = each.nodes[node].scans.get(name)
            if count is None or (counts and count < counts[-1][1]):
                counts = []
            if count is not None and (not counts or count > counts[-1][1]):
                counts.append((each.taken, count))
        yield counts


def _moved(nodes: Sequence[Counts]) -> bool:
    """Some node counted a scan between two snapshots."""
    return any(len(counts) > 1 for counts in nodes)


def _idle_since(nodes: Sequence[Counts]) -> datetime | None:
    """Since when its count stands still on every node; None where a node does not know it."""
    return max(counts[-1][0] for counts in nodes) if all(nodes) else None


def _without_duty(idle: Sequence[IndexState], catalogue: Catalogue) -> list[IndexState]:
    """Without those that a foreign key needs: of several that serve it alone, the smallest stays."""
    going = {index.name for index in idle}
    tables: dict[Name, list[IndexState]] = {}
    for index in catalogue.indexes:
        tables.setdefault(index.table, []).append(index)
    for key in catalogue.foreign_keys:
        for table in (key.table, *key.partitions):
            able = [index for index in tables.get(table, ()) if serves(index, replace(key, table=table))]
            if able and all(index.name in going for index in able):
                going.discard(min(able, key=lambda index: (index.size, index.name)).name)
    return [index for index in idle if index.name in going]


def _fault(index: IndexState, now: UsageSnapshot, start: datetime) -> Fault:
    nodes = ", ".join(sorted(now.nodes))
    note = (
        f"no query used it on {nodes} since {start:%Y-%m-%d}; {show(index.size, 'B')} that every write maintains. "
        "What runs more seldom than that is not seen: ask who wrote it"
    )
    if index.is_partitioned:
        note += "; a partitioned index is dropped under an exclusive lock only: `DROP INDEX …` in a quiet hour"
    repair = None if index.is_partitioned else Drop(index.existing)
    return Fault("unused", str(index.name), Level.WARNING, note, repair)


def _unknown(indexes: Sequence[IndexState], reasons: Sequence[str]) -> Iterator[Fault]:
    if indexes:
        names = listed(index.name for index in indexes)
        few = f"{len(indexes)} index{'es' * (len(indexes) > 1)} without a scan that is known ({names})"
        yield Fault("unused", "window", Level.UNKNOWN, f"{few}: {'; '.join(reasons)}")
