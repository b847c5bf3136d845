"""API keys: what they look like, what is stored of them, and who somebody with one is.

A key is `aiprod_PREFIX_SECRET`. The prefix finds it; of the whole key only the SHA-256 is stored. It has 256 random
bits, so that no salt and no slow hash is needed (those protect what people think of). The comparison takes the same
time whatever is wrong, also where there is no such prefix.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import Scope

from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.tables import api_keys, users
from aiprod_ops.units import Seconds

_KEY = re.compile(r"aiprod_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: what its key says."""

    user_id: str
    key_id: str
    tier: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; `key` is not stored anywhere."""

    key: str
    prefix: str

    @property
    def digest(self) -> str:
        return digest(self.key)


def make() -> NewKey:
    """A new key."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return NewKey(f"aiprod_{prefix}_{secrets.token_urlsafe(32)}", prefix)


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def presented(scope: Scope) -> str:
    """The key in the Authorization header; "" where there is none, or more than one header."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    kind, _, key = found[0].decode("latin-1").partition(" ") if len(found) == 1 else ("", "", "")
    return key.strip() if kind.lower() == "bearer" else ""


def require_form(key: str) -> re.Match[str]:
    """A key's parts; raises Problem UNAUTHENTICATED for what cannot be one, before anybody is asked."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        raise _refused("has another form" if key else "is missing", key)
    return parts


async def authenticate(connection: AsyncConnection, key: str) -> Caller:
    """Who it is; raises Problem UNAUTHENTICATED. Revoking a key, or its end, counts from the next request on."""
    query = (
        select(api_keys.c.id, api_keys.c.user_id, api_keys.c.key_hash, api_keys.c.scopes, users.c.tier)
        .join(users, users.c.id == api_keys.c.user_id)
        .where(
            api_keys.c.prefix == require_form(key)[1],
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()),
        )
    )
    row = (await connection.execute(query)).one_or_none()
    is_known = hmac.compare_digest(digest(key), row.key_hash if row is not None else _NOBODY)
    if row is None or not is_known:
        raise _refused("is not valid: unknown, revoked or expired", key)
    return Caller(row.user_id, row.id, row.tier, frozenset(row.scopes))


def _refused(seen: str, key: str) -> Problem:
    challenge = 'Bearer realm="aiprod"' + (', error="invalid_token"' if key else "")
    detail = f"The API key {seen}; expected `Authorization: Bearer aiprod_…`."
    return Problem("UNAUTHENTICATED", detail, headers={"WWW-Authenticate": challenge})


class Verified:
    """Keys that were lately verified in this process, for what has to know a request's user without the database.

    An entry counts for `lasts`: so long may a key that was revoked elsewhere still be answered from a cache. What reads
    or changes data asks the database.
    """

    def __init__(self, lasts: Seconds = Seconds(5), most: int = 10_000) -> None:
        self._lasts, self._most = lasts, most
        self._known: OrderedDict[str, tuple[float, Caller]] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()  #: when a key of a user ended

    def add(self, key: str, caller: Caller, began: float) -> None:
        """A key was verified; `began` is from before the database was asked (`time.monotonic()`). What it said then
        does not count where a key of this user has ended since."""
        if self._ended.get(caller.user_id, -math.inf) >= began:
            return
        self._known[digest(key)] = (time.monotonic() + self._lasts, caller)
        self._known.move_to_end(digest(key))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """A key of this user ended in this process, and that is committed."""
        self._ended[user_id] = time.monotonic()
        self._ended.move_to_end(user_id)
        if len(self._ended) > self._most:
            self._ended.popitem(last=False)
        for name in [name for name, (_, caller) in self._known.items() if caller.user_id == user_id]:
            del self._known[name]

    def identify(self, scope: Scope) -> Caller | None:
        """Whose request it is, where its key was verified lately."""
        key = presented(scope)
        until, caller = self._known.get(digest(key), (0.0, None)) if key else (0.0, None)
        return caller if until > time.monotonic() else None
