"""A primary and its standbys as they say of themselves, and what of it is not as it should be. Positions in the WAL are
bytes since 0/0; those of the primary were read before those of its standbys, so no standby seems behind for nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiprod_ops.domain.findings import Finding
from aiprod_ops.units import Bytes, Seconds, show

#: What a standby may not have lower than its primary: its recovery stops, or it does not start.
#: Source: PostgreSQL manual, "Hot Standby", Administrator's Overview.
NOT_LOWER = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)


@dataclass(frozen=True, slots=True)
class Node:
    """One server. `written` is where a primary writes, `received` and `replayed` how far a standby is; `silent` are the
    seconds since the commit of the newest transaction that it replayed. It streams from `sender` now, '' where it does
    not; `heard` are the seconds since that one said anything, after `timeout` it is given up, 0 for never."""

    name: str
    is_standby: bool
    system_identifier: str
    timeline: int
    written: int = 0
    received: int = 0
    replayed: int = 0
    is_paused: bool = False
    silent: Seconds | None = None
    sender: str = ""
    heard: Seconds | None = None
    timeout: Seconds = Seconds(60)
    slot: str = ""
    archives: bool = False  #: or would, as a primary
    settings: Mapping[str, int] = field(default_factory=dict)
    conflicts: int = 0
    prepared: int = 0
    is_read_only: bool = False  #: by its own files: it would refuse writes as a primary, too
    oldest: Seconds = Seconds(0)  #: the longest open transaction
    logical: tuple[str, ...] = ()  #: slots that no standby has

    @property
    def has(self) -> int:
        """How far its WAL goes: what it received is counted from the start of a segment where it began again, and what
        it replayed may have come from its own disk or an archive."""
        return max(self.received, self.replayed)

    @property
    def has_contact(self) -> bool:
        """Whether its sender lives. Where that one is silent for half of the time-out it is asked to say something; a
        postmaster that is frozen, or gone with its machine, does not. Source: PostgreSQL, walreceiver.c."""
        return bool(self.sender) and self.heard is not None and self.heard < (self.timeout or 60) / 2 + 2


@dataclass(frozen=True, slots=True)
class Sender:
    """One standby as its primary sees it; `lag` is from the commit there to its replay here, None where it is idle."""

    name: str
    state: str
    sync: str
    replayed: int
    lag: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot on the primary; `retained` is the WAL that it keeps, `status` PostgreSQL's `wal_status`."""

    name: str
    kind: str
    is_active: bool
    retained: Bytes
    status: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What there is. `silent` are declared nodes that did not answer, by name, with the reason, and `living` those of
    them that refused us: they live. `free` is the room on the primary's volume, None where nobody can tell. `forked`
    are standbys whose WAL is not the primary's although their timelines have the same number, with what shows it.
    `barred` is what the platform has against promoting a standby."""

    primary: Node | None
    others: tuple[Node, ...] = ()
    senders: tuple[Sender, ...] = ()
    slots: tuple[Slot, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    living: tuple[str, ...] = ()
    free: Bytes | None = None
    forked: Mapping[str, str] = field(default_factory=dict)
    barred: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def others_that_write(self) -> tuple[str, ...]:
        """Beside the primary: each more than none is one too many."""
        return tuple(each.name for each in self.others if not each.is_standby)

    @property
    def standbys(self) -> tuple[Node, ...]:
        return tuple(each for each in self.others if each.is_standby)

    def behind(self, standby: Node) -> Bytes | None:
        """Bytes that a standby has not replayed of what the primary had written; None without a primary."""
        return Bytes(max(0, self.primary.written - standby.replayed)) if self.primary else None


@dataclass(frozen=True, slots=True)
class Limits:
    """When lag is too much, and WAL that a slot keeps: of that, more than half of the room that there would be without
    it is too much in any case."""

    lag: Seconds
    retained: Bytes


def judge(seen: Topology, limits: Limits, conflicts: Mapping[str, int] | None) -> Iterator[Finding]:
    """All that a check of replication tells. `conflicts` are those of the last check, by node; None before it."""
    primary = seen.primary
    if primary is None:
        yield Finding("primary", None, note="none answers: " + "; ".join(seen.silent.values()), id="primary")
    yield _missing(seen)
    yield from _strangers(seen)
    for node in seen.standbys:
        yield from _lag(seen, node, limits)
        yield from _state(primary, node)
        if conflicts is not None:
            new = max(0, node.conflicts - conflicts.get(node.name, node.conflicts))
            note = "cancelled by the replay: max_standby_streaming_delay, hot_standby_feedback" if new else ""
            yield Finding(
                f"queries cancelled on {node.name} since the last check", float(new), "", warn=1, note=note,
                id=f"conflicts:{node.name}",
            )  # fmt: skip
    for slot in seen.slots:
        yield _retained(slot, seen.free, limits)


def _missing(seen: Topology) -> Finding:
    """Declared, but silent. One that the primary still sends to is only hidden from us."""
    streaming = sum(each.state == "streaming" for each in seen.senders)
    known = sum(1 for each in seen.standbys if each.sender)
    hidden = max(0, streaming - known)
    if seen.primary is None:
        return Finding("replicas missing", None, note="no primary answers", id="missing")
    silent = seen.silent
    note = "; ".join(f"{name}: {why}" for name, why in silent.items())
    if silent and len(silent) <= hidden:
        note = f"no contact from here, though the primary streams to {streaming}: {note}"
        return Finding("replicas missing", None, note=note, id="missing")
    return Finding("replicas missing", float(len(silent)), "", crit=1, note=note, id="missing")


def _strangers(seen: Topology) -> Iterator[Finding]:
    """Two that write, another system, another timeline: each means that data went two ways."""
    both = seen.others_that_write
    if seen.primary is not None or len(both) > 1:
        writes = [seen.primary.name, *both] if seen.primary else both
        note = f"{', '.join(writes)} write: fence all but one" if both else ""
        yield Finding("primaries beside the primary", float(len(both)), "", crit=1, note=note, id="split")
    if seen.primary is None:
        return
    foreign = [each.name for each in seen.others if each.system_identifier != seen.primary.system_identifier]
    yield Finding("replicas of another system", float(len(foreign)), "", crit=1, note=", ".join(foreign), id="foreign")
    forked = [
        f"{each.name} is on timeline {each.timeline}, the primary on {seen.primary.timeline}"
        for each in seen.standbys
        if each.timeline != seen.primary.timeline and each.name not in foreign
    ]
    forked += [f"{name}: {why}" for name, why in seen.forked.items()]
    yield Finding("timeline forks", float(len(forked)), "", crit=1, note="; ".join(forked), id="forks")


def _lag(seen: Topology, node: Node, limits: Limits) -> Iterator[Finding]:
    behind = seen.behind(node)
    if behind is None:
        return
    seconds = Seconds(0.0) if behind == 0 else node.silent
    note = f"{show(behind, 'B')} behind" if behind else ""
    yield Finding(
        f"lag of {node.name}", seconds, "s", limits.lag, 10 * limits.lag, note or "", id=f"lag:{node.name}"
    )  # fmt: skip


def _state(primary: Node | None, node: Node) -> Iterator[Finding]:
    if primary is not None:
        note = "" if node.sender else "it replays what it has, or what an archive gives it"
        yield Finding(
            f"{node.name} does not stream", float(not node.sender), "", crit=1, note=note, id=f"streams:{node.name}"
        )
        lower = lower_settings(primary, node)
        yield Finding(
            f"settings of {node.name} lower than the primary's", float(len(lower)), "", crit=1,
            note=", ".join(lower), id=f"settings:{node.name}",
        )  # fmt: skip
    lower = lower_settings(primary, node) if primary is not None else []
    mended = (
        "raise its lower settings and restart it: resumed, it would stop" if lower else "SELECT pg_wal_replay_resume()"
    )
    note = mended if node.is_paused else ""
    yield Finding(
        f"replay paused on {node.name}", float(node.is_paused), "", warn=1, note=note, id=f"paused:{node.name}"
    )


def lower_settings(primary: Node, node: Node) -> list[str]:
    """What a standby has lower than its primary may have, in words."""
    return [
        f"{name} {node.settings[name]} < {primary.settings[name]}"
        for name in NOT_LOWER
        if name in node.settings and node.settings[name] < primary.settings.get(name, 0)
    ]


def _retained(slot: Slot, free: Bytes | None, limits: Limits) -> Finding:
    """A slot that nobody reads from fills the disk of the primary, and then there is none."""
    metric, name = f"WAL kept by the slot {slot.name}", f"slot:{slot.name}"
    if slot.status == "lost":
        note = "what it needs is gone: its reader has to be made anew, and the slot dropped"
        return Finding(metric, float(slot.retained), "B", crit=0, note=note, id=name)
    warn = limits.retained if free is None else min(limits.retained, 0.5 * (free + slot.retained))
    note = "" if slot.is_active else "nobody reads from it"
    return Finding(metric, float(slot.retained), "B", warn, 2 * warn, note, id=name)
