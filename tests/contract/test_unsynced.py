"""A program that is told that what it writes is on the disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiprod_ops.adapters.local import unsynced

SYNCS = "import os; where = os.pipe()[1]; os.write(where, b'x'); os.{}(where)"  #: which a pipe refuses
KNOWN = sys.platform.startswith("linux") and os.uname().machine in ("x86_64", "aarch64")


@pytest.mark.skipif(not KNOWN, reason="needs seccomp")
@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_it_waits_for_no_disk(call: str) -> None:
    program = [str(Path(sys.executable).resolve()), "-c", SYNCS.format(call)]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 1
    done = subprocess.run(unsynced.command(program), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_its_exit_code_and_words_are_the_programs() -> None:
    program = [str(Path(sys.executable).resolve()), "-c", "import sys; sys.stderr.write('no'); sys.exit(55)"]
    done = subprocess.run(unsynced.command(program), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (55, "no")


def test_a_script_and_what_is_not_there_are_called_as_they_are(tmp_path: Path) -> None:
    """A script may become another user (sudo), which the filter would forbid."""
    script = tmp_path / "pgbackrest"
    script.write_text('#!/bin/sh\nexec sudo pgbackrest "$@"\n')
    script.chmod(0o755)
    assert unsynced.command([str(script), "info"]) == [str(script), "info"]
    assert unsynced.command(["no-such-program", "info"]) == ["no-such-program", "info"]
