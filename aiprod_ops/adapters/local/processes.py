"""Processes that belong to a folder: how they are found when nobody remembers them, and how they are stopped.

Everything that is started below a folder has its working directory there (PostgreSQL changes into its data directory
by itself), so a process is found even after the one that started it was killed.
"""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from aiprod_ops.errors import ConfigurationError, Failed
from aiprod_ops.units import Seconds

if TYPE_CHECKING:
    from psutil import Process

SERVERS = (
    "postgres",
    "initdb",
    "pg_ctl",
    "pg_basebackup",
    "pg_rewind",
    "pg_verifybackup",
    "pg_waldump",
    "pgbackrest",
    "redis-server",
    "etcd",
)
OURS = (
    "aiprod_ops.lab",
    "aiprod_ops.adapters.local.migrating",
    "unprivileged.py",
    "-m patroni",
    "unsynced.py",
)  #: in the command line of a Python process that we started


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: Seconds = Seconds(600),
    inherits: bool = True,
    is_enough: Callable[[], bool] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in a process group of its own; if we are interrupted, the whole group is killed.

    `env` is added to ours, or is all there is unless it `inherits`. A program that only waits is killed, and counts as
    ended well, once it `is_enough`. Raises subprocess.TimeoutExpired.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**(os.environ if inherits else {}), **(env or {}), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",  # a program may quote what is no text, of a damaged file for example
        start_new_session=True,
    ) as child:
        try:
            if is_enough is not None:
                wait_until(lambda: is_enough() or child.poll() is not None, timeout)
                if child.poll() is None and is_enough():
                    child.kill()
                    return subprocess.CompletedProcess(command, 0, "", "")
            out, err = child.communicate(timeout=timeout)
        except BaseException:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(child.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def in_parallel(*work: Callable[[], object]) -> None:
    """Run functions side by side, wait for all of them, and raise the first error."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    threads = [Thread(target=guarded, args=(function,), daemon=True) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@dataclass(frozen=True, slots=True)
class Found:
    """A process, as it was when it was found."""

    pid: int
    name: str


def below(folder: Path) -> list[Found]:
    """Living processes of ours whose working directory is in or below a folder.

    A shell or a pager that somebody opened there is not ours.
    """
    try:
        import psutil
    except ImportError as error:
        raise ConfigurationError(
            "finding processes by their folder needs the package psutil", hint="pip install 'aiprod-ops[lab]'"
        ) from error
    root = folder.resolve()
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(root) and _is_ours(process):
                found.append(Found(process.pid, process.name()))
        except (psutil.Error, OSError):
            continue  # it ended while we looked, or it is not ours to look at
    return found


def _is_ours(process: "Process") -> bool:
    if process.name() in SERVERS:
        return True
    line = " ".join(process.cmdline())
    return any(mark in line for mark in OURS)


def end_below(folder: Path) -> None:
    """Kill what outlived its run in a folder that may not be there. Raises Failed where it does not end."""
    if not folder.exists():
        return
    for each in below(folder):
        with suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    if not wait_until(lambda: not below(folder), Seconds(10)):
        raise Failed(f"processes in {folder} do not end, even when killed")


def stop(folder: Path, patience: Seconds = Seconds(5)) -> list[str]:
    """Stop every process of ours below a folder: asked first, killed after `patience`; answers what was stopped.

    PostgreSQL is asked for an immediate shutdown: that frees its shared memory, and nobody needs its data any more.
    Raises Failed when one does not even end when it is killed.
    """
    stopped: dict[int, str] = {}
    deadline = time.monotonic() + patience
    while processes := below(folder):
        is_late = time.monotonic() > deadline
        for process in processes:
            stopped[process.pid] = process.name
            _signal(process.pid, [signal.SIGKILL] if is_late else _polite(process))
        wait_until(lambda: not below(folder), Seconds(1))
        if time.monotonic() > deadline + 10:
            names = ", ".join(f"{process.name} (pid {process.pid})" for process in processes)
            raise Failed(f"these processes in {folder} do not end, even when killed: {names}")
    return [f"{name} ({count} processes)" if count > 1 else name for name, count in Counter(stopped.values()).items()]


def end(process: Found, patience: Seconds = Seconds(5)) -> None:
    """End one process: asked first, killed after `patience`."""
    import psutil

    _signal(process.pid, _polite(process))
    wait_until(lambda: not psutil.pid_exists(process.pid), patience)
    _signal(process.pid, [signal.SIGKILL])


def _polite(process: Found) -> list[signal.Signals]:
    # A stopped process (SIGSTOP) acts on signals only after SIGCONT.
    ask = signal.SIGQUIT if process.name == "postgres" else signal.SIGTERM
    return [ask, signal.SIGCONT]


def _signal(pid: int, signals: Iterable[signal.Signals]) -> None:
    for number in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def wait_until(condition: Callable[[], bool], patience: Seconds) -> bool:
    """Whether it comes true before the patience ends. What comes soon is soon seen: each pause is a tenth of the wait
    so far."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > patience:
            return False
        time.sleep(min(max(waited / 10, 0.003), 0.1))
    return True
