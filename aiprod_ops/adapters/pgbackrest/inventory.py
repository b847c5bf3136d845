"""What pgBackRest lists (`info`, `repo-ls`, `help`), as values: nothing here runs anything.

Source: pgBackRest command reference, "Info Command"; `src/command/info/info.c` for the codes of a stanza.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.adapters.pgbackrest.program import words
from aiprod_ops.domain import wal
from aiprod_ops.domain.backups import Backup, State
from aiprod_ops.errors import ConfigurationError, Failed, OpsError, PermissionMissing
from aiprod_ops.units import Bytes, Seconds

LABEL = "label"  #: the annotation that carries ours

NAME = re.compile(r"(?P<full>\d{8}-\d{6}F)(?:_(?P<rest>\d{8}-\d{6}[DI]))?\Z")
_KINDS = {"full": "full", "diff": "differential", "incr": "incremental"}
_STORED = re.compile(r"(?:.*/)?([0-9A-F]{24})-([0-9a-f]{40})(?:\.\w+)?\Z")
_HISTORY = re.compile(r"(?:.*/)?([0-9A-F]{8}\.history)\Z")
_OPTION = re.compile(r"\s--([a-z0-9-]+)\s(.*?)(?=\s--[a-z]|\n\n\S|\Z)", re.DOTALL)

#: Codes of a stanza or of one repository's. Anything else of a repository is an error that it could not go around.
_OK, _NO_PATH, _NO_BACKUP, _NO_DATA, _MIXED, _OTHER_DATABASE = range(6)


@dataclass(frozen=True, slots=True)
class Kept:
    """A complete backup, and where its WAL is: `archive` is pgBackRest's id, `first` and `last` what it cannot do
    without, `segment` the size of one."""

    backup: Backup
    repository: int
    archive: str
    first: str
    last: str
    segment: Bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A WAL segment, or a timeline's history, in the repository. `checksum` is pgBackRest's own (SHA-1)."""

    name: str
    checksum: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Inventory:
    """A stanza: its complete backups, oldest first, its repositories, and whether one is being taken or removed on
    this machine."""

    kept: tuple[Kept, ...]
    repositories: Mapping[int, str]  #: number → cipher
    is_held: bool


def inventory(answer: Any, stanza: str) -> Inventory:
    """What `info --output=json` answers. It exits 0 also where it could not read: its codes are looked at."""
    found = next((each for each in answer if each.get("name") == stanza), None)
    if found is None:
        raise ConfigurationError(f"pgBackRest knows no stanza {stanza!r}", hint=f"pgbackrest --stanza={stanza} info")
    repositories = found.get("repo", [])
    for each in repositories:
        if each["status"]["code"] not in (_OK, _NO_PATH, _NO_BACKUP, _NO_DATA, _MIXED, _OTHER_DATABASE):
            raise _unreadable(each)
    if repositories and all(each["status"]["code"] in (_NO_PATH, _NO_DATA) for each in repositories):
        said = repositories[0]["status"]["message"]
        raise ConfigurationError(
            f"pgBackRest has no stanza {stanza!r} in its repository ({said})",
            hint=f"is the name right? pgbackrest info lists them; pgbackrest --stanza={stanza} stanza-create makes it",
        )
    ciphers = {int(each["key"]): str(each.get("cipher", "none")) for each in repositories}
    is_held = bool(found.get("status", {}).get("lock", {}).get("backup", {}).get("held"))
    kept = (_kept(each, found, ciphers) for each in found.get("backup", []))
    return Inventory(tuple(sorted(kept, key=lambda each: (each.backup.taken, each.backup.id))), ciphers, is_held)


def _unreadable(repository: Mapping[str, Any]) -> OpsError:
    said = words(str(repository["status"].get("message", "")))
    kind: type[OpsError] = PermissionMissing if "ermission denied" in said else Failed
    hint = "run this as the user that runs pgBackRest" if kind is PermissionMissing else ""
    return kind(f"pgBackRest cannot read its repository {repository['key']}: {said}", hint=hint)


