"""The events that webhooks tell, for the document: their names and their content.

Source: Standard Webhooks, "Payload".
"""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import create_model

from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.operations.views import JobView, View

EVENTS = {
    "job.created": "A job was submitted.",
    "job.started": "A worker has taken a job.",
    "job.progress": "A job's progress has changed.",
    "job.completed": "A job is completed: its result can be downloaded.",
    "job.failed": "A job has failed: `data.failure` tells why.",
    "batch.created": "A batch was submitted.",
    "batch.completed": "Every job of a batch has ended.",
}


class BatchView(View):
    """A batch: how many of its jobs are in which state."""

    id: Id
    jobs: int
    completed: int
    failed: int
    cancelled: int


def _model(name: str) -> type[View]:
    kind, _, what = name.partition(".")
    data: Any = JobView if kind == "job" else BatchView
    fields: dict[str, Any] = {"type": (Literal[name], ...), "timestamp": (datetime, ...), "data": (data, ...)}
    made: type[View] = create_model(f"{kind.title()}{what.title()}Event", __base__=View, __doc__=EVENTS[name], **fields)
    return made


def _router() -> APIRouter:
    router = APIRouter()
    for name, text in EVENTS.items():

        def receive(event: Any) -> None:
            """Answer 2xx within the time allowed; verify the signature first."""

        receive.__annotations__ = {"event": _model(name), "return": None}
        receive.__doc__ = f"{text} {receive.__doc__}"
        router.post(name, name=name, operation_id=name, summary=text)(receive)
    return router


webhooks = _router()
