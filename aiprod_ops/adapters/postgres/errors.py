"""Errors of PostgreSQL and of libpq, translated once into ours.

Source: PostgreSQL manual, appendix A "PostgreSQL Error Codes". libpq reports a failed connection as text only, without
a SQLSTATE: there the text decides, and what is not recognised (a server that speaks another language) is Unreachable.
"""

import re
from dataclasses import dataclass

import psycopg2

from aiprod_ops.adapters.postgres.dsn import EXAMPLE, Target
from aiprod_ops.errors import (
    Cancelled,
    ConfigurationError,
    Crowded,
    Failed,
    OpsError,
    PermissionMissing,
    Refused,
    TimedOut,
    Unreachable,
)
from aiprod_ops.units import Seconds, show

_NOT_ADMITTED = re.compile(
    r"password authentication failed|authentication failed for user|no password supplied|no pg_hba\.conf entry"
    r"|pg_hba\.conf rejects|role \".*\" does not exist|not permitted to log in|permission denied for database"
    r"|requires a valid client certificate"
)
_MALFORMED = re.compile(r"(?:\A|failed: )(?:invalid |missing |could not parse )")
_NO_DATABASE = re.compile(r"database \".*\" does not exist")
_NO_TLS = re.compile(r"SSL was required|does not support SSL|root certificate file|server certificate for|SSL error")
_TOO_MANY = re.compile(r"too many clients|too many connections|remaining connection slots")
_LOST = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError)  #: without a SQLSTATE
_DEPENDENT = "2B"  #: what depends on an object: the server's hint is to drop that, too, which is nobody's next step
_PREFIX = re.compile(r"\A.*?failed: (?:FATAL:\s+)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ending:
    """What we know of how a statement ended: did we cancel it, did we cut a silent connection, how long it had."""

    we_cancelled: bool
    we_cut: bool
    elapsed: Seconds
    timeout: Seconds  #: 0 = none
    lock_timeout: Seconds  #: 0 = none


def malformed(error: psycopg2.Error) -> bool:
    """Whether libpq could not make sense of the DSN; such a text may quote a part of the password."""
    return _MALFORMED.search(str(error)) is not None


def connection_error(error: psycopg2.Error, target: Target) -> OpsError:
    """Why there is no session. The text of libpq names host, port, user and database, never the password."""
    text = str(error).strip()
    said = _PREFIX.sub("", text).splitlines()[0] if text else type(error).__name__
    if _NOT_ADMITTED.search(text):
        return PermissionMissing(
            f"{target} was not let in: {said}",
            hint=f"Check user and password of the {target.identity} DSN in the configuration, or ~/.pgpass.",
        )
    if _NO_DATABASE.search(text):
        return ConfigurationError(
            f"{target}: {said}", hint=f"Correct the database name at the end of the {target.identity} DSN: {EXAMPLE}"
        )
    if _NO_TLS.search(text):
        return ConfigurationError(f"{target}: {said}", hint="Correct sslmode and the certificates in the DSN.")
    if _TOO_MANY.search(text):
        return Crowded(f"{target} has no free connection: {said}", hint="Free one, or raise max_connections.")
    return Unreachable(
        f"No contact to {target}: {said}",
        hint="Check that the server runs and that host and port are right: pg_isready "
        f"-h {target.host or 'HOST'} -p {target.port or 'PORT'}",
    )


def statement_error(error: psycopg2.Error, target: Target, ending: Ending) -> OpsError:
    """What a statement's error means. Only the primary message is kept: details may hold users' data."""
    state, said = error.pgcode or "", _primary(error)
    if ending.we_cut:
        return TimedOut(
            f"No answer from {target} within {show(ending.elapsed, 's')}: connection cut, outcome not known",
            hint="Look at the server before anything is done again.",
        )
    if state == "57014":
        return _canceled(said, ending)
    if state == "55P03":
        waited = f" after {show(ending.lock_timeout, 's')}" if ending.lock_timeout else ""
        return Failed(f"Gave up waiting for a lock{waited} (lock timeout): {said}", hint="Try again when it is free.")
    if state == "53300":
        return Unreachable(f"{target} has no free connection: {said}")
    if not state or state.startswith(("08", "57P")) or state in ("25P03", "28000", "28P01", "3D000"):
        return _session_error(error, said, target)
    return _refusal(state, said, error, target)


def _canceled(said: str, ending: Ending) -> OpsError:
    if ending.we_cancelled:
        return Cancelled("The statement was cancelled by us; the server confirms it")
    if "statement timeout" in said or 0 < ending.timeout <= ending.elapsed:
        return TimedOut(f"The statement was stopped by its time limit of {show(ending.timeout, 's')}: {said}")
    return Cancelled(f"The statement was cancelled by somebody else: {said}")


def _session_error(error: psycopg2.Error, said: str, target: Target) -> OpsError:
    state = error.pgcode or ""
    if state.startswith("28"):
        return PermissionMissing(f"{target} was not let in: {said}", hint="Check the DSN's user, or ~/.pgpass.")
    if state == "3D000":
        return ConfigurationError(f"{target}: {said}")
    if not state and type(error) not in _LOST:
        return Failed(said)
    return Unreachable(f"Contact to {target} was lost: {said}", hint="Check that the server runs, then look again.")


def _refusal(state: str, said: str, error: psycopg2.Error, target: Target) -> OpsError:
    hint = "" if state.startswith(_DEPENDENT) else error.diag.message_hint or ""
    if state == "42501":
        return PermissionMissing(f"{target}: {said}", hint=f"Grant what is missing to {target.role}. {hint}".strip())
    if state == "25006":
        return Refused(
            f"{target}: {said}",
            hint="Changes go through the actor identity, on the primary; this session is read-only or a standby's.",
        )
    return Failed(f"{said} (SQLSTATE {state})", hint=hint)


def _primary(error: psycopg2.Error) -> str:
    lines = str(error).strip().splitlines()
    return error.diag.message_primary or (lines[0] if lines else type(error).__name__)
