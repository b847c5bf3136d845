"""Run a program that waits for the disk after each file that it writes, without this wait: what it writes is thrown
away soon.

Run as a script, `python -I -S unsynced.py PROGRAM ARGS…` tells the kernel to answer fsync(2) and fdatasync(2) with
success at once, and becomes the program; where the kernel does not take that, the program is as it always is. What is
written can be read all the same, it only does not survive the machine.

Only the standard library, and nothing of this package: the script runs isolated from both.
Source: seccomp(2); systemd-nspawn(1), `--suppress-sync=`, does the same.
"""

import ctypes
import os
import shutil
import stat
import struct
import sys
from pathlib import Path

_CALLS = {
    "x86_64": (0xC000003E, 74, 75),
    "aarch64": (0xC00000B7, 82, 83),
}  #: the kernel's name for it, fsync, fdatasync
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  #: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
_ALLOW, _SUCCESS = 0x7FFF0000, 0x00050000  #: SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with no error
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVS = 22, 2, 38


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def command(argv: list[str]) -> list[str]:
    """The command line that runs `argv` that way; `argv` itself where it may be of no use, or do harm: one who is not
    root gives up that a program becomes another user, which a script may have in mind (sudo)."""
    found = shutil.which(argv[0])
    if not sys.platform.startswith("linux") or found is None or not _is_plain(Path(found)):
        return argv
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), found, *argv[1:]]


def _is_plain(program: Path) -> bool:
    """Neither a script nor one that becomes another user."""
    try:
        with program.open("rb") as file:
            return file.read(4) == b"\x7fELF" and not program.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    except OSError:
        return False


def suppress() -> bool:
    """Whether this process, and what it starts, waits for no disk from now on."""
    if os.uname().machine not in _CALLS or sys.maxsize < 2**32:
        return False
    architecture, *calls = _CALLS[os.uname().machine]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, 3, architecture), (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, 2, 0, calls[0]), (_EQUAL, 1, 0, calls[1]), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _SUCCESS)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    prctl = ctypes.CDLL(None).prctl
    program = ctypes.byref(_Filter(len(steps), code))
    zero, one, kind = ctypes.c_ulong(0), ctypes.c_ulong(1), ctypes.c_ulong(_FILTER)
    if prctl(_SET_SECCOMP, kind, program, zero, zero) == 0:
        return True
    # One who is not root has to give up first what a set-user-ID program would give him.
    prctl(_NO_NEW_PRIVS, one, zero, zero, zero)
    return bool(prctl(_SET_SECCOMP, kind, program, zero, zero) == 0)


def main(argv: list[str]) -> int:
    """Become the program; returns only when that failed."""
    suppress()
    try:
        os.execv(argv[0], argv)  # noqa: S606 - becoming the program is the point
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
