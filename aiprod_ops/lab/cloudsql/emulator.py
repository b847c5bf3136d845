"""The emulator: its folder, its parts, and how it comes up again after it was killed."""

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from aiprod_ops.adapters.local.instance import SOCKET_PATH_LIMIT, fits
from aiprod_ops.adapters.local.programs import Programs, find, reachable
from aiprod_ops.errors import ConfigurationError, Failed, Held, OpsError, Refused
from aiprod_ops.lab import ports
from aiprod_ops.lab.cloudsql import discovery, documents, faults, ledger, settings
from aiprod_ops.lab.cloudsql.backups import Backups
from aiprod_ops.lab.cloudsql.context import Context, Handler, Json, Request, page
from aiprod_ops.lab.cloudsql.faults import Faults
from aiprod_ops.lab.cloudsql.instances import Instances
from aiprod_ops.lab.cloudsql.ledger import Instance, Ledger, State
from aiprod_ops.lab.cloudsql.listener import Api, Listener
from aiprod_ops.lab.cloudsql.operations import Operations, lose
from aiprod_ops.lab.cloudsql.refusals import Refusal, absent
from aiprod_ops.lab.cloudsql.replication import Replication
from aiprod_ops.lab.cloudsql.roles import Roles
from aiprod_ops.lab.cloudsql.servers import Servers
from aiprod_ops.units import Seconds

PROJECT = "aiprod-lab"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Options:
    """How an emulator is run. A port of 0 is one that is free, and the same again after a restart."""

    project: str = ""  #: as it was, else `aiprod-lab`
    port: int = 0
    operation_time: Seconds = Seconds(1)
    postgres_bin: Path | None = None


