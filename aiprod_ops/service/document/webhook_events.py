"""The events that webhooks tell, for the document: their names and their content.

Source: Standard Webhooks, "Payload structure".
"""

from datetime import date, datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import create_model

from aiprod_ops.domain.webhooks import EVENTS
from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.operations.views import JobView, View
from aiprod_ops.service.operations.webhook_views import WhyName


class BatchView(View):
    """A batch: how many of its jobs are in which state."""

    id: Id
    jobs: int
    completed: int
    failed: int
    cancelled: int


class QuotaView(View):
    """A share of a month's cost units that is used up; `month` is its first day (UTC)."""

    month: date
    percent: int
    cost_units: int
    monthly_cost_units: int


class DisabledView(View):
    """An endpoint that is sent nothing any more: `failing` (it is probed, and enabled when it takes something), or
    `gone` (it answered 410)."""

    endpoint_id: Id
    url: str
    why: WhyName
    failures_in_a_row: int
    disabled_at: datetime


class TestView(View):
    """The endpoint that the test was asked for."""

    endpoint_id: Id


_DATA = {
    "job": JobView, "batch": BatchView, "quota.warning": QuotaView, "endpoint.disabled": DisabledView,
    "endpoint.test": TestView,
}  # fmt: skip


def _model(name: str) -> type[View]:
    kind, _, what = name.partition(".")
    data: Any = _DATA.get(name) or _DATA[kind]
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
