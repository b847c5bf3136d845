"""Repeated POSTs do their work once: the answer is stored in the transaction of the change, and answered again.

What happens is Stripe's: same key and same request → the stored answer, marked; another request → 409; while the first
has not ended → 409 with Retry-After. A request that fails changes nothing and stores nothing: a repetition tries anew.
After kill -9 nothing is left of it either: change, answer and lock end with the transaction.
Source: Stripe API reference, "Idempotent requests"; draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from aiprod_ops.service import validation
from aiprod_ops.service.http.credentials import Caller
from aiprod_ops.service.http.problems import RETRY_SECONDS, Problem
from aiprod_ops.service.tables import idempotency_keys as stored

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
KEPT = timedelta(hours=24)
_KEPT_HEADERS = ("content-type", "location", "etag")
_KEY = re.compile(validation.IDEMPOTENCY_KEY)
#: Of so many new answers one takes away so many that are too old: nobody has to sweep, and no request pays for many.
_SWEPT_EVERY, _SWEPT = 8, 40


async def once(
    connection: AsyncConnection, caller: Caller, request: Request, work: Callable[[Request], Awaitable[Response]]
) -> Response:
    """The answer to a request with a key: what `work` answers now, or what it answered before."""
    key = _key(request)
    # Not a row lock: a row that nobody has committed yet cannot be locked, only waited for.
    lock = select(func.pg_try_advisory_xact_lock(_number(caller.user_id, key)))
    if not (await connection.execute(lock)).scalar_one():
        raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT", headers={"Retry-After": str(RETRY_SECONDS)})
    fingerprint = await _fingerprint(request, caller)
    # A statement of its own: its snapshot is taken after the lock, so that it sees what the holder before committed.
    query = select(stored).where(
        stored.c.user_id == caller.user_id, stored.c.key == key, stored.c.created_at > func.now() - KEPT
    )
    before = (await connection.execute(query)).one_or_none()
    if before is not None:
        if bytes(before.fingerprint) != fingerprint:
            raise Problem("IDEMPOTENCY_KEY_REUSED")
        return Response(bytes(before.body), before.status, {**before.headers, REPLAYED: "true"})
    response = await work(request)
    if response.status_code < 300:
        await _store(connection, caller, key, fingerprint, request, response)
    return response


def _key(request: Request) -> str:
    key = request.headers.get(HEADER, "")
    if not _KEY.fullmatch(key):
        fix = "Send 1 to 255 visible ASCII characters, such as a UUID."
        wrong = validation.Violation(HEADER, "pattern", validation.IDEMPOTENCY_KEY, "It has another form.", fix)
        raise Problem("VALIDATION_FAILED", f"The header {HEADER} does not follow the rules.", errors=[wrong])
    return key


def _number(user_id: str, key: str) -> int:
    """A user's key as an advisory lock: two that meet in 64 bits only wait for each other."""
    return int.from_bytes(hashlib.sha256(f"idempotency\0{user_id}\0{key}".encode()).digest()[:8], "big", signed=True)


async def _fingerprint(request: Request, caller: Caller) -> bytes:
    # With the scopes: a weaker key of the same user must not be answered what a stronger one was.
    parts = (request.method, request.url.path, request.url.query, *sorted(caller.scopes))
    # What was too large to be kept is there as its digest.
    body = getattr(request.state, "body_digest", None) or await request.body()
    return hashlib.sha256("\0".join(parts).encode() + b"\0\0" + body).digest()


async def _store(
    connection: AsyncConnection, caller: Caller, key: str, fingerprint: bytes, request: Request, response: Response
) -> None:
    # An answer with a secret has another form to be stored: see `requests.stored_as`.
    body = getattr(request.state, "stored_body", None) or bytes(response.body)
    values = {
        "fingerprint": fingerprint,
        "status": response.status_code,
        "headers": {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
        "body": body,
        "created_at": func.now(),
    }
    insertion = insert(stored).values(user_id=caller.user_id, key=key, **values)
    await connection.execute(insertion.on_conflict_do_update(index_elements=["user_id", "key"], set_=values))
    if fingerprint[0] % _SWEPT_EVERY == 0:
        await connection.execute(_SWEEP, {"hours": KEPT // timedelta(hours=1), "most": _SWEPT})


_SWEEP = text("""
delete from idempotency_keys where ctid = any (array(
    select ctid from idempotency_keys where created_at < now() - make_interval(hours => :hours)
    order by created_at limit :most for update skip locked
)) /* aiprod-ops: answers that are no longer kept */
""")