class Emulator:
    """A running emulator. Enter it as a context: its own servers stop when that ends."""

    def __init__(self, folder: Path, options: Options | None = None, programs: Programs | None = None) -> None:
        options = options or Options()
        self.folder = folder.resolve()
        known = ledger.read(self.folder)
        self._lock = _claim(self.folder, known)
        try:
            self._assemble(known, options, programs or find(options.postgres_bin))
        except BaseException:
            os.close(self._lock)
            raise

    def _assemble(self, known: State | None, options: Options, programs: Programs) -> None:
        if not fits(self.folder / "s", 32_000):
            raise ConfigurationError(
                f"the path {self.folder} is too long for a socket (limit {SOCKET_PATH_LIMIT})",
                hint="name a shorter one with --folder DIR",
            )
        servers = Servers(self.folder, reachable(programs, self.folder))
        self.faults = Faults()
        self._ledger = Ledger(self.folder, _state(self.folder, known, options))
        self._operations = Operations(self._ledger, self.faults, options.operation_time, self.folder / "emulator.log")
        self.context = Context(self._ledger, self._operations, servers, Replication(servers), self.url)
        self._backups = Backups(self.context)
        self._roles = Roles(self.context)
        self._handlers: dict[str, Handler] = {
            **Instances(self.context).handlers,
            **self._backups.handlers,
            **self._roles.handlers,
            "sql.operations.get": self._operation,
            "sql.operations.list": self._list_operations,
        }
        api = Api(self._ledger.now.project, discovery.load(), self._handlers, self.faults)
        self._listener = Listener(self._ledger.now.port, api, self._control, self.faults)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ledger.now.port}"

    @property
    def state(self) -> State:
        return self._ledger.now

    def __enter__(self) -> Self:
        try:
            self._recover()
        except BaseException:
            self.stop()
            raise
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening, let operations end, stop our own servers. Adopted ones go on."""
        self._listener.stop()
        self._operations.stop()
        for instance in self._own():
            with suppress(OpsError):  # `lab down` stops them at the same time
                self.context.servers.of(instance).stop("fast")
        self.context.servers.clear_leftovers(self.state)
        os.close(self._lock)

    def adopt(self, instances: Mapping[str, Instance]) -> None:
        """Take servers of a lab in as instances, unless they are known already."""
        for name, instance in instances.items():
            if name not in self.state.instances:
                self._ledger.put(instance)
        self.context.servers.write_passwords(self.state)

    def _own(self) -> list[Instance]:
        return [each for each in self.state.instances.values() if not each.adopted]

    def _recover(self) -> None:
        """After a kill: what was under way is lost, what was half made has failed, servers serve again."""
        servers = self.context.servers
        servers.clear_leftovers(self.state)
        lost = [each for each in self.state.operations if each.status != "DONE"]
        was_busy = {name for each in lost for name in each.touches}
        lose(self._ledger)
        for operation in lost:
            try:
                self._roles.recover(operation)
            except OpsError:
                self.context.change(self.context.bare(operation.target), state="FAILED")
        for backup in self.state.backups:
            if backup.status in ("ENQUEUED", "RUNNING"):
                servers.remove_backup(backup)
                self._ledger.put(replace(backup, status="FAILED", error="The backup was lost."))
            elif backup.status == "DELETION_PENDING":
                self._ledger.put(replace(backup, status="DELETION_FAILED"))
        for name, instance in self.state.instances.items():
            self._revive(instance, was_busy=name in was_busy)
        servers.write_passwords(self.state)

    def _revive(self, instance: Instance, *, was_busy: bool) -> None:
        servers = self.context.servers
        server = servers.of(instance)
        state = "RUNNABLE" if instance.state == "RUNNABLE" else "FAILED"
        if settings.is_stopped(instance.settings):
            server.stop("fast")
            return
        try:
            if not server.is_running() and not (instance.adopted and not was_busy) and state == "RUNNABLE":
                server.start(timeout=Seconds(600))
        except OpsError:
            state = "FAILED" if was_busy else state
        if state != instance.state:
            self.context.change(instance.name, state=state)

    # Operations

    def _operation(self, request: Request) -> Json:
        for each in self.state.operations:
            if each.name == request.path["operation"]:
                return documents.operation(each, self.state, self.url)
        raise absent("Cloud SQL operation", "operationDoesNotExist")

    def _list_operations(self, request: Request) -> Json:
        wanted = self.context.bare(request.query.get("instance", ""))
        found = [each for each in reversed(self.state.operations) if wanted in ("", self.context.bare(each.target))]
        items = [documents.operation(each, self.state, self.url) for each in found]
        return page("sql#operationsList", items, request.query)

    # The lab's own endpoint, outside Google's names

    def _control(self, verb: str, path: str, body: bytes) -> Json | None:
        match verb, path:
            case "GET", "/lab":
                return self.described()
            case "GET", "/lab/faults":
                return {"faults": msgspec.to_builtins(self.faults.waiting)}
            case "POST", "/lab/faults":
                self.faults.add(_decoded(body, faults.Fault))
                return {"faults": msgspec.to_builtins(self.faults.waiting)}
            case "DELETE", "/lab/faults":
                self.faults.clear()
                return {"faults": []}
            case "POST", "/lab/backups":
                return self._age(_decoded(body, Aged))
        return None

    def described(self) -> Json:
        """Where everything is, for people and for tests."""
        found = []
        for instance in self.state.instances.values():
            server = self.context.servers.of(instance)
            entry: dict[str, Any] = {"name": instance.name, "host": "127.0.0.1", "port": instance.port}
            entry |= {"pid": server.pid if server.is_running() else None, "data": instance.data}
            found.append({**entry, "adopted": instance.adopted, "archive": instance.archive})
        backups = [{"id": each.id, "instance": each.instance, "folder": each.folder} for each in self.state.backups]
        head = {"url": self.url, "project": self.state.project, "passfile": str(self.folder / "pgpass")}
        return {**head, "pid": os.getpid(), "instances": found, "backups": backups}

    def _age(self, wanted: "Aged") -> Json:
        """Make a backup older than it is, or an automated one: policies look back for weeks, tests cannot."""
        backup = self._backups.find(wanted.instance, wanted.id)
        ago = timedelta(seconds=wanted.age_s)
        times = {name: getattr(backup, name) for name in ("enqueued", "started", "ended") if getattr(backup, name)}
        aged: dict[str, Any] = {
            name: documents.timestamp(datetime.fromisoformat(time) - ago) for name, time in times.items()
        }
        changed = replace(backup, **aged, type=wanted.type or backup.type)
        self._ledger.put(changed)
        return documents.backup(changed, self.state, self.url)


@dataclass(frozen=True, slots=True)
class Aged:
    """A backup that is to look older, or to be of another type (AUTOMATED)."""

    instance: str
    id: str
    age_s: float = 0.0
    type: Literal["", "AUTOMATED", "ON_DEMAND"] = ""


def _decoded(body: bytes, wanted: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.MsgspecError as error:
        raise Refusal(400, "invalid", str(error)) from error


def _claim(folder: Path, known: State | None) -> int:
    """Be the only emulator of a folder. Raises Refused for somebody else's files, Held for another emulator."""
    if known is None and folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise Refused(f"{folder} holds other files and is not an emulator's", hint="name an empty folder")
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Held(f"another emulator is at work in {folder}", hint="stop it, or name another folder") from None
    return descriptor


def _state(folder: Path, known: State | None, options: Options) -> State:
    """The state to begin with. Raises Failed where the port is taken, Refused for instances of another project."""
    if known and options.project not in ("", known.project):
        raise Refused(f"the instances in {folder} belong to the project {known.project}", hint="name another folder")
    port = options.port or (known.port if known else 0) or ports.free(folder)[0]
    if not ports.is_free(port):
        raise Failed(f"port {port} is taken", hint="name another one with --port N")
    return replace(known, port=port) if known else State(options.project or PROJECT, port)
