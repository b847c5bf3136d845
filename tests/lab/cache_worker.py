"""A process that asks for one value: `cache_worker.py PORT HOW_OFTEN SECONDS`; it begins when it is told to."""

import asyncio
import json
import sys
import time

from redis_servers import PASSWORD, PATIENT

from aiprod_ops.service import RedisCache, RedisPlace, cached_endpoint

PORT, TIMES, TAKES = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main() -> None:
    cache, computed = RedisCache(RedisPlace("127.0.0.1", PORT, password=PASSWORD), delays=PATIENT), 0

    @cached_endpoint(cache=lambda: cache, tags=("job:1",))
    async def job() -> int:
        nonlocal computed
        computed += 1
        say("computing")
        await asyncio.sleep(TAKES)
        return 1

    await cache.health()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    await asyncio.gather(*(job() for _ in range(TIMES)))
    say(json.dumps({"computed": computed, "longest": time.perf_counter() - began}))
    await cache.close()


asyncio.run(main())
