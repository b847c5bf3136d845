"""A world in memory: one page for each port."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.backups import Arrangement, Backup, Origin, State
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.history import History
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.runbook import Context
from aiprod_ops.engine.world import World
from aiprod_ops.errors import Held, OpsError, Unreachable
from aiprod_ops.ports import Restored, Server
from aiprod_ops.units import Bytes, Seconds


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the program catches it."""


@dataclass
class MemoryStore:
    """A store whose process can be killed: after `kill_after` durable writes of a journal every further write dies."""

    content: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    kill_after: int = 10**9
    full: bool = False

    def get(self, name: str) -> bytes | None:
        return self.content.get(name)

    def put(self, name: str, data: bytes) -> None:
        self._room()
        self.content[name] = data

    def append(self, name: str, data: bytes) -> None:
        self._room()
        self.content[name] = self.content.get(name, b"") + data
        if name.endswith("journal.jsonl"):
            self.kill_after -= 1
            if self.kill_after <= 0:
                raise Killed

    def _room(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")

    def truncate(self, name: str, size: int) -> None:
        self.content[name] = self.content[name][:size]

    def remove(self, name: str) -> None:
        self.content.pop(name, None)

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self.content if name.startswith(prefix))

    def where(self, name: str) -> str:
        return f"memory:{name}"

    @contextmanager
    def lock(self, name: str, holder: str, *, wait: bool = False) -> Iterator[int]:
        if name in self.held:
            raise Held(f"held by {self.held[name]}")
        self.tokens[name] = self.tokens.get(name, 0) + 1
        self.held[name] = holder
        try:
            yield self.tokens[name]
        finally:
            del self.held[name]

    def is_locked(self, name: str) -> bool:
        return name in self.held


@dataclass
class Light:
    """What the toy runbook acts on: lamps by name. `trouble` is raised when a lamp of that name is switched on."""

    on: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=lambda: {"a", "b"})
    version: int = 1
    trouble: dict[str, Callable[[], None]] = field(default_factory=dict)
    lost: int = 0  #: so many reads fail before contact is back
    holder: str = ""
    switched: list[str] = field(default_factory=list)


class MemoryDatabase:
    """A database that is a Light."""

    def __init__(self, light: Light, *, writes: bool) -> None:
        self.light, self.writes = light, writes
        self.cancelled = threading.Event()

    def server(self) -> Server:
        return Server("7000000000000000001", 180006, "aiprod", "probe", False, False, False)

    def query(self, sql: str, *_: Any, **__: Any) -> list[dict[str, Any]]:
        if "pg_database_size" in sql:
            return [{"size": 1000}]
        if any(name in sql for name in ("pg_stat_progress_basebackup", "pg_stat_archiver", "pg_walfile_name")):
            return []
        if self.light.lost > 0:
            self.light.lost -= 1
            raise Unreachable("the server closed the connection")
        return [{"lamp": lamp, "on": lamp in self.light.on} for lamp in sorted(self.light.wanted | self.light.on)]

    def execute(self, sql: str, *_: Any, **__: Any) -> None:
        assert self.writes, "the probe identity wrote"
        verb, lamp = sql.split()
        self.light.switched.append(sql)
        if verb == "on":
            self.light.trouble.get(lamp, lambda: None)()
            self.light.on.add(lamp)
        else:
            self.light.trouble.get(f"-{lamp}", lambda: None)()
            self.light.on.discard(lamp)

    def hold(self, key: str) -> bool:
        return not self.light.holder

    def cancel(self) -> None:
        self.cancelled.set()

    @contextmanager
    def moment(self) -> Iterator[None]:
        yield

    def another(self) -> "MemoryDatabase":
        return MemoryDatabase(self.light, writes=self.writes)

    def close(self) -> None:
        pass


