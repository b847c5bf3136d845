"""Endpoints of webhooks: what they are made of, and what is answered of them, of their deliveries and attempts."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from aiprod_ops.domain import urls
from aiprod_ops.domain.webhooks import EVENTS, SECRET, TEST
from aiprod_ops.service.http.fields import Request, Text, Whole
from aiprod_ops.service.operations.views import View

MOST_IN_FLIGHT, MOST_PER_SECOND = 100, 1_000
LONGEST_OVERLAP_SECONDS = 7 * 86_400
LONGEST_DESCRIPTION = 200

StateName = Literal["enabled", "disabled"]
DeliveryState = Literal["pending", "delivered", "failed", "cancelled"]
WhyName = Literal["failing", "gone", "owner"]
if TYPE_CHECKING:
    EventName: TypeAlias = str
    SubscribedName: TypeAlias = str
else:
    EventName = Literal[tuple(EVENTS)]
    SubscribedName = Literal[tuple(name for name in EVENTS if name != TEST)]

_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]{8,30}([Zz]|[+-][0-9]{2}:[0-9]{2})")


def _stamp(value: Any) -> Any:
    # Without this a number would be taken for seconds since 1970, and a day for its midnight.
    if not (isinstance(value, str) and _STAMP.fullmatch(value)):
        expected = "2026-11-28T12:00:00Z"
        context = {
            "limit": "date-time",
            "seen": "It is no time with a time zone.",
            "fix": f"Send one such as {expected}.",
        }
        raise PydanticCustomError("format", "{seen}", context)
    return value


Moment = Annotated[datetime, BeforeValidator(_stamp), Field(strict=False)]
#: What it may be depends on the settings: whoever takes it looks at it (`webhooks.require_url`).
WebhookUrl = Annotated[
    str,
    StringConstraints(max_length=urls.LONGEST),
    Field(json_schema_extra={"pattern": urls.ENDPOINT_PATTERN, "format": "uri", "not": {"pattern": urls.OURS_PATTERN}}),
]
Events = Annotated[
    list[SubscribedName], Field(max_length=len(EVENTS), description="What it is told; nothing here: everything.")
]
Description = Annotated[str, Text(LONGEST_DESCRIPTION, lines=False)]
Secret = Annotated[
    str,
    StringConstraints(pattern=SECRET),
    Field(description="`whsec_` and 24 to 64 bytes as base64. Without it one is made, which is better."),
]
InFlight = Annotated[int, Whole(1, MOST_IN_FLIGHT), Field(description="So many are sent to it at the same time.")]
PerSecond = Annotated[int, Whole(1, MOST_PER_SECOND)]


class WebhookSettings(Request):
    """An endpoint as its owner wants it. `ordered`: the next event is sent when the one before has ended. `long_tail`:
    after the first retries it is tried for three days. `per_second`: so many at the most; null: as fast as it answers.
    """

    url: WebhookUrl
    events: Events = Field(default_factory=list)
    description: Description | None = None
    ordered: bool = False
    long_tail: bool = False
    in_flight: InFlight = 10
    per_second: PerSecond | None = None


class NewWebhook(WebhookSettings):
    """An endpoint to be made."""

    secret: Secret | None = None


class WebhookChange(Request):
    """What may be changed of an endpoint; what is not there stays."""

    url: WebhookUrl | None = None
    events: Events | None = None
    description: Description | None = None
    ordered: bool | None = None
    long_tail: bool | None = None
    in_flight: InFlight | None = None
    per_second: PerSecond | None = None


class SecretRotation(Request):
    """How long the old secret signs beside the new one: long enough to bring the new one to the receiver. What
    rotations before have promised stays; with 0 every older secret ends at once, as for one that has leaked."""

    overlap_seconds: Annotated[int, Whole(0, LONGEST_OVERLAP_SECONDS)] = 86_400
    secret: Secret | None = None


class FailedSince(Request):
    """Which failed deliveries are sent again: those of events since then, and of one type where it is given."""

    since: Moment
    event: EventName | None = None


class WebhookView(View):
    """An endpoint. `failures_in_a_row` counts deliveries; a disabled one is sent nothing; `why_disabled` tells why."""

    id: str
    url: str
    events: list[EventName]
    description: str
    state: StateName
    why_disabled: WhyName | None
    disabled_at: datetime | None
    failures_in_a_row: int
    ordered: bool
    long_tail: bool
    in_flight: int
    per_second: int | None
    created_at: datetime
    updated_at: datetime


class NewWebhookView(WebhookView):
    """An endpoint with a new secret. `secret` is told once: a repeated request is answered with null there."""

    secret: str | None


class AttemptView(View):
    """One request to an endpoint. `status` is HTTP's, null where there was no answer: `error` tells why."""

    number: int
    began_at: datetime
    milliseconds: int
    status: int | None
    error: str | None


class AnsweredAttemptView(AttemptView):
    """The same with the first 2 KB of what was answered."""

    response_body: str | None


class _Delivery(View):
    id: str
    event_id: str
    event: EventName
    state: DeliveryState
    created_at: datetime
    due_at: datetime | None
    ended_at: datetime | None


class DeliveryView(_Delivery):
    """An event on its way to an endpoint, with the last attempts. `due_at` is when it is sent next; null when it has
    ended."""

    attempts: list[AttemptView]


class SentDeliveryView(_Delivery):
    """The same with `payload`, exactly as it is signed and sent, and with what was answered."""

    attempts: list[AnsweredAttemptView]
    payload: str


class ReplayedView(View):
    """How many deliveries are due again; `more`: there are others, ask once more."""

    replayed: int
    more: bool


def stored(given: Mapping[str, Any]) -> dict[str, Any]:
    """An endpoint's settings as its row has them."""
    values = dict(given)
    if "events" in values:
        values["events"] = sorted(set(values["events"]))
    if values.get("description", "") is None:
        values["description"] = ""
    return values
