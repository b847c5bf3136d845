"""Users: yourself, and all of them for an administrator."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.http import etags
from aiprod_ops.service.http.etags import IfMatch
from aiprod_ops.service.http.fields import Email, Id, Request, Text
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import AdminCaller, AnyCaller, OwnedRoute, TheService, Transaction
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.operations.views import Page, TierName, UserView
from aiprod_ops.service.tables import users

router = APIRouter(prefix="/users", tags=["users"], route_class=OwnedRoute)
Name = Annotated[str, Text(120, lines=False)]


class NewUser(Request):
    """A user to be made."""

    email: Email
    name: Name
    tier: TierName = "free"


class UserChange(Request):
    """What somebody may change of themselves."""

    name: Name


class TierChange(Request):
    """What an administrator may change of a user."""

    tier: TierName


class UsersPage(PageRequest):
    """Which users, and which part of their list."""

    tier: TierName | None = Field(None, description="Only users of this tier.")


@router.get("/me")
async def get_me(caller: AnyCaller, transaction: Transaction) -> UserView:
    """You."""
    return await _user(transaction, caller.user_id)


@router.patch("/me")
async def change_me(
    change: UserChange, caller: AnyCaller, transaction: Transaction, if_match: IfMatch = None
) -> UserView:
    """Change your name."""
    etags.require(if_match, await _user(transaction, caller.user_id, locks=True))
    return await _changed(transaction, caller.user_id, {"name": change.name})


@router.post("", status_code=201)
async def create_user(new: NewUser, _: AdminCaller, transaction: Transaction, response: Response) -> UserView:
    """Make a user. Needs the scope `admin`."""
    row = await made(transaction, new.email, new.name, new.tier)
    response.headers["Location"] = f"/api/v1/users/{row['id']}"
    return UserView(**row)


@router.get("")
async def list_users(
    page: Annotated[UsersPage, Query()], caller: AdminCaller, transaction: Transaction, service: TheService
) -> Page[UserView]:
    """All users. Needs the scope `admin`."""
    query = select(users) if page.tier is None else select(users).where(users.c.tier == page.tier)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "users", {"tier": page.tier})
    rows, cursor = await listing.part(transaction, query, users.c.id, page)
    return Page(items=[UserView(**row) for row in rows], next_cursor=cursor)


@router.get("/{user_id}")
async def get_user(user_id: Id, _: AdminCaller, transaction: Transaction) -> UserView:
    """Any user. Needs the scope `admin`."""
    return await _user(transaction, user_id)


@router.patch("/{user_id}")
async def change_user(
    user_id: Id, change: TierChange, _: AdminCaller, transaction: Transaction, if_match: IfMatch = None
) -> UserView:
    """Change any user's tier. Needs the scope `admin`. It counts within 5 s."""
    etags.require(if_match, await _user(transaction, user_id, locks=True))
    return await _changed(transaction, user_id, {"tier": change.tier})


async def _changed(transaction: AsyncConnection, user_id: str, values: dict[str, str]) -> UserView:
    change = update(users).where(users.c.id == user_id).values(values).returning(users)
    return UserView(**(await transaction.execute(change)).mappings().one())


async def _user(transaction: AsyncConnection, user_id: str, *, locks: bool = False) -> UserView:
    query = select(users).where(users.c.id == user_id)
    row = (await transaction.execute(query.with_for_update() if locks else query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "There is no user with this id.")
    return UserView(**row)


async def found(transaction: AsyncConnection, email: str) -> RowMapping | None:
    """The user with an address, whatever its case. Until the end of the transaction nobody else makes one with it."""
    number = func.hashtextextended(func.lower(email), 0)
    await transaction.execute(select(func.pg_advisory_xact_lock(number)))
    query = select(users).where(func.lower(users.c.email) == email.lower()).limit(1)
    return (await transaction.execute(query)).mappings().one_or_none()


async def made(transaction: AsyncConnection, email: str, name: str, tier: str) -> RowMapping:
    """A new user's row; raises Problem EMAIL_TAKEN."""
    if await found(transaction, email) is not None:
        raise Problem("EMAIL_TAKEN")
    new = insert(users).values(id=str(uuid7()), email=email, name=name, tier=tier).returning(users)
    row: RowMapping = (await transaction.execute(new)).mappings().one()
    return row
