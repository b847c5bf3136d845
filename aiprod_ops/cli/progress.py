"""Progress for people: on a terminal one line that changes, elsewhere a line for each new phase."""

import shutil
import sys
import time
from types import TracebackType

import click

from aiprod_ops.cli.redaction import redact


class Progress:
    """Called with a line of text; writes to stderr only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._last = ""
        self._started = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._last:
            click.echo("\r\x1b[K", nl=False, err=True)

    def __call__(self, text: str) -> None:
        if self._quiet:
            return
        text = redact(text)
        elapsed = f"{time.monotonic() - self._started:6.1f} s  "
        if self._live:
            width = max(20, shutil.get_terminal_size().columns - 1)
            click.echo("\r\x1b[K" + f"{elapsed}{text}"[:width], nl=False, err=True)
        elif text.split(":")[0] != self._last.split(":")[0]:
            click.echo(f"{elapsed}{text}", err=True)
        self._last = text
