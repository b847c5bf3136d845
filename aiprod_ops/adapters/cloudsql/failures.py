"""What a refused, failed or lost call means, as one error of ours each. Pure, but for the exceptions it is given.

A call that changes something and was not answered is *unknown*, never failed: Google may have begun it. That holds for
a 5xx, too: instances have appeared after a 503 (hashicorp/terraform#5231).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiprod_ops.errors import (
    ConfigurationError,
    Failed,
    Held,
    Missing,
    OpsError,
    OutcomeUnknown,
    PermissionMissing,
    Stale,
    Throttled,
    Unreachable,
)

RATE_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
LOGIN = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's file"


@dataclass(frozen=True, slots=True)
class Call:
    """What was called, in words for people. `look` is the command that shows what became of it."""

    method: str  #: instances.clone
    target: str  #: instance aiprod of project acme
    changes: bool
    look: str

    def __str__(self) -> str:
        return f"{self.method} on {self.target}"


def of_status(call: Call, status: int, content: bytes) -> OpsError:
    """The error behind an HTTP status and Google's body."""
    reason, message = _read(content)
    said = f"{call}: Google answered {status}{f' {reason}' if reason else ''}: {message or 'nothing more'}"
    if status == 429 or (status == 403 and reason in RATE_LIMITS):
        return Throttled(said, hint="the quota of the Admin API is used up: wait a minute, then try again")
    if status == 401:
        return PermissionMissing(f"{said} (the credentials are expired or not valid)", hint=LOGIN)
    if status == 403:
        text = f"{said} (Google says the same for an instance that does not exist)"
        return PermissionMissing(text, hint=f"compare with: {call.look}; the identity needs roles/cloudsql.admin")
    if status == 404:
        return Missing(said, hint=call.look)
    if status == 409 and reason == "operationInProgress":
        return Held(said, hint=f"one operation at a time; wait for it to end: {call.look}")
    if status == 412:
        return Stale(f"{said} (the settings were changed meanwhile)", hint="read the instance again, then decide again")
    if status >= 500:
        return no_answer(call, said)
    return Failed(said, hint=call.look)


def no_answer(call: Call, said: str) -> OpsError:
    """The request went out, and no answer tells what became of it."""
    if call.changes:
        return OutcomeUnknown(f"{said}; whether it was begun is not known", hint=f"look for its operation: {call.look}")
    return Unreachable(said, hint="try again; status of Google Cloud: https://status.cloud.google.com")


def of_login(error: Exception, *, is_absent: bool) -> OpsError:
    """Credentials that are not there, or that Google does not accept any more. Their text may hold no token."""
    words = type(error).__name__
    if is_absent:
        return ConfigurationError(f"there are no credentials for Google Cloud ({words})", hint=LOGIN)
    return PermissionMissing(f"the credentials for Google Cloud cannot be renewed ({words})", hint=LOGIN)


def _read(content: bytes) -> tuple[str, str]:
    """Reason and message of Google's error body; a proxy or a load balancer writes none."""
    try:
        error: Any = json.loads(content)["error"]
        errors: Sequence[Any] = error.get("errors") or [{}]
        return str(errors[0].get("reason", error.get("status", ""))), str(error.get("message", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", content[:200].decode("utf-8", "replace").strip()
