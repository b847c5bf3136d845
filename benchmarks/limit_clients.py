"""One process that asks for decisions on limits, of ours or of the library `limits`: the same loop around both.

`python limit_clients.py KIND MODE` reads its place in Redis from the environment. KIND is `ours`, or a strategy of
`limits`: moving, sliding, fixed. MODE `speed SECONDS TASKS USERS QUOTAS` prints decisions per second; `hammer BEGIN
SECONDS LIMIT WINDOW` prints the moments of what was let through, by the machine's monotonic clock; `hung PID` stops the
server and prints the seconds of the first decision, and of each of the next thousand.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

Decide = Callable[[str], Awaitable[bool]]

_STRATEGIES = {
    "moving": "MovingWindowRateLimiter",
    "sliding": "SlidingWindowCounterRateLimiter",
    "fixed": "FixedWindowRateLimiter",
}


def ours(limit: int, window_s: float, quotas: int, patience_s: float = 5) -> Decide:
    """Patient: what is measured is Redis, and a decision without it would be faster."""
    from aiprod_ops.domain.quotas import Quota
    from aiprod_ops.service.caching.breaker import Delays
    from aiprod_ops.service.caching.place import RedisPlace
    from aiprod_ops.service.limiting.decisions import Limiter
    from aiprod_ops.units import Seconds

    delays = Delays(patience=Seconds(patience_s))
    limiter = Limiter(RedisPlace.of_environment(), processes=8, delays=delays)
    asked = tuple(Quota(str(number), limit, Seconds(window_s * 60**number)) for number in range(quotas))

    async def decide(user: str) -> bool:
        decision = await limiter.decide(user, asked)
        assert patience_s < 1 or not decision.is_local
        return decision.is_allowed

    return decide


def library(kind: str, limit: int, window_s: float) -> Decide:
    limits: Any = import_module("limits")
    aio: Any = import_module("limits.aio")
    user, word = os.environ["REDIS_USERNAME"], os.environ["REDIS_PASSWORD"]
    place = f"{user}:{word}@{os.environ['REDIS_HOST']}:{os.environ['REDIS_PORT']}"
    storage = aio.storage.RedisStorage(f"async+redis://{place}/0", implementation="redispy")
    strategy = getattr(aio.strategies, _STRATEGIES[kind])(storage)
    item = limits.RateLimitItemPerSecond(limit, int(window_s))

    async def decide(user: str) -> bool:
        return bool(await strategy.hit(item, kind, user))

    return decide


async def speed(decide: Decide, last_s: float, tasks: int, users: int) -> float:
    count = 0
    await decide("first")
    begin = time.perf_counter()

    async def ask(number: int) -> None:
        nonlocal count
        while time.perf_counter() < begin + last_s:
            await decide(f"user{number % users}")
            count += 1

    await asyncio.gather(*map(ask, range(tasks)))
    return count / (time.perf_counter() - begin)


async def hammer(decide: Decide, begin: float, last_s: float) -> list[float]:
    moments: list[float] = []

    async def ask() -> None:
        while time.monotonic() < begin + last_s:
            if await decide("one"):
                moments.append(time.monotonic())
            else:
                await asyncio.sleep(0.005)

    await decide("first")
    await asyncio.sleep(begin - time.monotonic())
    await asyncio.gather(*(ask() for _ in range(8)))
    return moments


async def hung(decide: Decide, pid: int) -> list[float]:
    await decide("first")
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.perf_counter()
        await decide("first")
        first = time.perf_counter() - begin
        for _ in range(1_000):
            await decide("first")
        return [first, (time.perf_counter() - begin - first) / 1_000]
    finally:
        os.kill(pid, signal.SIGCONT)


async def main(kind: str, mode: str, *rest: str) -> object:
    if mode == "hung":
        return await hung(ours(1_000_000, 60.0, 2, 0.05), int(rest[0]))
    limit, window_s = (1_000_000, 60.0) if mode == "speed" else (int(rest[2]), float(rest[3]))
    quotas = int(rest[3]) if mode == "speed" else 1
    decide = ours(limit, window_s, quotas) if kind == "ours" else library(kind, limit, window_s)
    if mode == "speed":
        return await speed(decide, float(rest[0]), int(rest[1]), int(rest[2]))
    return await hammer(decide, float(rest[0]), float(rest[1]))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
