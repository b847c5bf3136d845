"""Run a program as somebody who is not root, without adding a system user or opening a folder.

PostgreSQL refuses to serve as root. Run as a script, `python -I -S unprivileged.py WAY PROGRAM ARGS…` gives up root and
becomes the program:

- `namespace`: a user namespace in which root is called `nobody`. Files stay root's, no capability is left (Linux).
- `nobody`: `setuid` to the user nobody, for where namespaces are refused (Docker's default seccomp profile). Whatever
  the program has to reach must then be open to nobody, and what it writes must be given to it.

Only the standard library, and nothing of this package: the script runs isolated from both.
Source: user_namespaces(7), "User and group ID mappings"; initdb and postgres refuse `geteuid() == 0`.
"""

import ctypes
import os
import subprocess
import sys
from enum import Enum
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
NOBODY = 65534  #: where the user database does not know nobody
REFUSED = 125  #: the script's exit code when root could not be given up


class Way(Enum):
    """How a server's program is run so that it is not root."""

    DIRECT = "direct"  #: we are not root
    NAMESPACE = "namespace"
    NOBODY = "nobody"


@cache
def way() -> Way:
    """The way that works here, tried once. Raises PermissionError where neither does."""
    if os.geteuid() != 0:
        return Way.DIRECT
    reasons = []
    for candidate in (Way.NAMESPACE, Way.NOBODY):
        attempt = command(candidate, ["/bin/sh", "-c", ":"])
        tried = subprocess.run(attempt, check=False, capture_output=True, text=True, cwd="/")
        if tried.returncode == 0:
            return candidate
        reasons.append(f"{candidate.value}: {tried.stderr.strip()}")
    raise PermissionError("this process is root and cannot give it up (" + "; ".join(reasons) + ")")


def command(how: Way, argv: list[str]) -> list[str]:
    """The command line that runs `argv` that way."""
    if how is Way.DIRECT:
        return argv
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), how.value, *argv]


def hand_over(how: Way, path: Path) -> None:
    """Give a file or a whole tree to the user that the program will be; symbolic links are not followed."""
    if how is not Way.NOBODY:
        return
    user, group = nobody()
    os.lchown(path, user, group)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.lchown(Path(folder, name), user, group)


def nobody() -> tuple[int, int]:
    """User and group number of nobody. Programs such as initdb look the number up and want a name for it."""
    import pwd

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def enter_namespace() -> None:
    """Become nobody in a user namespace of our own, where nobody is the root we were."""
    outside_user, outside_group = os.geteuid(), os.getegid()
    user, group = nobody()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {outside_user} 1"),
        ("gid_map", f"{group} {outside_group} 1"),
    ):
        Path("/proc/self", name).write_text(text, encoding="ascii")


def become_nobody() -> None:
    """Become the user nobody for good."""
    user, group = nobody()
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def main(arguments: list[str]) -> int:
    """Give up root the way the first argument says and become the rest; returns only when that failed."""
    how, *argv = arguments
    try:
        {"namespace": enter_namespace, "nobody": become_nobody}[how]()
    except (OSError, AttributeError) as error:  # AttributeError: a C library without unshare
        sys.stderr.write(f"{error}\n")
        return REFUSED
    try:
        os.execv(argv[0], argv)  # noqa: S606 - becoming the program is the point
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
