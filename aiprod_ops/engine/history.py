"""What checks saw, kept from one to the next: counters grow, so only a difference between two tells a rate."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from aiprod_ops.config import Promises
from aiprod_ops.domain.plans import canonical, digest
from aiprod_ops.ports import Store
from aiprod_ops.units import seconds

_FINE = timedelta(days=2)  #: so long every snapshot is kept, then the first of each day
_FORM = "%Y%m%dT%H%M%S.%fZ"
_IS_STAMP = re.compile(r"/\d{8}T\d{6}\.\d{6}Z\.json\Z")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One value as it was seen at a time; `seal` is the digest of both."""

    taken: datetime
    value: Any
    seal: str

    @classmethod
    def of(cls, taken: datetime, value: Any) -> "Snapshot":
        plain = json.loads(canonical(value))
        return cls(taken, plain, digest({"taken": taken, "value": plain}))

    @property
    def holds(self) -> bool:
        return self.seal == digest({"taken": self.taken, "value": self.value})


@dataclass(frozen=True, slots=True)
class History:
    """The snapshots of one target. What was altered is left out here, and named by `evidence verify`."""

    store: Store
    target: str
    keep_for: timedelta

    def last(self, name: str, *, before: datetime | None = None) -> Snapshot | None:
        """The newest snapshot of this name, or the newest that was taken before a time."""
        for file in reversed(self._files(name)):
            snapshot = read(self.store, file)
            if snapshot is not None and (before is None or snapshot.taken < before):
                return snapshot
        return None

    def all(self, name: str, *, since: datetime | None = None) -> list[Snapshot]:
        """Every snapshot of this name, oldest first; with `since` those from then on, and the last one before."""
        files = self._files(name)
        if since is not None:
            before = [file for file in files if _time(file.rpartition("/")[2]) < since]
            files = files[max(0, len(before) - 1) :]
        found = (read(self.store, file) for file in files)
        return [snapshot for snapshot in found if snapshot is not None]

    def keep(self, name: str, taken: datetime, value: Any) -> None:
        """Keep a value; older snapshots are thinned to the first of each day, and end after `keep_for`."""
        self.store.put(
            f"{self._folder(name)}{taken.strftime(_FORM)}.json", canonical(Snapshot.of(taken, value)) + b"\n"
        )
        days: set[str] = set()
        for file in self._files(name):
            stamp = file.rpartition("/")[2]
            at = _time(stamp)
            is_first = stamp[:8] not in days
            days.add(stamp[:8])
            if taken - at > self.keep_for or (taken - at > _FINE and not is_first):
                self.store.remove(file)

    def _folder(self, name: str) -> str:
        return f"history/{quote(self.target, safe='@:')}/{name}/"

    def _files(self, name: str) -> list[str]:
        return [file for file in self.store.names(self._folder(name)) if _IS_STAMP.search(file)]


def history_of(store: Store, target: str, promises: Promises) -> History:
    """The history of a target, kept as long as `service.toml` says."""
    return History(store, target, timedelta(seconds=seconds(promises.get("evidence.history"))))


def read(store: Store, file: str) -> Snapshot | None:
    """A snapshot, or None where the file is none or was altered."""
    try:
        snapshot = msgspec.json.decode(store.get(file) or b"", type=Snapshot)
    except msgspec.DecodeError:
        return None
    return snapshot if snapshot.holds else None


def faults(store: Store) -> list[str]:
    """Snapshots that were altered after they were kept."""
    files = [name for name in store.names("history/") if name.endswith(".json")]
    return [f"{name}: was altered after it was kept" for name in files if read(store, name) is None]


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp.removesuffix(".json"), _FORM).replace(tzinfo=UTC)
