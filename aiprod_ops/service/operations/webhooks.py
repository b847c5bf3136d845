"""Webhooks: endpoints and their secrets. What was sent to them stands in `deliveries`. Somebody else's is not there."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Request as HttpRequest
from pydantic import Field
from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.webhooks import MOST_SECRETS, WhyDisabled, key_of, new_key, shown
from aiprod_ops.service import webhooks
from aiprod_ops.service.http import etags
from aiprod_ops.service.http.credentials import Caller
from aiprod_ops.service.http.etags import IfMatch
from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import OwnedRoute, TheService, Transaction, WebhooksCaller, stored_as
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.operations.views import Page
from aiprod_ops.service.operations.webhook_views import (
    NewWebhook,
    NewWebhookView,
    SecretRotation,
    StateName,
    WebhookChange,
    WebhookSettings,
    WebhookView,
    stored,
)
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.tables import webhook_endpoints, webhook_secrets
from aiprod_ops.service.validation import endpoint_url, violations_now

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=OwnedRoute)
MOST_ENDPOINTS = 50  #: of one user: each event is written once, and its delivery for each of them


class WebhooksPage(PageRequest):
    """Which endpoints, and which part of their list."""

    state: StateName | None = Field(None, description="Only endpoints in this state.")


@router.post("", status_code=201)
async def create_webhook(
    new: NewWebhook,
    caller: WebhooksCaller,
    transaction: Transaction,
    service: TheService,
    request: HttpRequest,
    response: Response,
) -> NewWebhookView:
    """Have events sent to a URL. The secret that signs them is told once, in this answer."""
    require_url(service.settings, new.url)
    count = select(func.count()).select_from(webhook_endpoints).where(_is_of(caller))
    if (await transaction.execute(count)).scalar_one() >= MOST_ENDPOINTS:
        raise Problem("TOO_MANY_WEBHOOKS", f"You have {MOST_ENDPOINTS} endpoints, the most that there may be.")
    values = {"id": str(uuid7()), "user_id": caller.user_id, **stored(new.model_dump(exclude={"secret"}))}
    made = insert(webhook_endpoints).values(values).returning(webhook_endpoints)
    row = (await transaction.execute(made)).mappings().one()
    response.headers["Location"] = f"/api/v1/webhooks/{row['id']}"
    return _told(request, row, await _new_secret(transaction, row["id"], new.secret))


@router.get("")
async def list_webhooks(
    page: Annotated[WebhooksPage, Query()], caller: WebhooksCaller, transaction: Transaction, service: TheService
) -> Page[WebhookView]:
    """Your endpoints, newest first."""
    query = select(webhook_endpoints).where(_is_of(caller))
    if page.state is not None:
        query = query.where(webhook_endpoints.c.state == page.state)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "webhooks", {"state": page.state})
    rows, cursor = await listing.part(transaction, query, webhook_endpoints.c.id, page)
    return Page(items=[WebhookView(**row) for row in rows], next_cursor=cursor)


@router.get("/{webhook_id}")
async def get_webhook(webhook_id: Id, caller: WebhooksCaller, transaction: Transaction) -> WebhookView:
    """One of your endpoints."""
    return WebhookView(**await owned(transaction, caller, webhook_id))


@router.put("/{webhook_id}")
async def replace_webhook(
    webhook_id: Id,
    settings: WebhookSettings,
    caller: WebhooksCaller,
    transaction: Transaction,
    service: TheService,
    if_match: IfMatch = None,
) -> WebhookView:
    """Change all of an endpoint: what is not there becomes what it is by default. State and secret stay."""
    require_url(service.settings, settings.url)
    return await _changed(transaction, caller, webhook_id, if_match, settings.model_dump())


@router.patch("/{webhook_id}")
async def change_webhook(
    webhook_id: Id,
    change: WebhookChange,
    caller: WebhooksCaller,
    transaction: Transaction,
    service: TheService,
    if_match: IfMatch = None,
) -> WebhookView:
    """Change some of an endpoint. `per_second` may be null: as fast as it answers; another null changes nothing."""
    if change.url is not None:
        require_url(service.settings, change.url)
    given = change.model_dump(exclude_unset=True)
    values = {name: value for name, value in given.items() if value is not None or name == "per_second"}
    return await _changed(transaction, caller, webhook_id, if_match, values)


@router.delete("/{webhook_id}", status_code=204)
async def delete_webhook(
    webhook_id: Id, caller: WebhooksCaller, transaction: Transaction, if_match: IfMatch = None
) -> None:
    """Delete an endpoint, with the history of its deliveries."""
    etags.require(if_match, WebhookView(**await owned(transaction, caller, webhook_id, locks=True)))
    await webhooks.delete(transaction, webhook_id)


@router.post("/{webhook_id}/rotate", status_code=201)
async def rotate_webhook_secret(
    webhook_id: Id,
    caller: WebhooksCaller,
    transaction: Transaction,
    request: HttpRequest,
    rotation: SecretRotation = SecretRotation(),  # noqa: B008 it is frozen
) -> NewWebhookView:
    """Sign with a new secret, and with the older ones as well, each until its overlap ends. The new one is told once.
    Without an overlap all older ones end at once."""
    row = await owned(transaction, caller, webhook_id, locks=True)
    now = (await transaction.execute(select(func.clock_timestamp()))).scalar_one()
    await _end_secrets(transaction, webhook_id, now, timedelta(seconds=rotation.overlap_seconds))
    return _told(request, row, await _new_secret(transaction, webhook_id, rotation.secret))


@router.post("/{webhook_id}/enable")
async def enable_webhook(webhook_id: Id, caller: WebhooksCaller, transaction: Transaction) -> WebhookView:
    """Send an endpoint again what comes, and what waits for it. What failed meanwhile can be replayed."""
    await owned(transaction, caller, webhook_id, locks=True)
    await webhooks.enable(transaction, webhook_id)
    return WebhookView(**await owned(transaction, caller, webhook_id))


@router.post("/{webhook_id}/disable")
async def disable_webhook(webhook_id: Id, caller: WebhooksCaller, transaction: Transaction) -> WebhookView:
    """Send an endpoint nothing, until you enable it. Events that come meanwhile are not kept for it."""
    await owned(transaction, caller, webhook_id, locks=True)
    await webhooks.disable(transaction, webhook_id, WhyDisabled.OWNER)
    return WebhookView(**await owned(transaction, caller, webhook_id))


async def owned(transaction: AsyncConnection, caller: Caller, webhook_id: str, *, locks: bool = False) -> RowMapping:
    """The row of an endpoint of the caller's; raises Problem NOT_FOUND."""
    query = select(webhook_endpoints).where(webhook_endpoints.c.id == webhook_id, _is_of(caller))
    # Not FOR UPDATE: that would wait for every change whose event this endpoint is told.
    query = query.with_for_update(key_share=True) if locks else query
    row = (await transaction.execute(query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no webhook with this id.")
    return row


def require_enabled(row: RowMapping) -> None:
    """Raise Problem WEBHOOK_DISABLED for an endpoint that is sent nothing."""
    if row["state"] != "enabled":
        raise Problem("WEBHOOK_DISABLED", f"It is disabled ({row['why_disabled']}): enable it first.")


def require_url(settings: Settings, text: str) -> None:
    """Raise Problem VALIDATION_FAILED for a URL that nothing is sent to. Where it leads is looked at at each use."""
    if found := violations_now(endpoint_url("url", private=settings.private_webhooks), text):
        raise Problem("VALIDATION_FAILED", "These fields do not follow the rules: url.", errors=found)


def _is_of(caller: Caller) -> ColumnElement[bool]:
    columns = webhook_endpoints.c
    return and_(columns.user_id == caller.user_id, columns.why_disabled.is_distinct_from(WhyDisabled.DELETED.value))


async def _changed(
    transaction: AsyncConnection, caller: Caller, webhook_id: str, if_match: str | None, values: dict[str, Any]
) -> WebhookView:
    row = await owned(transaction, caller, webhook_id, locks=True)
    etags.require(if_match, WebhookView(**row))
    if not values:
        return WebhookView(**row)
    change = update(webhook_endpoints).where(webhook_endpoints.c.id == webhook_id)
    change = change.values(updated_at=datetime.now(UTC), **stored(values))
    return WebhookView(**(await transaction.execute(change.returning(webhook_endpoints))).mappings().one())


async def _end_secrets(transaction: AsyncConnection, webhook_id: str, now: datetime, overlap: timedelta) -> None:
    """Let the present secret count for so long; what a rotation before has promised to an older one is kept. Raises
    Problem TOO_MANY_SECRETS where there is no room for another one."""
    its, end = webhook_secrets.c.endpoint_id == webhook_id, webhook_secrets.c.expires_at
    over = its if not overlap else and_(its, end <= now)
    await transaction.execute(delete(webhook_secrets).where(over))
    ends = (await transaction.execute(select(end).where(its))).scalars().all()
    if len(ends) >= MOST_SECRETS:
        first_end = min(each for each in ends if each is not None).astimezone(UTC)
        raise Problem(
            "TOO_MANY_SECRETS",
            f"It is signed with {len(ends)} secrets, the most that there may be; the first of them ends at "
            f"{first_end:%Y-%m-%d %H:%M:%S} UTC. Rotate after that, or with overlap_seconds 0: then all older ones end "
            "at once.",
        )
    await transaction.execute(update(webhook_secrets).where(its, end.is_(None)).values(expires_at=now + overlap))


async def _new_secret(transaction: AsyncConnection, webhook_id: str, given: str | None) -> str:
    key = new_key() if given is None else key_of(given)
    # Not when the transaction began: of two rotations the one that waited for the other made the newer secret.
    values = {"id": str(uuid7()), "endpoint_id": webhook_id, "secret": key, "created_at": func.clock_timestamp()}
    await transaction.execute(insert(webhook_secrets).values(values))
    return shown(key)


def _told(request: HttpRequest, row: RowMapping, secret: str) -> NewWebhookView:
    stored_as(request, NewWebhookView(**row, secret=None).model_dump_json().encode())
    return NewWebhookView(**row, secret=secret)
