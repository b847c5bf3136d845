"""One of several processes that ask for one missing value at once: `cache_worker.py REDIS_PORT TIMES SECONDS`.

Begins at a line on its input; prints how often it computed and how long its slowest request took.
"""

import asyncio
import json
import sys
import time

from aiprod_ops.service import RedisCache, RedisPlace, cached_endpoint


async def main(redis_port: int, times: int, seconds: float) -> None:
    cache, computed = RedisCache(RedisPlace("127.0.0.1", redis_port)), 0

    @cached_endpoint(tags=("job:{number}",), cache=lambda: cache)
    async def job(number: int) -> int:
        nonlocal computed
        computed += 1
        await asyncio.sleep(seconds)
        return number

    await cache.health()
    print("ready", flush=True)
    number = 0
    while await asyncio.to_thread(sys.stdin.readline):
        number, computed, began = number + 1, 0, time.perf_counter()
        await asyncio.gather(*(job(number) for _ in range(times)))
        print(json.dumps({"computed": computed, "seconds": time.perf_counter() - began}), flush=True)
    await cache.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
