"""A real Patroni cluster on loopback: etcd, and members that each run a PostgreSQL of the lab's programs.

Patroni is the package from PyPI, etcd the program of the system's package. The first member makes the cluster and the
others copy it, as anywhere; only the times are shorter: the lock holds 20 s, the least that Patroni lets one choose.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import urllib3
import yaml

from aiprod_ops.adapters.local import processes, unprivileged
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import Programs, complaint, find, reachable
from aiprod_ops.errors import ConfigurationError, Failed
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab import ports, postgres
from aiprod_ops.units import Seconds

SCOPE = "lab"
NAMES = ("pg1", "pg2", "pg3")
API_USER = "ops"
TTL, LOOP_WAIT, RETRY = 20, 1, 3  #: seconds; 2 × RETRY + LOOP_WAIT may not be more than TTL
_HBA = (
    "local all all trust",  # the folder of the sockets is closed to everybody else
    "host all all 127.0.0.1/32 scram-sha-256",
    "host replication replicator 127.0.0.1/32 scram-sha-256",
)


def lacks() -> str:
    """What is not there that this needs, '' where all is."""
    if find_spec("patroni") is None:
        return "the package patroni[etcd3]"
    return "" if shutil.which("etcd") else "the program etcd (Debian: etcd-server)"


@dataclass(frozen=True)
class Member:
    """One member: its Patroni and its server, both below `folder`."""

    name: str
    folder: Path
    api_port: int
    server: PostgresServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def patroni(self) -> list[int]:
        """Its Patroni's process, where it lives."""
        return [each.pid for each in processes.below(self.folder) if each.name not in processes.SERVERS]

    def kill(self) -> None:
        """Patroni first, which would start its server again; then the server with all its processes."""
        for living in (self.patroni, lambda: [each.pid for each in processes.below(self.folder)]):
            while pids := living():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                _reap()
                time.sleep(0.02)

    @contextmanager
    def frozen_patroni(self) -> Iterator[None]:
        """Its Patroni holds its connections and answers nothing; its server goes on."""
        pids = self.patroni()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


