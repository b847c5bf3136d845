"""Many processes' worth of caches, a Redis to which everything happens, and one rule: no read is older than what was
invalidated before it began."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from redis_servers import Server, in_loop

from aiprod_ops.service import RedisCache, cached_endpoint

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.remove()


class Process:
    """A cache of its own, and the newest value that it must not fall behind: what it has invalidated itself, whether
    Redis has confirmed that or not, and what others had confirmed."""

    def __init__(self, server: Server, origin: "Origin", jobs: int) -> None:
        self.cache = RedisCache(server.place)
        self.least = [0] * jobs

        @cached_endpoint(key_prefix="soak", tags=("job:{number}",), ttl=5, cache=lambda: self.cache)
        async def job(number: int) -> int:
            return await origin.read(number)

        self.job: Callable[[int], Awaitable[int]] = job


class Origin:
    def __init__(self, jobs: int) -> None:
        self.values, self.asked = [0] * jobs, 0

    async def read(self, number: int) -> int:
        self.asked += 1
        seen = self.values[number]
        await asyncio.sleep(random.uniform(0, 0.01))
        return seen


@in_loop
async def test_no_read_is_older_than_an_invalidation_whatever_happens_to_redis(server: Server) -> None:
    jobs, until = 5, time.monotonic() + SECONDS
    origin = Origin(jobs)
    processes = [Process(server, origin, jobs) for _ in range(4)]
    reads, stale = 0, []

    async def read(mine: Process) -> None:
        nonlocal reads
        while time.monotonic() < until:
            number = random.randrange(jobs)
            least = mine.least[number]
            found = await mine.job(number)
            reads += 1
            if found < least:
                stale.append((number, found, least))
            await asyncio.sleep(random.uniform(0, 0.002))

    async def write() -> None:
        while time.monotonic() < until:
            number, mine = random.randrange(jobs), random.choice(processes)
            origin.values[number] += 1
            new = origin.values[number]
            is_confirmed = await mine.cache.invalidate(f"job:{number}")
            for each in processes if is_confirmed else [mine]:
                each.least[number] = max(each.least[number], new)
            await asyncio.sleep(random.uniform(0, 0.02))

    async def harm() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(0.2, 1.5))
            what = random.choice(("hang", "kill", "save and kill", "full", "read-only"))
            if what == "hang":
                server.hang()
                await asyncio.sleep(random.uniform(0.01, 0.5))
                server.go_on()
            elif what in ("kill", "save and kill"):
                if what == "save and kill":
                    await asyncio.to_thread(server.ask, "SAVE")
                    await asyncio.sleep(random.uniform(0, 0.3))
                server.kill()
                await asyncio.to_thread(server.start)
            elif what == "full":
                await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory", "1")
                await asyncio.sleep(random.uniform(0, 0.5))
                await asyncio.to_thread(server.ask, "CONFIG", "SET", "maxmemory", "0")
            else:
                await asyncio.to_thread(server.ask, "CONFIG", "SET", "min-replicas-to-write", "1")
                await asyncio.sleep(random.uniform(0, 0.5))
                await asyncio.to_thread(server.ask, "CONFIG", "SET", "min-replicas-to-write", "0")

    await asyncio.gather(harm(), write(), write(), *(read(each) for each in processes for _ in range(5)))
    assert not stale
    assert reads > 1.2 * origin.asked, "nothing was cached"
    for each in processes:
        await each.cache.close()
