"""A negative control: whether a restore refuses a damaged file, tried on a spare of the repository."""

import re
import shutil
from pathlib import Path

from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.pgbackrest.inventory import Kept
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.errors import Failed

_MISSING = re.compile(r"unable to open missing file '([^']+)'")


def refusal(program: Program, kept: Kept, spare: Path) -> str:
    """In what words a restore refuses a backup with one flipped byte; '' where it does not.

    The spare holds the lists, the manifest, and one file: the one that a restore misses first is the one that it reads
    first, and there it ends, however large the backup is.
    """
    repository = spare / "repository"
    folder = Path("backup", program.stanza)
    lists = [folder / "backup.info", folder / kept.backup.id / "backup.manifest"]
    (spare / "data").mkdir(mode=0o700, parents=True)
    try:
        for name in [*lists, *(path.with_name(f"{path.name}.copy") for path in lists)]:
            _bring(program, kept, repository, name)
        said = _tried(program, kept, spare)
        missing = _MISSING.search(said)
        if missing is None:
            return ""  # refused for another reason: that proves nothing of the flipped byte
        victim = Path(missing[1]).relative_to(repository)
        _bring(program, kept, repository, victim)
        content = bytearray((repository / victim).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (repository / victim).write_bytes(content)
        said = _tried(program, kept, spare)
        return "" if _MISSING.search(said) else said  # it went past the damaged one
    finally:
        shutil.rmtree(spare)


def _bring(program: Program, kept: Kept, repository: Path, name: Path) -> None:
    """A file of the repository as it is stored: encrypted, compressed."""
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    options = [f"--repo={kept.repository}", "--raw", str(name)]
    program.run("repo-get", *options, timeout=LONGEST, into=repository / name)


def _tried(program: Program, kept: Kept, spare: Path) -> str:
    data, repository = spare / "data", spare / "repository"
    shutil.rmtree(data)
    data.mkdir(mode=0o700)
    number = f"repo{kept.repository}"
    options = [f"--repo={kept.repository}", f"--{number}-type=posix", f"--{number}-path={repository}"]
    options += [f"--reset-{number}-host", f"--pg1-path={data}", "--reset-pg1-host", "--process-max=1", "--job-retry=0"]
    try:
        program.run(
            "restore", f"--set={kept.backup.id}", "--type=none", "--no-delta", *options, timeout=LONGEST, cwd=spare,
            reads="the spare", lasts=False,
        )  # fmt: skip
    except Failed as error:
        return error.message
    return ""
