"""Why a log gave no call at all. Never an empty success: most often the server does not log what is asked for."""

from aiprod_ops.errors import ConfigurationError, OpsError, UsageError
from aiprod_ops.logs.digester import Digester
from aiprod_ops.logs.digests import counted
from aiprod_ops.units import show

_SLOW = "ALTER SYSTEM SET log_min_duration_statement = '250ms'; SELECT pg_reload_conf();"
_PREFIX = (
    "ALTER SYSTEM SET log_line_prefix = '%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h '; SELECT pg_reload_conf();"
)
_SHOWN = 5


def why(digester: Digester, name: str, asked: str, *, is_known: bool) -> OpsError:
    """The error for a digester that counted nothing, by the format that was asked for; `is_known`: the log was
    PostgreSQL's, in a format we read."""
    reading, left = digester.reading, digester.left_out
    if not reading.size_bytes:
        return ConfigurationError(f"{name} is empty", hint="name the file that the server writes to")
    looks = sorted({file.looks for file in reading.unread_files} - {"", asked})
    if asked != "auto" and looks and not reading.entries:
        return UsageError(
            f"{name} cannot be read as {asked}: it looks like {' and '.join(looks)}",
            hint="leave --format out: each file's format is told from what is in it",
        )
    if not is_known:
        return ConfigurationError(
            f"{name} ({show(reading.size_bytes, 'B')}) is no log of PostgreSQL, or one with a prefix that is not known",
            hint="say what it is: --format stderr --prefix 'what log_line_prefix says', or csvlog, jsonlog, cloud",
        )
    if left.elsewhere or left.nameless or left.outside:
        return _filtered(digester, name)
    if left.ours:
        return ConfigurationError(
            f"{name}: {_all(left.ours)} of aiprod-ops itself", hint=f"lower the threshold: {_SLOW}"
        )
    return _unlogged(digester, name)


def _filtered(digester: Digester, name: str) -> OpsError:
    left = digester.left_out
    if left.nameless:
        return ConfigurationError(
            f"{name}: {_all(left.nameless)} on a database that is not told: log_line_prefix has no %d",
            hint=f"leave --database away, or: {_PREFIX}",
        )
    if left.elsewhere:
        others = sorted(left.databases)
        listed = ", ".join(others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
        return UsageError(
            f"{name}: {_all(left.elsewhere)} on other databases: {listed}",
            hint="name one of them: --database",
        )
    return UsageError(
        f"{name}: {_all(left.outside)} outside of --since and --until", hint="times without a zone are UTC"
    )


def _all(calls: int) -> str:
    return "the only call is" if calls == 1 else f"all {calls:,} calls are"


def _unlogged(digester: Digester, name: str) -> OpsError:
    reading = digester.reading
    if reading.textless:
        seen = (
            f"{counted(reading.textless, 'duration')} and not one statement: log_duration is on, log_statement is not"
        )
    elif reading.plans:
        seen = f"{counted(reading.plans, 'plan')} of auto_explain and not one duration of a call"
    elif reading.phases or reading.fetches:
        seen = "durations of parse, bind and fetch, and not one call"
    elif reading.entries:
        seen = f"{counted(reading.entries, 'entry', 'entries')} of PostgreSQL and not one with a duration"
    else:
        size, lines = show(reading.size_bytes, "B"), counted(reading.unread_lines, "line is", "lines are")
        return ConfigurationError(
            f"{name} holds not one whole entry in {size}; {lines} torn or foreign",
            hint="name a log that is whole, and leave --format and --prefix out: both are told from what is in it",
        )
    return ConfigurationError(
        f"{name} holds {seen}",
        hint=f"let the server log slow calls: {_SLOW} (and lc_messages has to be English)",
    )
