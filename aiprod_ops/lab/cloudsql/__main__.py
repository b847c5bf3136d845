"""`python -m aiprod_ops.lab.cloudsql LAB`: go to the background, adopt the lab's fleet, and serve until it is gone."""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from aiprod_ops.errors import OpsError
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab.cloudsql import adoption
from aiprod_ops.lab.cloudsql.emulator import Emulator


def main(arguments: list[str]) -> int:
    """Answers when the child does: 0 when it serves."""
    lab = Path(arguments[0]).resolve()
    ours, theirs = os.pipe()
    if os.fork():
        os.close(theirs)
        return 0 if os.read(ours, 1) == b"1" else 1
    os.close(ours)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(lab, theirs)
    except OpsError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    except OSError:
        traceback.print_exc()
        return 1
    return 0


def _serve(lab: Path, ready: int) -> None:
    fleet = fleets.load(lab)
    place = adoption.folder_of(lab)
    with Emulator(place, programs=fleet.programs) as emulator:
        emulator.adopt(adoption.instances(fleet))
        os.chdir(place)
        os.write(ready, b"1")
        os.close(ready)
        _let_go(place / "emulator.log")
        while folders.is_lab(lab):
            time.sleep(0.5)


def _let_go(log: Path) -> None:
    """Nobody reads what we say any more."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    kept = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for old, new in ((0, nowhere), (1, kept), (2, kept)):
        os.dup2(new, old)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
