"""The command line with a death in it: what `kill -9` leaves behind when it comes at a chosen record of a journal.

    python -m aiprod_ops.cli.crash after 3 run ID --apply DIGEST

`before` dies when everything was done but the record is not written, `torn` in the middle of it, `after` when it is
durable. Records are counted over all journals that the command writes. A command that writes fewer ends as usual.
"""

import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.cli import call

MOMENTS = ("before", "torn", "after")


@dataclass
class Death:
    """When it comes: at the record that makes `left` zero."""

    moment: str
    left: int


class Doomed(FolderStore):
    """A store whose process is killed at a record of a journal."""

    def __init__(self, death: Death, root: Path) -> None:
        super().__init__(root)
        self._death = death

    def append(self, name: str, data: bytes) -> None:
        if name.endswith("journal.jsonl"):
            self._death.left -= 1
        if self._death.left != 0:
            return super().append(name, data)
        written = {"before": b"", "torn": data[: len(data) // 2], "after": data}[self._death.moment]
        if written:
            super().append(name, written)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def main(arguments: list[str]) -> NoReturn:
    """Run the command line in `arguments` with the death that its first two words name."""
    if len(arguments) < 3 or arguments[0] not in MOMENTS or not arguments[1].isdigit():
        sys.exit(f"expected {'|'.join(MOMENTS)} NUMBER COMMAND…")
    death = Death(arguments[0], int(arguments[1]))
    sys.exit(call(arguments[2:], partial(Doomed, death)))


if __name__ == "__main__":
    main(sys.argv[1:])
