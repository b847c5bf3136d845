"""The command line called in this process: an interpreter less to start, for tests that kill nothing."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from command_line import Done

from aiprod_ops import cli


def called(config: Path, *words: str) -> Done:
    """Run a command to its end."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.call([*words, "--config", str(config)])
    return Done(code, out.getvalue(), err.getvalue())
