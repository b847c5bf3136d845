"""Where things are (instances, identities, folders) and what is promised (`service.toml`): read once, passed down."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from aiprod_ops.domain.approvals import StandingApproval
from aiprod_ops.domain.findings import Waiver
from aiprod_ops.errors import ConfigurationError, UsageError


@dataclass(frozen=True)
class Promises:
    """The content of `service.toml`: tiers, objectives, retention. Values are addressed by a dotted path."""

    values: Mapping[str, Any]
    origin: str

    def get(self, path: str) -> Any:
        """The value at a path such as `database.statement_mean`; raises ConfigurationError when there is none."""
        value: Any = self.values
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ConfigurationError(f"{self.origin} has no value for {path!r}", hint="copy it from the default")
            value = value[part]
        return value


@dataclass(frozen=True)
class ServerPlace:
    """One server of a target that has several on this machine: its data directory, a superuser's DSN that leads to it
    alone, and what a standby needs beside host and port to stream from another (user, passfile). On Cloud SQL `admin`
    is all, and of that the host and the port: an instance that is reached through a proxy."""

    admin: str
    data_directory: str = ""
    upstream: str = ""
    log: str = ""


@dataclass(frozen=True)
class PatroniMember:
    """One member: its REST API's URL, and `HOST:PORT` of its PostgreSQL. Patroni itself forgets both of one that is
    dead, when it is needed most."""

    api: str
    postgres: str


@dataclass(frozen=True)
class PatroniPlace:
    """A cluster that Patroni runs: its members by the names that Patroni knows them by.

    `user` and `password` (`env:NAME` or `file:PATH`) are for calls that change something; `ca` is the file of the
    certificates that an https API is checked with. `watchdog` says that each member has `watchdog.mode: required`: then
    one that has lost the leader lock is fenced, although nothing of it can be reached.
    """

    members: Mapping[str, PatroniMember]
    user: str = ""
    password: str = ""
    ca: str = ""
    watchdog: bool = False

    def secret(self) -> str:
        """The password; read no earlier than it is needed. Raises ConfigurationError."""
        kind, _, name = self.password.partition(":")
        try:
            found = os.environ.get(name, "") if kind == "env" else Path(name).read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"the password for Patroni cannot be read from {name}: {error.strerror}"
            ) from error
        if not found:
            raise ConfigurationError(f"the password for Patroni is empty: {self.password}")
        return found


@dataclass(frozen=True)
class WritesPlace:
    """How the application finds the primary: pgbouncer's admin console, its file and the entry in it; or two commands,
    of which one shows HOST:PORT and the other sets it, with `{host}`, `{port}` and `{name}` in its words."""

    pgbouncer: str = ""
    file: str = ""
    database: str = ""
    show: tuple[str, ...] = ()
    point: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One instance: how to reach it with which identity.

    `probe` reads, `actor` changes, `backup` takes base backups. Each is a DSN, or `env:NAME`; `dsn` resolves it no
    earlier than it is needed. Passwords belong in a passfile or the environment. `log` is the server's JSON log where
    it can be read as files, `copies` where disposable copies are restored, `migrations` the Alembic versions folder
    that gets new revisions, `postgres_bin` the programs of the server's major version. `backups` is where stored
    backups are: a folder, with the folder that archive_command fills as `archive`, or `pgbackrest:STANZA`. On the
    platform `cloudsql` the instance is named by `project` and `instance`; `endpoint` is Google's API unless it is said.
    `servers` are primary and standbys by name, where they are on this machine and may be switched over; `patroni` are
    those that Patroni moves. `writes` is how the application finds the primary, where its own DSN does not name them
    all. `app` is the API's own DSN, `redis` the URL of its Redis, or `file:PATH` of a file that holds it.
    """

    name: str
    probe: str
    actor: str = ""
    backup: str = ""
    environment: str = "production"
    platform: str = "local"
    postgres_bin: str = ""
    data_directory: str = ""
    copies: str = ""
    log: str = ""
    migrations: str = ""
    replicas: tuple[str, ...] = ()
    backups: str = ""
    archive: str = ""
    project: str = ""
    instance: str = ""
    endpoint: str = ""
    servers: Mapping[str, ServerPlace] = field(default_factory=dict)
    patroni: PatroniPlace | None = None
    writes: WritesPlace | None = None
    app: str = ""
    redis: str = ""

    @property
    def stored(self) -> str:
        """Where its backups are, as a plan names it."""
        return f"{self.project}/{self.instance}" if self.instance else self.backups

    @property
    def is_for_drills(self) -> bool:
        """Whether things may be broken here: a drill refuses every other target, and none is scheduled there."""
        return self.environment in ("lab", "drill")

    def variables(self, *, acts: bool) -> tuple[str, ...]:
        """Environment variables that its DSNs are taken from, sorted; the actor's only where something `acts`, or where
        it has to copy for want of a backup identity."""
        dsns = (self.probe, *self.replicas, self.backup or self.actor, *(self._to_act if acts else ()))
        return tuple(sorted({dsn.removeprefix("env:") for dsn in dsns if dsn.startswith("env:")}))

    @property
    def _to_act(self) -> tuple[str, ...]:
        return (self.actor, self.patroni.password if self.patroni else "")

    def dsn(self, identity: str) -> str:
        """The DSN of `probe`, `actor`, `backup` or `app`; raises ConfigurationError when the target has none."""
        value = str(getattr(self, identity))
        if value.startswith("env:"):
            name = value.removeprefix("env:")
            value = os.environ.get(name, "")
            if not value:
                raise ConfigurationError(f"target {self.name!r}: ${name}, its {identity} DSN, is not set")
        if not value:
            raise ConfigurationError(
                f"target {self.name!r} has no {identity} identity",
                hint=f'add {identity} = "postgresql://…" to its configuration, or give --{identity}-dsn',
            )
        return value

    def redis_url(self) -> str:
        """The URL of its Redis, "" where it names none; a file is read no earlier than it is needed."""
        kind, _, place = self.redis.partition(":")
        if kind != "file":
            return self.redis
        try:
            return Path(place).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(
                f"target {self.name!r}: the URL of its Redis cannot be read from {place}: {error.strerror}"
            ) from error


