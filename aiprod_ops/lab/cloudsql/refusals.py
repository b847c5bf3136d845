"""What the API refuses, with Google's status, reason and body.

Bodies as recorded from Google by k8s-config-connector's tests (`_http.log` of its fixtures) and as listed in
https://cloud.google.com/sql/docs/postgres/admin-api-error-messages.
"""

from collections.abc import Sequence
from typing import Any

from aiprod_ops.lab.cloudsql.discovery import Flaw, said

#: The canonical status that Google adds to an error of its front end.
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
#: Reason and message of an answer that a fault asks for.
USUAL = {
    400: ("invalidRequest", "Invalid request."),
    401: ("authError", "Request had invalid authentication credentials."),
    403: ("notAuthorized", "The client is not authorized to make this request."),
    404: ("instanceDoesNotExist", "The Cloud SQL instance does not exist."),
    409: ("operationInProgress", "Operation failed because another operation was already in progress."),
    412: ("staleData", "The condition doesn't match."),
    429: (
        "rateLimitExceeded",
        "Quota exceeded for quota metric 'Mutate requests' of service 'sqladmin.googleapis.com'.",
    ),
    500: ("internalError", "An internal error occurred."),
    503: ("backendError", "The service is currently unavailable."),
}


class Refusal(Exception):
    """An answer that is an error: HTTP status, Google's reason, and words."""

    def __init__(self, status: int, reason: str, message: str, *, flaws: Sequence[Flaw] = ()) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.flaws = status, reason, message, tuple(flaws)

    def body(self) -> dict[str, Any]:
        """Google's error body."""
        errors = [{"message": self.message, "domain": "global", "reason": self.reason}]
        error: dict[str, Any] = {"code": self.status, "message": self.message, "errors": errors}
        if self.flaws:
            violations = [{"field": flaw.field, "description": flaw.message} for flaw in self.flaws]
            details = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
            error |= {"status": STATUSES[self.status], "details": [details]}
        elif self.status in (401, 429) or self.status >= 500:
            error["status"] = STATUSES.get(self.status, "UNKNOWN")
        return {"error": error}


def usual(status: int) -> Refusal:
    """The refusal that usually has a status."""
    return Refusal(status, *USUAL.get(status, ("unknown", f"Status {status}.")))


def malformed(flaws: Sequence[Flaw]) -> Refusal:
    """A request that does not fit the schema."""
    return Refusal(400, "invalid", said(flaws), flaws=flaws)


def invalid(message: str) -> Refusal:
    """A request that fits the schema and makes no sense."""
    return Refusal(400, "invalidRequest", f"Invalid request: {message}")


def not_valid_here(message: str = "") -> Refusal:
    """An operation that this instance does not allow."""
    return Refusal(400, "invalidOperation", f"This operation isn't valid for this instance.{message and ' '}{message}")


def no_instance() -> Refusal:
    """There is no such instance: as `instances.get` and `delete` say it."""
    return usual(404)


def no_authority() -> Refusal:
    """There is no such instance: as most methods say it, lest they tell strangers which names exist."""
    return usual(403)


def absent(what: str, reason: str = "notFound") -> Refusal:
    """There is no such operation or backup."""
    return Refusal(404, reason, f"The {what} does not exist.")


def in_progress() -> Refusal:
    """One operation at a time for an instance."""
    return usual(409)


def exists() -> Refusal:
    """The name is taken."""
    return Refusal(409, "instanceAlreadyExists", "The Cloud SQL instance already exists.")


def stale() -> Refusal:
    """The settings version is not the current one."""
    return usual(412)


def is_protected() -> Refusal:
    """Deletion protection is on."""
    return Refusal(
        400,
        "protectedInstanceDeletionFailure",
        "The instance is protected. Please disable the deletion protection and try again. To disable deletion"
        " protection, update the instance settings with deletionProtectionEnabled set to false.",
    )


def not_emulated(method: str) -> Refusal:
    """A method of the API that nobody needed here yet."""
    return Refusal(501, "notImplemented", f"{method} is part of the API, but not of this emulator.")
