"""The program pgbackrest: how it is called, and what its exit codes mean.

It is told no secret: the passphrase of a repository stays in its own configuration or environment, and what it says is
cut where it would quote the content of a file (backup.info holds the keys of the manifests).
Source: pgBackRest, `src/build/error/error.yaml`; its exit codes are stable.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local import processes, unsynced
from aiprod_ops.errors import ConfigurationError, Failed, Held, OpsError, PermissionMissing, Refused, TimedOut, Untried
from aiprod_ops.errors import Unreachable as NoContact
from aiprod_ops.units import Seconds

_QUIET = ("--log-level-console=off", "--log-level-stderr=error")
_NO_LOG = "--log-level-file=off"  #: the log's folder is the server's; one who only reads may not write there

_SETUP = "pgbackrest --stanza={stanza} check tells whether the stanza fits the server; its configuration is in" \
    " /etc/pgbackrest or where $PGBACKREST_CONFIG says"  # fmt: skip
_ERRORS: dict[int, tuple[type[OpsError], str]] = {
    26: (Failed, ""),  # checksum
    27: (ConfigurationError, _SETUP),
    28: (ConfigurationError, _SETUP),  # a file of another server, or of another version
    29: (Failed, ""),  # format: what is stored is damaged
    30: (ConfigurationError, _SETUP),
    31: (ConfigurationError, _SETUP),
    32: (ConfigurationError, _SETUP),
    37: (ConfigurationError, _SETUP),
    44: (ConfigurationError, _SETUP),
    46: (ConfigurationError, "a newer pgBackRest may know this version of PostgreSQL"),
    49: (NoContact, "is the repository's host up?"),
    50: (Held, "wait until it has ended: pgbackrest info shows it"),
    51: (ConfigurationError, _SETUP),
    55: (ConfigurationError, _SETUP),  # file missing; where a backup is read it is damage (`run`, `damage`)
    56: (NoContact, "is the server up, and is pg1-path in pgBackRest's configuration its data directory?"),
    58: (ConfigurationError, _SETUP),
    62: (Refused, "somebody stopped it: pgbackrest --stanza={stanza} start lets it go on"),
    64: (Untried, "is the disk full?"),
    68: (ConfigurationError, "set archive_command: pgbackrest --stanza={stanza} archive-push %p"),
    75: (Refused, "take another full backup first"),
    80: (ConfigurationError, _SETUP),
    81: (ConfigurationError, _SETUP),
    82: (Failed, "does the server's archive_command work? Its log tells"),
    87: (ConfigurationError, "the server does not archive: set archive_mode = on"),
    101: (NoContact, "the storage of the repository answers with an error; try again"),
    105: (PermissionMissing, "the storage of the repository refuses its credentials"),
}
_DENIED = re.compile(r"permission denied", re.IGNORECASE)
_QUOTED = re.compile(r"(\bat line \d+).*")
_INNER = re.compile(r"ERROR: \[0*(\d+)\]")
MOST = 600  #: characters of what it said


@dataclass(frozen=True, slots=True)
class Program:
    """pgbackrest for one stanza. `patience` is for what only looks; `env` is added to ours."""

    stanza: str
    path: str = "pgbackrest"
    env: Mapping[str, str] = field(default_factory=dict)
    patience: Seconds = Seconds(120)

    def run(
        self, command: str, *options: str, cwd: Path = Path("/"), timeout: Seconds | None = None, logs: bool = False,
        reads: str = "", into: Path | None = None, lasts: bool = True,
    ) -> str:  # fmt: skip
        """Run a command to its end and answer its output.

        `logs` lets it write its own log; `reads` names the stored thing that is read: a file that is missing then is
        damage. `into` takes its output as it is. What it writes `lasts`, or need not survive the machine. Raises what
        the exit code means, with its own words.
        """
        patience = timeout or self.patience
        argv = [self.path, f"--stanza={self.stanza}", *_QUIET, *([] if logs else [_NO_LOG]), command, *options]
        if not lasts:
            argv = unsynced.command(argv)
        if into is not None:
            argv = ["/bin/sh", "-c", 'exec "$@" >"$0"', str(into), *argv]
        try:
            done = processes.run(argv, cwd=cwd, env=self.env, timeout=patience)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no program {self.path}", hint="install it (the package pgbackrest) on this machine"
            ) from error
        except PermissionError as error:
            raise PermissionMissing(f"{self.path} may not be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"pgbackrest {command} did not end within {patience:g} s and was killed") from error
        if done.returncode != 0:
            raise meaning(self.stanza, command, done.returncode, done.stderr or done.stdout, reads)
        return done.stdout

    def json(self, command: str, *options: str) -> Any:
        """What a command answers as JSON."""
        said = self.run(command, "--output=json", *options)
        try:
            return json.loads(said, strict=False)  # it quotes damaged files as they are
        except ValueError as error:
            raise Failed(f"pgbackrest {command} does not answer in JSON: {words(said) or 'it said nothing'}") from error


def meaning(stanza: str, command: str, code: int, said: str, reads: str = "") -> OpsError:
    """The error that an exit code stands for. `reads` is the stored thing that was read: what it lacks is damage."""
    kind, hint = _ERRORS.get(_cause(code, said), (Failed, ""))
    if _DENIED.search(said):
        kind, hint = PermissionMissing, "run this command as the user that runs pgBackRest on this machine"
    elif reads and kind is ConfigurationError:
        kind, hint = Failed, ""
    ending = f"killed by signal {-code}" if code < 0 else f"exit {code}"
    what = f"{reads} cannot be restored: " if reads else ""
    message = f"{what}pgbackrest {command} failed ({ending}): {words(said) or 'it said nothing'}"
    return kind(message, hint=hint.format(stanza=stanza))


def _cause(code: int, said: str) -> int:
    """104 says only that there were errors; they stand in the text."""
    inner = [int(found) for found in _INNER.findall(said) if int(found) != code]
    return inner[0] if code == 104 and inner else code


def words(said: str) -> str:
    """What it said, on one line, without what it quotes of files.

    >>> words("ERROR: [029]: unable to load info file\\n   FormatError: invalid JSON value at line 6 'cipher-pass=x'")
    'ERROR: [029]: unable to load info file; FormatError: invalid JSON value at line 6'
    """
    lines = [_QUOTED.sub(r"\1", line.strip()) for line in said.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(lines))[:MOST]
    return "".join(each if each.isprintable() else "?" for each in text)  # it quotes what it cannot decrypt
