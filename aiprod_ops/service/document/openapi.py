"""The OpenAPI 3.1 document: what FastAPI reads from the routes, and what all operations have in common."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from aiprod_ops.domain.problems import OF_REQUESTS, Kind
from aiprod_ops.service import validation
from aiprod_ops.service.document import examples, sections
from aiprod_ops.service.document.webhook_events import webhooks
from aiprod_ops.service.operations.submissions import EXAMPLES

TITLE = "AIPROD API"
VERSION = "1.0.0"
PROBLEM = "application/problem+json"

TAGS = {
    "jobs": "Submit a job, look at it, download its result.",
    "batches": "Many jobs in one request: follow them, cancel them, try them again, download all videos at once.",
    "results": "What completed jobs made.",
    "pipelines": "The stages of a job's work.",
    "users": "Yourself; all users for an administrator.",
    "usage": "What jobs cost, by month.",
    "webhooks": "Events are sent to your endpoints; what was sent, and what was answered; send it again.",
    "cache": "Values of the cache, for an administrator.",
    "keys": "API keys: scopes, rotation with overlap, revocation.",
    "docs": "These pages, for programs.",
}
_METHODS = ("get", "post", "put", "patch", "delete")


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            summary="Videos from prompts: submit a job, follow it, download the result.",
            description=sections.as_markdown(),
            routes=app.routes,
            webhooks=webhooks.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        _complete(made)
        app.openapi_schema = made
    return app.openapi_schema


def operations(made: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of everything that is served."""
    for path, item in made["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def _complete(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"], schemas["Violation"] = _PROBLEM, _VIOLATION
    made["components"]["responses"] = {str(status): _response(status) for status in _statuses()}
    made["components"]["parameters"] = _PARAMETERS
    made["components"]["headers"] = _HEADERS
    for _, method, operation in operations(made):
        _complete_operation(method, operation)
    for item in made.get("webhooks", {}).values():
        for operation in item.values():
            operation["responses"] = {"2XX": {"description": "It was received. Anything else is tried again."}}
    for path, method, status, links in _LINKS:
        made["paths"][path][method]["responses"][status]["links"] = links
    batch = made["paths"]["/api/v1/batches"]["post"]["requestBody"]["content"]
    three = list(EXAMPLES.values())
    batch["application/json"]["examples"] = {"batch": {"summary": "Three jobs", "value": three}}
    lines = "\n".join(json.dumps(each) for each in three)
    batch["application/x-ndjson"]["examples"] = {"batch": {"summary": "Three jobs", "value": lines}}
    submit = made["paths"]["/api/v1/jobs"]["post"]
    submit["requestBody"]["content"]["application/json"]["examples"] = examples.submissions()
    for (path, method, status), content in examples.answers().items():
        answer = made["paths"][path][method]["responses"][status]
        answer["content"]["application/json"]["examples"] = content


def _complete_operation(method: str, operation: dict[str, Any]) -> None:
    """Parameters, headers and problems that an operation has because of what it is."""
    parameters = operation.setdefault("parameters", [])
    is_owned, has_body = "security" in operation, "requestBody" in operation
    responses = operation["responses"]
    if is_owned and method == "post":
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if method == "get" and "200" in responses:
        parameters.append({"$ref": "#/components/parameters/IfNoneMatch"})
        responses["304"] = {"description": "You have it already: the ETag that you named is its present one."}
    for status, answer in responses.items():
        answer["headers"] = _headers(method, status)
    responses.pop("422", None)
    has_path = any(each.get("in") == "path" for each in parameters)
    if not parameters:
        del operation["parameters"]
    conditions = {
        400: has_body or any(each.get("name") == "cursor" for each in parameters),
        401: is_owned,
        403: is_owned,
        404: has_path,
        409: method in ("post", "patch") or operation["operationId"] in _OF_COMPLETED_JOBS,
        412: any(each.get("name") == "If-Match" for each in parameters),
        413: is_owned,
        415: has_body,
        416: any(each.get("name") == "Range" for each in parameters),
        422: has_body or has_path or bool(parameters),
        429: is_owned,
        500: True,
        503: is_owned,
    }
    for status, holds in conditions.items():
        if holds:
            responses[str(status)] = {"$ref": f"#/components/responses/{status}"}


#: Operations that read, and are refused where a job is not completed.
_OF_COMPLETED_JOBS = ("get_job_result", "download_job", "download_batch")