_NOWHERE = "no configuration file"


@dataclass(frozen=True)
class Settings:
    """The one settings object."""

    state: Path
    targets: Mapping[str, Target]
    runbook_folders: tuple[Path, ...] = ()
    service: Path | None = None
    waivers: tuple[Waiver, ...] = ()
    standing_approvals: tuple[StandingApproval, ...] = ()
    origin: str = _NOWHERE

    @cached_property
    def promises(self) -> Promises:
        """The shipped `service.toml`, and over it what the user's own says: a promise that is new has a default."""
        shipped = tomllib.loads(resources.files("aiprod_ops").joinpath("service.toml").read_text())
        if self.service is None:
            return Promises(shipped, "the shipped service.toml")
        own = _read_toml(self.service)
        merged = {name: {**shipped.get(name, {}), **table} for name, table in own.items() if isinstance(table, dict)}
        return Promises({**shipped, **own, **merged}, str(self.service))

    def target(self, name: str) -> Target:
        """A target by name; the only one when the name is empty."""
        if name in self.targets:
            return self.targets[name]
        known = ", ".join(sorted(self.targets)) or "none"
        if not name and len(self.targets) == 1:
            return next(iter(self.targets.values()))
        if not name and self.targets:
            raise UsageError(f"which instance? {self.origin} names {known}", hint="add --target NAME")
        if not self.targets:
            named = "there is no configuration file" if self.origin == _NOWHERE else f"{self.origin} names none"
            raise ConfigurationError(
                f"there is no instance to work on: {named}",
                hint="give its DSN (--dsn; --app-dsn for the API), name it in a configuration, or: aiprod-ops lab up",
            )
        raise ConfigurationError(f"{self.origin} has no target {name!r}; it names {known}")


