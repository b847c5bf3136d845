"""A lab's emulator as a process of its own: how it is started, and how it is found again."""

import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.programs import complaint
from aiprod_ops.errors import Failed, OpsError
from aiprod_ops.lab.cloudsql import ledger
from aiprod_ops.units import Seconds

FOLDER = "cloudsql"  #: below the lab's


@dataclass(frozen=True, slots=True)
class Found:
    """A lab's emulator: where it listens, or listened. `pid` is None when it does not answer."""

    url: str
    pid: int | None


def start(lab: Path) -> None:
    """Start the emulator of a lab, and wait until it answers. Raises Failed with what it complained about."""
    command = [sys.executable, "-P", "-m", "aiprod_ops.lab.cloudsql", str(lab)]
    done = processes.run(command, cwd=lab, timeout=Seconds(120))
    if done.returncode != 0:
        raise Failed(f"the emulator of Cloud SQL does not start: {complaint(done.stderr)}")


def find(lab: Path) -> Found | None:
    """The emulator of a lab; None where none was started."""
    try:
        state = ledger.read(lab / FOLDER)
    except (OpsError, OSError):
        return None
    if state is None:
        return None
    url = f"http://127.0.0.1:{state.port}"
    try:
        # Another program may have the port by now: only an emulator of this folder tells its pid and its passwords.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/lab", timeout=2) as answer:
            told = json.load(answer)
            is_ours = Path(told["passfile"]).parent == (lab / FOLDER).resolve()
            return Found(url, int(told["pid"]) if is_ours else None)
    except (OSError, urllib.error.URLError, ValueError, LookupError):
        return Found(url, None)