def _kept(each: Mapping[str, Any], found: Mapping[str, Any], ciphers: Mapping[int, str]) -> Kept:
    database = each["database"]
    systems = {(one["id"], one["repo-key"]): str(one.get("system-id", "")) for one in found.get("db", [])}
    archives = {(one["database"]["id"], one["database"]["repo-key"]): one["id"] for one in found.get("archive", [])}
    place = database["id"], database["repo-key"]
    cipher = ciphers.get(int(database["repo-key"]), "none")
    begins, ends = each["archive"]["start"] or "", each["archive"]["stop"] or ""
    is_damaged = bool(each.get("error"))
    backup = Backup(
        id=each["label"],
        state=State.FAILED if is_damaged else State.SUCCESSFUL,
        started=_time(each["timestamp"]["start"]),
        ended=_time(each["timestamp"]["stop"]),
        kind=_KINDS.get(each["type"], each["type"]),
        size=Bytes(each["info"]["size"]),
        instance=systems.get(place, ""),
        rests_on=tuple(each.get("reference") or ()),
        key="" if cipher == "none" else cipher,
        label=str((each.get("annotation") or {}).get(LABEL, "")),
        said="pages of the server had wrong checksums when it was taken" if is_damaged else "",
        timeline=begins[:8],
    )
    segment = wal.size_of(each["lsn"]["start"], begins) if begins and each.get("lsn") else wal.USUAL
    return Kept(backup, int(database["repo-key"]), archives.get(place, ""), begins, ends, segment)


def _time(stamp: int) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)


def unfinished(listed: Iterable[str], known: Inventory) -> Iterator[Backup]:
    """Of the names in a repository's folder of backups those that `info` does not tell: what runs, and what was left.

    A name is the local time at which the backup began.
    """
    complete = {each.backup.id for each in known.kept}
    names = sorted(name for name in listed if NAME.match(name) and name not in complete)
    for name in names:
        is_running = known.is_held and name == names[-1]
        began = datetime.strptime(name[-16:-1], "%Y%m%d-%H%M%S").astimezone(UTC)
        said = "" if is_running else "it did not end, and nobody on this machine is at work on it"
        kind = _KINDS[{"F": "full", "D": "diff", "I": "incr"}[name[-1]]]
        yield Backup(name, State.RUNNING if is_running else State.FAILED, began, kind=kind, said=said)


def damaged_files(answer: Any) -> str:
    """Of `info --set`: the files in which pages had wrong checksums."""
    errors = [error for stanza in answer for each in stanza.get("backup", []) for error in each.get("error-list") or ()]
    return ", ".join(str(error) for error in errors[:3]) + (" …" if len(errors) > 3 else "")


def stored_wal(listed: Mapping[str, Mapping[str, Any]]) -> tuple[Stored, ...]:
    """The segments and histories that `repo-ls --recurse` lists, by name. Two of one name are an error of the archive.

    >>> stored_wal({"0000000100000000/000000010000000000000002-" + "0" * 40 + ".lz4": {"time": 0}})[0].name
    '000000010000000000000002'
    """
    found: dict[str, Stored] = {}
    for path, what in listed.items():
        segment, history = _STORED.match(path), _HISTORY.match(path)
        if segment is None and history is None:
            continue
        name, checksum = (segment[1], segment[2]) if segment else (history[1] if history else "", "")
        if name in found and found[name].checksum != checksum:
            raise Failed(
                f"the archive has two different segments of the name {name}: two servers archive into one stanza",
                hint="find out which server is the right one, and give the other a stanza of its own",
            )
        found[name] = Stored(name, checksum, _time(what.get("time", 0)))
    return tuple(found[name] for name in sorted(found))


def options(text: str) -> dict[str, str]:
    """Options of a command and the values that hold, as `help COMMAND` shows them; what has no value is left out.

    `help` is the one command that tells the configuration as pgBackRest itself reads it: files, includes, environment.

    >>> options('''
    ...   --repo-retention-full             full backup retention count/time [current=2]
    ...   --repo-retention-full-type        retention type for full backups
    ...                                     [default=count]
    ...   --repo-storage-ca-file            repository storage CA file
    ... ''')
    {'repo-retention-full': '2', 'repo-retention-full-type': 'count'}
    """
    found = {}
    for name, rest in _OPTION.findall(text):
        flat = " ".join(rest.split())
        value = re.search(r"\[current=(.*?)(?:, default=.*)?\]\Z", flat) or re.search(r"\[default=(.*)\]\Z", flat)
        if value is not None:
            found[name] = value[1]
    return found


def keeps(held: Mapping[str, str]) -> tuple[int | None, Seconds | None]:
    """How many full backups are kept, or for how long. Without a number all of them are, for ever."""
    amount = held.get("repo-retention-full", "")
    if not amount.isdigit():
        return None, None
    if held.get("repo-retention-full-type", "count") == "time":
        return None, Seconds(int(amount) * 86400.0)
    return int(amount), None