def _headers(method: str, status: str) -> dict[str, Any]:
    names = ["X-Request-ID"]
    if method in ("get", "patch", "put") and status in ("200", "304"):
        names.append("ETag")
    if status == "201":
        names.append("Location")
    if method == "post" and status in ("200", "201", "202"):
        names.append("Idempotent-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _statuses() -> list[int]:
    return sorted({int(kind.status) for kind in OF_REQUESTS if kind.status is not None})


def _response(status: int) -> dict[str, Any]:
    kinds = [kind for kind in OF_REQUESTS if kind.status == status]
    names = ["X-Request-ID", *(["Retry-After"] if status in (429, 503) else [])]
    return {
        "description": ". ".join(f"`{kind.code}`: {kind.title}" for kind in kinds) + ".",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {
            PROBLEM: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind.code: {"summary": kind.title, "value": example(kind)} for kind in kinds},
            }
        },
    }


def example(kind: Kind) -> dict[str, Any]:
    """A problem as it is answered."""
    made = {
        "type": f"/api/v1/docs/errors/{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.cause,
        "instance": "/api/v1/jobs",
        "code": kind.code,
        "request_id": "0197a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
        "fix": kind.fix,
    }
    return made | ({"errors": [examples.VIOLATIONS[kind.code]]} if kind.code in examples.VIOLATIONS else {})


def _links(parameter: str, names: tuple[str, ...], field: str = "id") -> dict[str, Any]:
    return {
        name: {"operationId": name, "parameters": {parameter: f"$response.body#/{field}"}} for name in names
    }  # fmt: skip


_SAME_WEBHOOK = "$request.path.webhook_id"
#: Where an answer leads: path, method, status, links.
_LINKS = (
    ("/api/v1/jobs", "post", "201", _links("job_id", (
        "get_job", "change_job", "cancel_job", "get_job_result", "download_job", "list_job_pipelines",
    ))),
    ("/api/v1/batches", "post", "201", _links("batch_id", (
        "get_batch", "cancel_batch", "retry_batch", "download_batch",
    ))),
    ("/api/v1/jobs/{job_id}/result", "get", "200", _links("result_id", ("get_result",))),
    ("/api/v1/keys", "post", "201", _links("key_id", ("get_key", "rotate_key", "revoke_key"))),
    ("/api/v1/users", "post", "201", _links("user_id", ("get_user",))),
    ("/api/v1/webhooks", "post", "201", _links("webhook_id", (
        "get_webhook", "replace_webhook", "change_webhook", "rotate_webhook_secret", "test_webhook", "list_deliveries",
        "replay_failed", "disable_webhook", "enable_webhook", "delete_webhook",
    ))),
    ("/api/v1/webhooks/{webhook_id}/test", "post", "202", {
        name: {"operationId": name, "parameters": {"webhook_id": _SAME_WEBHOOK, its: f"$response.body#{at}"}}
        for name, its, at in (("get_delivery", "delivery_id", "/id"), ("replay_event", "event_id", "/event_id"))
    }),
)  # fmt: skip

_VIOLATION = {
    "type": "object",
    "title": "Violation",
    "description": "A field that breaks a rule.",
    "required": ["field", "rule", "limit", "message", "fix"],
    "properties": {
        "field": {"type": "string", "description": "Its name; of a nested one the way to it, with dots."},
        "rule": {"type": "string", "description": "A stable code of the rule."},
        "limit": {
            "description": "What the rule allows.",
            "anyOf": [
                {"type": "string"},
                {"type": "number"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ],
        },
        "message": {"type": "string", "description": "What was seen."},
        "fix": {"type": "string", "description": "What to do."},
    },
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457). Decide by `code`; the texts may change.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "fix"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Where this kind is explained."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "code": {"type": "string", "enum": [kind.code for kind in OF_REQUESTS]},
        "request_id": {"type": "string"},
        "fix": {"type": "string"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Violation"}},
        "violated-policies": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Of RATE_LIMITED: the limits that are used up.",
        },
    },
}
_PARAMETERS = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Makes a repetition safe: for 24 hours the same key with the same request is answered with the "
        "first answer, and `Idempotent-Replayed: true`. Use a new UUID for each new request.",
        "schema": {"type": "string", "pattern": validation.IDEMPOTENCY_KEY},
        "example": "5f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9",
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "The ETag that you have: where it is still right, the answer is 304 without content.",
        "schema": {"type": "string"},
    },
}
_HEADERS = {
    "X-Request-ID": {"description": "The request's name: yours, or one of ours.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of the representation.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "Only of a repetition: the answer is that of the first request.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Where the new resource is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
}
