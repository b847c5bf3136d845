"""The error tree. Each error knows its exit code; the codes are an API.

`check`, `verify` and `evidence` answer 0, 1, 2, 3 (OK, WARNING, CRITICAL, UNKNOWN), and any error there is 3.
Everything that acts uses the codes below. A message says what was seen, what was expected, and what to do next.
"""

import errno
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the commands that act (`run`, `resume`, `rollback`, `prove`, `drill`)."""

    DONE = 0  #: done and verified, or nothing to do
    REFUSED = 10  #: guard, window, stale plan, disproved on the copy: nothing changed
    HELD = 11  #: another run holds the resource: nothing changed
    NOT_APPROVED = 12  #: approval or confirmation missing or expired: nothing changed
    UNDONE = 20  #: failed, undone, the facts equal the facts before
    PARTLY = 21  #: failed, partly applied: page someone
    UNKNOWN = 22  #: contact lost while acting: the outcome is not known
    USAGE = 64  #: the command line is wrong, or names what is not there: nothing changed
    BUG = 70  #: a bug in this program
    PERMISSION = 77  #: a privilege or a password is missing: nothing changed
    CONFIGURATION = 78  #: the configuration is missing or wrong: nothing changed
    INTERRUPTED = 130  #: SIGINT before the first action
    TERMINATED = 143  #: SIGTERM before the first action


class OpsError(Exception):
    """Something that stops a command. `hint` is the next thing to type or to do."""

    exit_code = Exit.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def told(self) -> str:
        """Message and hint as one text, where both have to stand in one line.

        >>> OpsError("No contact", hint="Look.").told, OpsError("No contact.", hint="add it").told, OpsError("No").told
        ('No contact. Look.', 'No contact; add it', 'No')
        """
        between = ". " if self.hint[:1].isupper() else "; "
        return f"{self.message.rstrip('.')}{between}{self.hint}" if self.hint else self.message


class UsageError(OpsError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = Exit.USAGE


class ConfigurationError(OpsError):
    """A file, a setting or an environment variable is missing or wrong."""

    exit_code = Exit.CONFIGURATION


class PermissionMissing(OpsError):
    """The server refused us: wrong password, or a privilege that is missing."""

    exit_code = Exit.PERMISSION


class Refused(OpsError):
    """A guard said no. Nothing was changed."""

    exit_code = Exit.REFUSED


class Missing(Refused):
    """What was asked for is not there. Nothing was changed."""


class Stale(Refused):
    """What the request rests on was changed meanwhile. Nothing was changed by it; read again, then decide again."""


class Throttled(Refused):
    """Too many requests: this one was not looked at. Nothing was changed."""


class Held(OpsError):
    """Another run holds the resource. Nothing was changed."""

    exit_code = Exit.HELD


class NotApproved(OpsError):
    """The approval is missing, expired, or names another plan. Nothing was changed."""

    exit_code = Exit.NOT_APPROVED


class Unreachable(OpsError):
    """There is no contact to the server, or it was lost. While acting, the outcome of the action is unknown."""

    exit_code = Exit.REFUSED


class Crowded(Unreachable):
    """The server answers, and has no session left for us: it lives."""


class Failed(OpsError):
    """The server answered, and the answer is an error: the action did not take place as asked."""

    exit_code = Exit.UNDONE


class Cancelled(Failed):
    """The server confirms that the statement was cancelled, by us or by somebody else."""


class Untried(Failed):
    """What was in the way is not what was to be tried, but the platform, a disk or a right of ours: nothing is known of
    the thing itself."""


class PartlyApplied(OpsError):
    """Something was done and could not be taken back yet. The journal stays open; `resume` tries again."""

    exit_code = Exit.PARTLY


class OutcomeUnknown(OpsError):
    """Nobody can tell now whether an action happened. The journal stays open; `resume` looks again."""

    exit_code = Exit.UNKNOWN


class TimedOut(OpsError):
    """No answer within the time allowed: the outcome is unknown until it was looked at."""

    exit_code = Exit.UNKNOWN


class Broken(OpsError):
    """A journal, a plan or an evidence file was altered: its chain or digest does not hold."""

    exit_code = Exit.REFUSED


def is_full(error: OSError) -> bool:
    """Whether a disk has no room left, or the user's share of it is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def before_acting(error: OpsError) -> Exit:
    """The exit code of an error that came before anything was begun: then nothing failed, and nothing is unknown."""
    lies = (Exit.UNDONE, Exit.PARTLY, Exit.UNKNOWN)
    return Exit.REFUSED if error.exit_code in lies else error.exit_code