@dataclass
class MemoryBackups:
    """Stored backups as a list. `trouble` is raised when one is taken, before it is there or when it is."""

    kept: list[Backup] = field(default_factory=list)
    arranged: Arrangement = field(default_factory=Arrangement)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    size: Bytes | None = Bytes(1000)
    instance: str = "7000000000000000001"
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    taken: int = 0
    used: set[str] = field(default_factory=set)

    def listed(self) -> tuple[Backup, ...]:
        return tuple(self.kept)

    def arrangement(self) -> Arrangement:
        return self.arranged

    def take(self, label: str, report: Callable[[str], None] = lambda _: None) -> str:
        for each in [each for each in self.kept if each.label == label]:
            if each.state is State.SUCCESSFUL:
                return each.id
            self.kept.remove(each)
        began, name = self.now(), f"of-{label}"
        self.kept.append(Backup(name, State.FAILED, began, label=label, said="its taker is no more"))
        self.before()
        self.kept[-1] = Backup(
            name, State.SUCCESSFUL, began, self.now(), size=self.size, instance=self.instance, label=label
        )
        self.taken += 1
        self.after()
        return name

    def reaches(self, segment: str) -> bool:
        return False

    def check_writable(self) -> None:
        """Anybody may write here."""

    def in_use(self, backup: str) -> str:
        return f"{backup} is being restored" if backup in self.used else ""

    def remove(self, backup: str) -> None:
        self.kept = [each for each in self.kept if each.id != backup]


@dataclass
class MemoryPlatform:
    """Copies in memory."""

    light: Light
    copies: dict[str, Light] = field(default_factory=dict)
    backups: "MemoryBackups" = field(default_factory=MemoryBackups)
    database: str = "lamps"
    attached: list[str] = field(default_factory=list)
    unseen: OpsError | None = None  #: what waiting for an operation says

    @contextmanager
    def copy(
        self, name: str, report: Callable[[str], None] = lambda _: None, origin: Origin | None = None
    ) -> Iterator[Any]:
        self.copies[name] = Light(on=set(self.light.on), wanted=set(self.light.wanted))
        copy = MemoryDatabase(self.copies[name], writes=True)
        try:
            yield copy, Restored(name, Seconds(1), Bytes(1000), ("intact",))
        finally:
            del self.copies[name]

    def damage(self, name: str, beside: Sequence[Name] = ()) -> list[str]:
        return []

    def control(self, name: str) -> dict[str, str]:
        return {"a check": "a byte was missed"}

    def sweep(self, is_alive: Callable[[str], bool | None]) -> list[str]:
        return []

    def attach(self, operation: str, report: Callable[[str], None]) -> None:
        if self.unseen is not None:
            raise self.unseen
        self.attached.append(operation)

    def free(self) -> Bytes | None:
        return Bytes(10**12)


class Tick:
    """A clock that goes one second further at each look, and never really sleeps."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 21, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def monotonic(self) -> float:
        return self.now().timestamp()

    def sleep(self, duration: Seconds) -> None:
        self.time += timedelta(seconds=duration)


@dataclass
class Bench:
    """Everything a test turns."""

    store: MemoryStore
    light: Light
    clock: Tick
    platform: MemoryPlatform
    entry: Entry
    said: list[str] = field(default_factory=list)
    actors: int = 0

    def world(self, **changes: Any) -> World:
        promises = Promises({"approval": {"valid_for": "4 h"}}, "test")
        context = Context(
            MemoryDatabase(self.light, writes=False), Target("lab", "dsn"), self.platform, self.clock, promises,
            self.said.append, History(self.store, "lab", timedelta(days=400)),
        )  # fmt: skip
        return World(
            context=context, store=self.store, open_actor=self._actor,
            open_probe=lambda: MemoryDatabase(self.light, writes=False), by="tester@host", version="0", **changes,
        )  # fmt: skip

    def _actor(self, run: str) -> MemoryDatabase:
        self.actors += 1
        return MemoryDatabase(self.light, writes=True)
