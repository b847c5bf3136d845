"""API keys: make, list, rotate, revoke. Nobody gets more by a key than by the one they use."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from pydantic import Field
from sqlalchemy import RowMapping, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.http import credentials
from aiprod_ops.service.http.credentials import Caller
from aiprod_ops.service.http.fields import Id, Request, Text, Whole
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import AnyCaller, OwnedRoute, TheService, Transaction, stored_as
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.operations.views import KeyView, NewKeyView, Page, Scope
from aiprod_ops.service.tables import api_keys

router = APIRouter(prefix="/keys", tags=["keys"], route_class=OwnedRoute)
LONGEST_OVERLAP_SECONDS = 7 * 86_400
LONGEST_LIFE_DAYS = 3_650


class NewKey(Request):
    """A key to be made. Its scopes are some of those of the key that makes it."""

    label: Annotated[str, Text(120, lines=False)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = Field(default=["jobs"])
    expires_in_days: Annotated[int, Whole(1, LONGEST_LIFE_DAYS)] | None = None


class Rotation(Request):
    """How long the old key counts beside the new one: long enough to bring the new one everywhere."""

    overlap_seconds: Annotated[int, Whole(0, LONGEST_OVERLAP_SECONDS)] = 86_400


@router.post("", status_code=201)
async def create_key(new: NewKey, caller: AnyCaller, transaction: Transaction, request: HttpRequest) -> NewKeyView:
    """Make a key. It is told once, in this answer."""
    _require(caller, new.scopes)
    life = None if new.expires_in_days is None else timedelta(days=new.expires_in_days)
    return _told(request, *await made(transaction, caller.user_id, new.label, new.scopes, life))


@router.get("")
async def list_keys(
    page: Annotated[PageRequest, Query()], caller: AnyCaller, transaction: Transaction, service: TheService
) -> Page[KeyView]:
    """Your keys, newest first, those that were revoked included."""
    query = select(api_keys).where(api_keys.c.user_id == caller.user_id)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "keys", {})
    rows, cursor = await listing.part(transaction, query, api_keys.c.id, page)
    return Page(items=[KeyView(**row) for row in rows], next_cursor=cursor)


@router.get("/{key_id}")
async def get_key(key_id: Id, caller: AnyCaller, transaction: Transaction) -> KeyView:
    """One of your keys."""
    return KeyView(**await _owned(transaction, caller, key_id))


@router.post("/{key_id}/rotate", status_code=201)
async def rotate_key(
    key_id: Id,
    caller: AnyCaller,
    transaction: Transaction,
    request: HttpRequest,
    rotation: Rotation = Rotation(),  # noqa: B008 it is frozen
) -> NewKeyView:
    """Make a key with the same scopes; the old one ends after the overlap. The new one is told once."""
    old = await _owned(transaction, caller, key_id, locks=True)
    _require(caller, old["scopes"])
    now = datetime.now(UTC)
    if old["revoked_at"] is not None or (old["expires_at"] is not None and old["expires_at"] <= now):
        raise Problem("NOT_FOUND", "This key has ended: make a new one.")
    end = now + timedelta(seconds=rotation.overlap_seconds)
    # A key that ends sooner anyway keeps its end.
    sooner = update(api_keys).where(api_keys.c.id == key_id)
    sooner = sooner.where(or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > end))
    await transaction.execute(sooner.values(expires_at=end))
    return _told(request, *await made(transaction, caller.user_id, old["label"], old["scopes"], None))


@router.post("/{key_id}/revoke")
async def revoke_key(key_id: Id, caller: AnyCaller, transaction: Transaction, service: TheService) -> KeyView:
    """End a key now. It stays in the list."""
    old = await _owned(transaction, caller, key_id, locks=True)
    _require(caller, old["scopes"])
    change = update(api_keys).where(api_keys.c.id == key_id)
    change = change.values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now())).returning(api_keys)
    row = (await transaction.execute(change)).mappings().one()
    service.verified.forget(caller.user_id)
    return KeyView(**row)


async def made(
    transaction: AsyncConnection, user_id: str, label: str, scopes: Collection[str], life: timedelta | None
) -> tuple[RowMapping, str]:
    """The row of a new key, and the key: it is nowhere else."""
    new = credentials.make()
    values = {
        "id": str(uuid7()),
        "user_id": user_id,
        "key_hash": new.digest,
        "label": label,
        "prefix": new.prefix,
        "scopes": sorted(set(scopes)),
        "expires_at": None if life is None else datetime.now(UTC) + life,
    }
    row = (await transaction.execute(insert(api_keys).values(values).returning(api_keys))).mappings().one()
    return row, new.key


def _told(request: HttpRequest, row: RowMapping, key: str) -> NewKeyView:
    stored_as(request, NewKeyView(**row, key=None).model_dump_json().encode())
    return NewKeyView(**row, key=key)


def _require(caller: Caller, scopes: Collection[str]) -> None:
    if more := sorted(set(scopes) - caller.scopes):
        raise Problem("INSUFFICIENT_SCOPE", f"Your key lacks the scope {', '.join(more)}, which the other one has.")


async def _owned(transaction: AsyncConnection, caller: Caller, key_id: str, *, locks: bool = False) -> RowMapping:
    query = select(api_keys).where(api_keys.c.id == key_id, api_keys.c.user_id == caller.user_id)
    row = (await transaction.execute(query.with_for_update() if locks else query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no key with this id.")
    return row