class PatroniLab:
    """A cluster that runs. `passwords` are those of the roles, and of the API under its user."""

    def __init__(self, folder: Path, programs: Programs, etcd_port: int, members: tuple[Member, ...]) -> None:
        self.folder, self.programs, self._etcd_port, self.members = folder, programs, etcd_port, members
        self.passwords: dict[str, str] = {}
        self._pool = urllib3.PoolManager(retries=False, timeout=3)

    def __getitem__(self, name: str) -> Member:
        return next(each for each in self.members if each.name == name)

    @property
    def passfile(self) -> Path:
        return self.folder / "passwords"

    @property
    def config(self) -> Path:
        return self.folder / "aiprod-ops.toml"

    def dsn(self, role: str, name: str = "", **more: str) -> str:
        """To one member; without a name to whichever takes writes."""
        found = [self[name]] if name else list(self.members)
        hosts, at = ",".join("127.0.0.1" for _ in found), ",".join(str(each.server.port) for each in found)
        words = {"host": hosts, "port": at, "user": role, "dbname": postgres.DATABASE, "passfile": str(self.passfile)}
        words |= {} if name else {"target_session_attrs": "read-write"}
        return " ".join(f"{key}={value}" for key, value in {**words, "connect_timeout": "2", **more}.items())

    # What Patroni says

    def cluster(self) -> dict[str, Any]:
        """`/cluster` of the first member that answers; {} where none does."""
        for member in self.members:
            with suppress(urllib3.exceptions.HTTPError, ValueError):
                response = self._pool.request("GET", f"{member.url}/cluster")
                if response.status == 200:
                    return dict(json.loads(response.data))
        return {}

    def leader(self) -> str:
        """Who holds the lock; '' where nobody does."""
        return next((each["name"] for each in self.cluster().get("members", ()) if each["role"] == "leader"), "")

    def is_whole(self) -> bool:
        """Whether one leads, and all others stream from it on its timeline."""
        members = self.cluster().get("members", [])
        leads = [each for each in members if each["role"] == "leader" and each["state"] == "running"]
        streams = [each for each in members if each["state"] == "streaming"]
        lines = {each.get("timeline") for each in members}
        return (len(leads), len(streams), len(lines)) == (1, len(self.members) - 1, 1)

    def set(self, **settings: Any) -> None:
        """Change the cluster's own configuration, such as `pause`."""
        headers = urllib3.util.make_headers(basic_auth=f"{API_USER}:{self.passwords[API_USER]}")
        response = self._pool.request("PATCH", f"{self.members[0].url}/config", json=settings, headers=headers)
        if response.status != 200:
            raise Failed(f"Patroni does not take {settings}: {response.status}")

    # Up and down

    def start(self, name: str) -> None:
        """Start a member's Patroni, which starts its server."""
        member = self[name]
        argv = [sys.executable, "-m", "patroni", str(member.folder / "patroni.yml")]
        _spawn(unprivileged.command(self.programs.way, argv), member.folder, member.folder / "patroni.log")

    def up(self) -> None:
        self._start_etcd()
        for member in self.members:
            member.folder.mkdir(mode=0o700)
            member.server.sockets.mkdir(mode=0o700)
            text = yaml.safe_dump(self._settings(member))
            folders.write(member.folder / "patroni.yml", text, 0o600)
            self.programs.hand_over(member.folder)
        self.start(NAMES[0])
        self._await(lambda: self.leader() == NAMES[0], NAMES[0])
        postgres.create_roles(self.members[0].server, {n: w for n, w in self.passwords.items() if n in postgres.ROLES})
        for name in NAMES[1:]:
            self.start(name)
        self._await(self.is_whole, NAMES[-1])

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._etcd_port + 1}"
        data = self.folder / "etcd"
        data.mkdir(mode=0o700)
        options = {
            "name": SCOPE, "data-dir": str(data), "listen-client-urls": client, "advertise-client-urls": client,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": f"{SCOPE}={peer}",
            "log-level": "error",
        }  # fmt: skip
        program = shutil.which("etcd")
        if program is None:
            raise ConfigurationError(f"Patroni needs {lacks()}")
        _spawn([program, *(f"--{key}={value}" for key, value in options.items())], data, self.folder / "etcd.log")

    def _await(self, is_there: Callable[[], bool], name: str) -> None:
        if not processes.wait_until(is_there, Seconds(60)):
            said = complaint((self[name].folder / "patroni.log").read_text(errors="replace"))
            raise Failed(f"the Patroni cluster in {self.folder} does not come up: {said}")

    def _settings(self, member: Member) -> Mapping[str, Any]:
        passwords = self.passwords
        own = {"unix_socket_directories": str(member.server.sockets), "unix_socket_permissions": "0700"}
        serving = {
            "wal_retrieve_retry_interval": "100ms", "wal_keep_size": "256MB", "max_wal_size": "2GB",
            "shared_buffers": "64MB", "dynamic_shared_memory_type": "mmap", "track_commit_timestamp": "on",
        }  # fmt: skip
        return {
            "scope": SCOPE,
            "name": member.name,
            "etcd3": {"host": f"127.0.0.1:{self._etcd_port}"},
            "restapi": {
                "listen": f"127.0.0.1:{member.api_port}",
                "connect_address": f"127.0.0.1:{member.api_port}",
                "authentication": {"username": API_USER, "password": passwords[API_USER]},
            },
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": LOOP_WAIT,
                    "retry_timeout": RETRY,
                    "postgresql": {"use_pg_rewind": True, "parameters": serving},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{member.server.port}",
                "connect_address": f"127.0.0.1:{member.server.port}",
                "data_dir": str(member.server.data),
                "bin_dir": str(self.programs.bin),
                "pgpass": str(member.folder / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": passwords["postgres"]},
                    "replication": {"username": "replicator", "password": passwords["replicator"]},
                },
                "parameters": own,
                "pg_hba": list(_HBA),
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            },
            "watchdog": {"mode": "off"},
        }

    def write_configuration(self) -> Path:
        """A configuration with the one target `lab`, whose cluster this is."""
        probe, actor = (json.dumps(self.dsn(role)) for role in ("aiprod_probe", "aiprod_actor"))
        lines = [
            'state = "state"',
            "[targets.lab]",
            'environment = "lab"',
            f"probe = {probe}",
            f"actor = {actor}",
            "[targets.lab.patroni]",
            f'user = "{API_USER}"',
            'password = "file:api-password"',
            "[targets.lab.patroni.members]",
        ]
        lines += [
            f'{name} = {{ api = "{url}", postgres = "127.0.0.1:{port}" }}'
            for name, url, port in ((each.name, each.url, each.server.port) for each in self.members)
        ]
        folders.write(self.folder / "api-password", self.passwords[API_USER] + "\n", 0o600)
        folders.write(self.config, "\n".join(lines) + "\n", 0o600)
        return self.config


@contextmanager
def cluster(folder: Path, postgres_bin: Path | None = None) -> Iterator[PatroniLab]:
    """A cluster in an empty folder whose path is short; nothing of it lives when the context ends."""
    folder.mkdir(mode=0o711)
    programs = reachable(find(postgres_bin), folder)
    numbers = ports.free(folder, 2 * len(NAMES) + 2)
    etcd = _pair(numbers)
    left = [each for each in numbers if each not in (etcd, etcd + 1)]
    members = []
    for name, api_port, port in zip(NAMES, left[::2], left[1::2], strict=True):
        home = folder / name
        server = PostgresServer(programs, home / "data", home / "s", port, home / "patroni.log")
        members.append(Member(name, home, api_port, server))
    lab = PatroniLab(folder, programs, etcd, tuple(members))
    lab.passwords = postgres.write_passwords(lab.passfile, folder / "replication")
    lab.passwords |= {name: lab.passwords["aiprod_backup"][::-1] + name for name in (API_USER, "replicator")}
    try:
        lab.up()
        lab.write_configuration()
        yield lab
    finally:
        for member in lab.members:
            member.kill()
        processes.stop(folder)
        _reap()


def _pair(numbers: list[int]) -> int:
    found = next((each for each in numbers if each + 1 in numbers), None)
    if found is None:
        raise Failed("there are no two free ports beside each other")
    return found


def _spawn(argv: list[str], folder: Path, log: Path) -> None:
    """Start a program in a folder, in a session of its own; its output goes to a file."""
    with log.open("ab") as out:
        _children.append(
            subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
            )
        )


_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    """Take note of children that ended: until then their numbers look alive."""
    _children[:] = [each for each in _children if each.poll() is None]
