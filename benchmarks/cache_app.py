"""One endpoint behind one cache: `cache_app.py CACHE PORT REDIS_PORT`, CACHE being none, ours, cashews, aiocache or
fastapi-cache2. Runs in the environment that has it. The endpoint is cheap: 2 KB of JSON from memory, and a key checked.
"""

import hashlib
import hmac
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException

Endpoint = Callable[..., Any]
KEY = hashlib.sha256(b"ada").digest()
STEPS = [{"name": f"step {number}", "state": "completed", "seconds": number * 1.5, "artifacts": [f"a{number}.mp4"]}
         for number in range(22)]  # fmt: skip


def user(x_api_key: str = Header()) -> str:
    if not hmac.compare_digest(hashlib.sha256(x_api_key.encode()).digest(), KEY):
        raise HTTPException(401)
    return x_api_key


async def job(job_id: str, user: str = Depends(user)) -> dict[str, Any]:
    return {"id": job_id, "owner": user, "status": "completed", "steps": STEPS}


def ours(app: FastAPI, redis_port: int) -> Any:
    from aiprod_ops.service import RedisCache, RedisPlace, StoredResponses, cached_endpoint, stored_routes

    cache = RedisCache(RedisPlace("127.0.0.1", redis_port))
    cached = cached_endpoint(ttl=600, tags=("job:{job_id}",), user="{user}", cache=lambda: cache)(job)
    app.get("/jobs/{job_id}")(cached)

    def identify(scope: Any) -> str | None:
        """As the API does it: a table of keys that were verified lately."""
        return verified.get(dict(scope["headers"]).get(b"x-api-key", b""))

    verified = {b"ada": "ada"}
    return StoredResponses(app, cache=cache, routes=stored_routes(app.routes), identify=identify)


def none(app: FastAPI, redis_port: int) -> Any:  # noqa: ARG001
    app.get("/jobs/{job_id}")(job)
    return app


def cashews(app: FastAPI, redis_port: int) -> Any:
    from cashews import cache

    cache.setup(f"redis://127.0.0.1:{redis_port}/1")
    app.get("/jobs/{job_id}")(cache(ttl="10m", key="job:{job_id}:{user}")(job))
    return app


def aiocache(app: FastAPI, redis_port: int) -> Any:
    from aiocache import RedisCache, cached
    from aiocache.serializers import JsonSerializer

    options = {"endpoint": "127.0.0.1", "port": redis_port, "db": 2}
    app.get("/jobs/{job_id}")(cached(ttl=600, cache=RedisCache, serializer=JsonSerializer(), **options)(job))
    return app


def fastapi_cache2(app: FastAPI, redis_port: int) -> Any:
    import redis.asyncio
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.redis import RedisBackend
    from fastapi_cache.decorator import cache

    FastAPICache.init(RedisBackend(redis.asyncio.Redis(host="127.0.0.1", port=redis_port, db=3)), prefix="bench")
    app.get("/jobs/{job_id}")(cache(expire=600)(job))
    return app


if __name__ == "__main__":
    kind, port, redis_port = sys.argv[1:]
    made = globals()[kind.replace("-", "_")](FastAPI(), int(redis_port))
    uvicorn.run(made, port=int(port), log_level="error", access_log=False)