def default_state(environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Where state is kept unless the configuration says otherwise: $AIPROD_OPS_STATE, else where the system wants it.

    Source: FHS 3.0 (/var/lib), XDG Base Directory Specification (XDG_STATE_HOME).
    """
    if environ.get("AIPROD_OPS_STATE"):
        return Path(environ["AIPROD_OPS_STATE"]).absolute()
    if is_root:
        return Path("/var/lib/aiprod-ops")
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/tmp")) / ".local/state")  # noqa: S108
    return Path(base) / "aiprod-ops"


_TOML = {str: "string", list: "list of strings", dict: "table"}


def load(path: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration: `path`, $AIPROD_OPS_CONFIG, the user's file, the running lab's, or none at all.

    Never the working directory: a folder somebody cloned must not decide what we run. Raises ConfigurationError.
    """
    environ = os.environ if environ is None else environ
    state = default_state(environ, is_root=os.geteuid() == 0)
    named = path or environ.get("AIPROD_OPS_CONFIG", "")
    if named:
        return _settings(Path(named), state)
    config_home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    for candidate in (Path(config_home) / "aiprod-ops/config.toml", state / "lab/aiprod-ops.toml"):
        if candidate.is_file():
            return _settings(candidate, state)
    return Settings(state=state, targets={})


def load_lab(environ: Mapping[str, str] | None = None) -> Settings | None:
    """The configuration of the lab that runs in the default folder, if one does."""
    state = default_state(os.environ if environ is None else environ, is_root=os.geteuid() == 0)
    path = state / "lab/aiprod-ops.toml"
    return _settings(path, state) if path.is_file() else None


def _settings(path: Path, state: Path) -> Settings:
    content = _read_toml(path)
    known = {"state", "runbooks", "service", "targets", "waivers", "standing_approvals"}
    if unknown := sorted(set(content) - known):
        raise ConfigurationError(f"{path} has unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    lists = [(key, list) for key in ("runbooks", "waivers", "standing_approvals")]
    for key, wanted in (("state", str), ("service", str), ("targets", dict), *lists):
        if not isinstance(content.get(key, wanted()), wanted):
            raise ConfigurationError(f"{path}: {key} is {content[key]!r}, expected a {_TOML[wanted]}")
    targets = {name: _target(path, name, table) for name, table in content.get("targets", {}).items()}
    here = path.parent
    return Settings(
        state=here / content["state"] if "state" in content else state,
        targets=targets,
        runbook_folders=tuple(here / folder for folder in content.get("runbooks", ())),
        service=here / content["service"] if "service" in content else None,
        waivers=tuple(_waiver(path, table) for table in content.get("waivers", ())),
        standing_approvals=tuple(_standing(path, table, targets) for table in content.get("standing_approvals", ())),
        origin=str(path),
    )


def _target(path: Path, name: str, table: Mapping[str, Any]) -> Target:
    known = {f.name for f in fields(Target)} - {"name"}
    if unknown := sorted(set(table) - known):
        raise ConfigurationError(
            f"{path}: target {name!r} has unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    if not table.get("probe"):
        raise ConfigurationError(f"{path}: target {name!r} has no `probe` DSN", hint='add probe = "postgresql://…"')
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    folders = [*_PATHS, *([] if plain.get("backups", "").startswith(PGBACKREST) else ["backups"])]
    plain |= {key: str(path.parent / plain[key]) for key in folders if plain.get(key)}
    if plain.get("redis", "").startswith("file:"):
        plain["redis"] = f"file:{path.parent / plain['redis'].removeprefix('file:')}"
    if plain.get("backups", "").startswith(PGBACKREST):
        _check_stanza(path, name, plain)
    is_remote = plain.get("platform") == "cloudsql"
    plain["servers"] = {
        each: _server(path, name, each, value, is_remote=is_remote) for each, value in plain.get("servers", {}).items()
    }
    plain["writes"] = _writes(path, name, plain["writes"]) if "writes" in plain else None
    if "patroni" in plain:
        plain["patroni"] = _patroni(path, name, plain["patroni"])
        if plain["servers"]:
            raise ConfigurationError(f"{path}: target {name!r} has both `servers` and `patroni`: one moves the primary")
    return Target(name=name, **plain)


_PATRONI = {"user": str, "password": str, "ca": str, "watchdog": bool}
_MEMBER = {"api": str, "postgres": str}
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\s]+):\d+")


def _patroni(path: Path, target: str, table: Any) -> PatroniPlace:
    """A target's `patroni` table. What it lacks is named, with what it should look like."""
    given = table if isinstance(table, dict) else {}
    where, plain = f"{path}: `patroni` of target {target!r}", {key: given[key] for key in given if key != "members"}
    if wrong := sorted(key for key, value in plain.items() if type(value) is not _PATRONI.get(key)):
        known = ", ".join(("members", *_PATRONI))
        raise ConfigurationError(
            f"{where} has a wrong {', '.join(wrong)}; it may have {known} (watchdog is true or false)"
        )
    members = given.get("members") if isinstance(given.get("members"), dict) else {}
    if not members:
        raise ConfigurationError(f"{where} names no members", hint=_MEMBERS)
    for name, member in members.items():
        table = member if isinstance(member, dict) else {}
        is_place = _PLACE.fullmatch(str(table.get("postgres", "")))
        if _wrong(table, _MEMBER) or set(table) - set(_MEMBER) or not is_place:
            raise ConfigurationError(f"{where}: the member {name!r} is not an API and a HOST:PORT", hint=_MEMBERS)
        if not table["api"].startswith(("http://", "https://")):
            raise ConfigurationError(f"{where}: the member {name!r} has the API {table['api']!r}", hint=_MEMBERS)
    password = plain.get("password", "")
    if bool(password) != bool(plain.get("user")) or (password and not password.startswith(("env:", "file:"))):
        raise ConfigurationError(
            f"{where}: `user` and `password` belong together, and a password is no part of this file",
            hint='password = "env:NAME" or password = "file:/a/path"',
        )
    if password.startswith("file:"):
        plain["password"] = f"file:{path.parent / password.removeprefix('file:')}"
    if plain.get("ca"):
        plain["ca"] = str(path.parent / plain["ca"])
    return PatroniPlace({name: PatroniMember(**member) for name, member in members.items()}, **plain)


_MEMBERS = 'members.NAME = { api = "http://10.0.0.1:8008", postgres = "10.0.0.1:5432" }, with the names Patroni knows'


def _writes(path: Path, target: str, table: Any) -> WritesPlace:
    given = dict(table) if isinstance(table, dict) else {}
    by_bouncer = set(given) == {"pgbouncer", "file", "database"} and all(isinstance(v, str) for v in given.values())
    by_command = set(given) == {"show", "point"} and all(
        isinstance(words, list) and words and all(isinstance(word, str) for word in words) for words in given.values()
    )
    if not (by_bouncer or by_command):
        raise ConfigurationError(
            f"{path}: [targets.{target}.writes] has {', '.join(sorted(given)) or 'nothing'}, expected either the texts "
            "pgbouncer, file and database, or the lists of words show and point"
        )
    if by_bouncer:
        return WritesPlace(**{**given, "file": str(path.parent / given["file"])})
    return WritesPlace(show=tuple(given["show"]), point=tuple(given["point"]))


def _server(path: Path, target: str, name: str, table: Any, *, is_remote: bool) -> ServerPlace:
    given = table if isinstance(table, dict) else {}
    wrong = _wrong(given, {"admin": str} if is_remote else {"data_directory": str, "admin": str})
    known = {"admin"} if is_remote else {each.name for each in fields(ServerPlace)}
    if wrong or set(given) - known:
        expected = "admin, a DSN's host and port" if is_remote else "data_directory, admin, and maybe upstream, log"
        raise ConfigurationError(
            f"{path}: the server {name!r} of target {target!r} has {', '.join(sorted(given)) or 'nothing'}, expected "
            f"{expected}; look at {', '.join(wrong) or 'its other keys'}"
        )
    return ServerPlace(
        **{**given, **({} if is_remote else {"data_directory": str(path.parent / given["data_directory"])})}
    )


def _check_stanza(path: Path, name: str, table: Mapping[str, Any]) -> None:
    stanza = table["backups"].removeprefix(PGBACKREST)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", stanza):
        raise ConfigurationError(
            f"{path}: target {name!r} names the stanza {stanza!r}",
            hint='backups = "pgbackrest:STANZA", as `pgbackrest info` lists it',
        )
    if table.get("archive"):
        raise ConfigurationError(
            f"{path}: target {name!r} has an `archive` beside the stanza {stanza}",
            hint="take it out: pgBackRest has the WAL in its own repository",
        )


PGBACKREST = "pgbackrest:"  #: before the name of a stanza
_PATHS = (
    "postgres_bin",
    "data_directory",
    "copies",
    "log",
    "migrations",
    "archive",
)  #: relative to the file that names them


_WAIVER = {"finding": str, "until": date, "reason": str}


def _waiver(path: Path, table: Any) -> Waiver:
    """A `[[waivers]]` table. One without an end or a reason is refused: nobody would find it again."""
    given = table if isinstance(table, dict) else {}
    wrong = _wrong(given, _WAIVER)
    if wrong or set(given) - {*_WAIVER, "target"}:
        raise ConfigurationError(
            f"{path}: a waiver has {', '.join(sorted(given)) or 'nothing'}, expected finding, until, reason, and maybe "
            f"target; look at {', '.join(wrong) or 'its other keys'}",
            hint='[[waivers]] finding = "an id that check prints", until = 2027-01-31, reason = "…"',
        )
    return Waiver(given["finding"], given["until"], given["reason"], str(given.get("target", "")))


def _wrong(given: Mapping[str, Any], wanted: Mapping[str, type]) -> list[str]:
    """Keys that are missing, empty, or of another type; a moment is no day."""
    return [key for key, kind in wanted.items() if type(given.get(key)) is not kind or not given[key]]


_STANDING = {"runbook": str, "target": str, "until": date, "by": str, "reason": str}


def _standing(path: Path, table: Any, targets: Mapping[str, Target]) -> StandingApproval:
    """A `[[standing_approvals]]` table. All of it has to be there, and it names a target that is: no pattern."""
    given = table if isinstance(table, dict) else {}
    wrong = _wrong(given, _STANDING)
    if wrong or set(given) - set(_STANDING):
        raise ConfigurationError(
            f"{path}: a standing approval has {', '.join(sorted(given)) or 'nothing'}, expected "
            f"{', '.join(_STANDING)}; look at {', '.join(wrong) or 'its other keys'}",
            hint='[[standing_approvals]] runbook = "take-backup", target = "NAME", until = 2027-01-31, by = "…", '
            'reason = "…"',
        )
    if given["target"] not in targets:
        raise ConfigurationError(
            f"{path}: a standing approval names the target {given['target']!r}; there are: "
            f"{', '.join(sorted(targets)) or 'none'}"
        )
    return StandingApproval(**given)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
