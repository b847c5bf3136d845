"""The cache as an administrator sees it: values by their key, in our own part of Redis and nowhere else."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field, JsonValue
from starlette.convertors import StringConvertor, register_url_convertor

from aiprod_ops.service.cache import DEFAULT_TTL, LONG_TTL, RedisCache
from aiprod_ops.service.http.fields import Request, Whole
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import AdminCaller, OwnedRoute


class _KeyInPath(StringConvertor):
    """A key is one part of a path, and `/cache/health` is no value's: whoever could store one could not read it."""

    regex = r"(?!health(?:/|$))[^/]+"


register_url_convertor("cache_key", _KeyInPath())
router = APIRouter(prefix="/cache", tags=["cache"], route_class=OwnedRoute)
#: What no log and no shell changes; a colon divides, as everywhere in Redis.
Key = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$", description="Of a value in the cache.")]
_ABSENT = object()


class NewValue(Request):
    """A value to be stored for `ttl_seconds`."""

    value: JsonValue
    ttl_seconds: Annotated[int, Whole(1, int(LONG_TTL))] = int(DEFAULT_TTL)


class CachedValue(BaseModel):
    """A value of the cache. `is_stored` is false where Redis does not take it; nothing is lost by that."""

    key: str
    value: JsonValue
    is_stored: bool = Field(description="Whether it will be found again.")


class CacheHealth(BaseModel):
    """How the cache is; `owed_invalidations` are those that Redis has to confirm before it is read again."""

    status: str
    round_trip_ms: float | None
    why: str
    owed_invalidations: int


@router.get("/health")
async def get_cache_health(_: AdminCaller) -> CacheHealth:
    """Whether Redis answers. Needs the scope `admin`."""
    told: dict[str, Any] = await RedisCache().health()
    return CacheHealth(
        status=told["status"],
        round_trip_ms=told["round_trip_ms"],
        why=told["why"] or "",
        owed_invalidations=told["owed_invalidations"],
    )


@router.get("/{key:cache_key}")
async def get_cached(key: Key, _: AdminCaller) -> CachedValue:
    """A value of the cache. Needs the scope `admin`."""
    value = await RedisCache().get(key, _ABSENT)
    if value is _ABSENT:
        raise Problem("NOT_FOUND", "The cache has no value with this key, or does not answer.")
    return CachedValue(key=key, value=value, is_stored=True)


@router.post("/{key:cache_key}")
async def set_cached(key: Key, new: NewValue, _: AdminCaller) -> CachedValue:
    """Store a value. Needs the scope `admin`."""
    is_stored = await RedisCache().set(key, new.value, new.ttl_seconds)
    return CachedValue(key=key, value=new.value, is_stored=is_stored)


@router.delete("/{key:cache_key}", status_code=204)
async def delete_cached(key: Key, _: AdminCaller) -> Response:
    """Delete a value, whether it was there or not. Needs the scope `admin`."""
    await RedisCache().delete(key)
    return Response(status_code=204)
