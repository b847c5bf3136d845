"""What an exception means to the person at the terminal."""

import json
import tempfile
import traceback
from pathlib import Path

import click

from aiprod_ops.cli import Terminated
from aiprod_ops.cli.redaction import redact
from aiprod_ops.errors import ConfigurationError, Exit, OpsError, Refused, UsageError, is_full


class Interrupted(OpsError):
    """Ctrl-C before anything was done."""

    exit_code = Exit.INTERRUPTED


class Ended(OpsError):
    """SIGTERM before anything was done."""

    exit_code = Exit.TERMINATED


class Bug(OpsError):
    """Something this program did not expect."""

    exit_code = Exit.BUG


def of(error: BaseException) -> OpsError:
    """The problem behind an exception."""
    match error:
        case OpsError():
            return error
        case click.exceptions.NoSuchOption() | click.UsageError():
            command = error.ctx.command_path if error.ctx else "aiprod-ops"
            return UsageError(error.format_message(), hint=f"{command} --help")
        case click.ClickException():
            return UsageError(error.format_message())
        case click.Abort() | KeyboardInterrupt():
            if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated):
                return Ended("terminated; nothing was changed")
            return Interrupted("interrupted; nothing was changed")
        case BrokenPipeError():
            return Refused("the reader of the output went away")
        case OSError() if is_full(error):
            place = error.filename or "the state folder"
            return Refused(f"{place}: {error.strerror}; nothing was changed", hint="make room there, then try again")
        case OSError() if error.filename:
            return ConfigurationError(f"{error.filename}: {error.strerror}")
    return _bug(error)


def _bug(error: BaseException) -> Bug:
    text = redact("".join(traceback.format_exception(error)))
    with tempfile.NamedTemporaryFile("w", prefix="aiprod-ops-", suffix=".traceback", delete=False) as file:
        file.write(text)
    return Bug(
        f"this is a bug{_in_runbook(error)}: {type(error).__name__}: {error}",
        hint=f"report it with {Path(file.name)}; `aiprod-ops runs list` shows whether a run is unfinished",
    )


def _in_runbook(error: BaseException) -> str:
    """Which runbook's function it happened in, if it was one's."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).startswith("aiprod_ops_runbook."):
            return f" in the runbook {Path(frame.f_code.co_filename).name}, line {line}, {frame.f_code.co_name}"
    return ""


def as_text(problem: OpsError) -> str:
    """One clear message, and the next thing to do."""
    text = f"aiprod-ops: {redact(problem.message)}"
    return f"{text}\n  next: {redact(problem.hint)}" if problem.hint else text


def as_plugin_line(problem: OpsError) -> str:
    """`UNKNOWN - ` and why: all that a monitoring plugin that could not look may say."""
    from aiprod_ops.cli.verdicts import plugin_line
    from aiprod_ops.domain.findings import Status

    hint = f"; next: {problem.hint}" if problem.hint else ""
    return plugin_line(Status.UNKNOWN, redact(f"{problem.message}{hint}"))


def as_json(problem: OpsError, code: int) -> str:
    """`{"error": {"kind", "message", "hint", "exit"}}`"""
    kind = type(problem).__name__
    body = {"kind": kind, "message": redact(problem.message), "hint": redact(problem.hint), "exit": code}
    return json.dumps({"error": body})
