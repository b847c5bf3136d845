"""Problems as answers: application/problem+json (RFC 9457), with a code, a request id, and never a stack trace."""

import errno
import json
import logging
from collections.abc import Mapping, Sequence
from tempfile import gettempdir
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from psycopg import OperationalError as PsycopgOperationalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from aiprod_ops.domain.jobs import IllegalTransition
from aiprod_ops.domain.problems import BY_CODE, OF_REQUESTS, Kind
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.validation import TEXT_RULES, Violation, from_pydantic

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: Where each kind is explained: it is the problem's type, and it can be opened.
TYPE = "/api/v1/docs/errors/"
RETRY_SECONDS = 1
MOST_ERRORS = 50  #: a body may have thousands of fields that nobody knows
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OF_STATUS = {kind.status: kind.code for kind in reversed(OF_REQUESTS)}  # the first of each status


class Problem(Exception):
    """Something that ends a request with a problem. `detail` tells what was seen and what was expected."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[Violation] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.kind: Kind = BY_CODE[code]
        self.detail = detail or self.kind.cause
        self.errors = errors
        self.headers = dict(headers or {})
        self.more = more  #: members of its own (RFC 9457, 3.2)
        super().__init__(f"{code}: {self.detail}")


def response(problem: Problem, request_id: str, instance: str) -> Response:
    """The answer to a problem."""
    kind = problem.kind
    content: dict[str, Any] = {
        "type": f"{TYPE}{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "instance": instance,
        "code": kind.code,
        "request_id": request_id,
        "fix": kind.fix,
        **problem.more,
    }
    if problem.errors:
        content["errors"] = [each.as_json() for each in problem.errors]
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(json.dumps(content).encode(), int(kind.status or 500), headers, MEDIA_TYPE)


def is_ours(error: Exception) -> bool:
    """Whether every application is told it as a problem, also one with handlers of its own."""
    return isinstance(error, (Problem, HTTPException, RequestValidationError))


def of(error: Exception, request_id: str) -> Problem:
    """What an exception is to a client. The unexpected is logged here, once, and told as INTERNAL_ERROR."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _of_status(error)
    if isinstance(error, IllegalTransition):
        return Problem("JOB_STATE_CONFLICT", str(error))
    if isinstance(error, ClientDisconnect):
        # Nobody reads the answer; the metrics count it, and not as a fault of ours.
        log.info("a client broke off before its request was whole, request %s", request_id)
        return Problem("INVALID_JSON", "The body is not whole: the client broke off.")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        log.error("there is no room for a file in %s: %s, request %s", gettempdir(), error, request_id)
        detail = "There is no room on the server's disk for what this request needs. Nothing was changed."
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}  # the body may not be read to its end
        return Problem("SERVICE_UNAVAILABLE", detail, headers=headers)
    if is_unavailable(error):
        # Without its trace: in an outage there is one for each request.
        said = str(error).partition("\n")[0]
        log.warning("the database does not answer: %s: %s, request %s", type(error).__name__, said, request_id)
        return Problem("SERVICE_UNAVAILABLE", headers={"Retry-After": str(RETRY_SECONDS)})
    log.error("a request failed: %s, request %s", type(error).__name__, request_id, exc_info=error)
    return Problem("INTERNAL_ERROR")


def to_response(error: Exception, request: Request) -> Response:
    """The answer to an exception that ended a request."""
    name = request.scope.setdefault("request_id", "") or str(uuid7())  # without the middleware nobody has given it one
    return response(of(error, name), name, quote(request.url.path, safe="/:@-._~"))


def is_unavailable(error: Exception) -> bool:
    """Whether it may go away by itself: no contact, no connection free, a time-out, a deadlock."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError, PoolTimeout, PsycopgOperationalError, ConnectionError))


def _invalid(error: RequestValidationError) -> Problem:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        position = next(each["loc"][-1] for each in found if each["type"] == "json_invalid")
        return Problem("INVALID_JSON", f"The body does not parse as JSON at character {position}.")
    violations = [from_pydantic(each) for each in found[:MOST_ERRORS]]
    fields = ", ".join(dict.fromkeys(each.field for each in violations))
    fields += f" and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    is_text = all(each.rule in TEXT_RULES for each in violations)
    code = "INVALID_CONTENT" if is_text else "VALIDATION_FAILED"
    return Problem(code, f"These fields do not follow the rules: {fields}.", errors=violations)


def _of_status(error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    if error.status_code == 400:
        return Problem("INVALID_JSON", "The body could not be read as JSON.", headers=headers)
    if error.status_code in _OF_STATUS:
        return Problem(_OF_STATUS[error.status_code], headers=headers)
    return Problem("INTERNAL_ERROR")
