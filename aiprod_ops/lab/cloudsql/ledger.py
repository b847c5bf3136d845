"""What the emulator knows, in one file: it survives `kill -9`, and nothing else is remembered anywhere.

Each record is frozen; a change is another record in its place, written before anybody hears of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

import msgspec

from aiprod_ops.errors import Broken
from aiprod_ops.lab import folder as folders

FILE = "cloudsql.json"
KEPT_OPERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance, and where its server lives. `settings` is Google's resource without what is computed.

    `lineage` counts the histories that its data directory has had: what was archived in one is of no use in the next.
    An `adopted` server belongs to a lab, with the lab's roles and passwords.
    """

    name: str
    version: str
    region: str
    zone: str
    settings: dict[str, Any]
    data: str
    log: str
    sockets: str
    port: int
    archive: str
    password: str
    created: str
    slot: str
    state: str = "PENDING_CREATE"
    secondary_zone: str = ""
    primary: str = ""
    dr_replica: str = ""
    kms_key: str = ""
    lineage: int = 0
    adopted: bool = False
    passfile: str = ""  #: of the role that replicates from an adopted server

    @property
    def settings_version(self) -> int:
        return int(self.settings["settingsVersion"])


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup run, the folder with its files, and the history that it belongs to."""

    id: str
    instance: str
    folder: str
    version: str
    lineage: int
    password: str
    status: str = "ENQUEUED"
    type: str = "ON_DEMAND"
    description: str = ""
    location: str = ""
    size: int | None = None
    enqueued: str = ""
    started: str = ""
    ended: str = ""
    error: str = ""
    kms_key: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation. `touches` are the instances that nothing else may change meanwhile."""

    name: str
    type: str
    target: str
    touches: tuple[str, ...]
    inserted: str
    status: str = "PENDING"
    started: str = ""
    ended: str = ""
    error_code: str = ""
    error: str = ""
    backup_id: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """All of it, as it stands in the file."""

    project: str
    port: int
    instances: dict[str, Instance] = field(default_factory=dict)
    backups: tuple[Backup, ...] = ()
    operations: tuple[Operation, ...] = ()  #: oldest first


class Ledger:
    """The state, and the one lock around it. Readers take a snapshot: it does not change under them."""

    def __init__(self, folder: Path, state: State) -> None:
        self._path = folder / FILE
        self._state = state
        self._lock = RLock()
        self._save()

    @property
    def now(self) -> State:
        return self._state

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Decide and write without anybody in between."""
        with self._lock:
            yield

    def put(self, record: Instance | Backup | Operation) -> None:
        """Add a record, or put it in the place of the one with its name."""
        with self._lock:
            state = self._state
            match record:
                case Instance():
                    state = replace(state, instances={**state.instances, record.name: record})
                case Backup():
                    state = replace(state, backups=_put(state.backups, record, _backup_key))
                case Operation():
                    operations = _put(state.operations, record, lambda each: each.name)
                    state = replace(state, operations=operations[-KEPT_OPERATIONS:])
            self._state = state
            self._save()

    def forget(self, instance: str) -> None:
        """Remove an instance with its backups; its operations stay."""
        with self._lock:
            instances = {name: each for name, each in self._state.instances.items() if name != instance}
            backups = tuple(each for each in self._state.backups if each.instance != instance)
            self._state = replace(self._state, instances=instances, backups=backups)
            self._save()

    def forget_backup(self, backup: Backup) -> None:
        """Remove a backup's record."""
        with self._lock:
            kept = tuple(each for each in self._state.backups if _backup_key(each) != _backup_key(backup))
            self._state = replace(self._state, backups=kept)
            self._save()

    def _save(self) -> None:
        folders.write(self._path, msgspec.json.encode(self._state).decode() + "\n", 0o600)


def read(folder: Path) -> State | None:
    """What an emulator left in a folder; None where none was. Raises Broken when the file is not one of ours."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Broken(f"{folder / FILE} is not what an emulator wrote: {error}", hint="choose another folder") from error


def replicas(state: State, primary: str) -> list[Instance]:
    """Replicas of an instance, by name."""
    return sorted((each for each in state.instances.values() if each.primary == primary), key=lambda each: each.name)


def _backup_key(backup: Backup) -> tuple[str, str]:
    return backup.instance, backup.id


def _put(records: tuple[Any, ...], record: Any, key: Any) -> tuple[Any, ...]:
    wanted = key(record)
    if any(key(each) == wanted for each in records):
        return tuple(record if key(each) == wanted else each for each in records)
    return (*records, record)
