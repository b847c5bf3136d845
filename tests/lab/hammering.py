"""Eight processes that ask for more than is allowed, their clocks a second apart.

Run as a program it is one of them: it asks until its time is over, and writes what it saw as JSON. Moments are of the
one clock that libfaketime leaves alone: the machine's monotonic one.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiprod_ops.config import load
from aiprod_ops.domain.quotas import Quota
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.limiting.decisions import Limiter
from aiprod_ops.service.limiting.promised import tiers
from aiprod_ops.units import Seconds

TOOLS = Path(__file__).parents[2] / "build/tools"
PROCESSES = 8
#: Debian's package libfaketime, unpacked by `scripts/test-servers`, or installed.
FAKETIME = next(
    (file for root in (TOOLS, Path("/")) for file in root.glob("usr/lib/*/faketime/libfaketime.so.1")), None
)


@dataclass(frozen=True)
class Seen:
    """By one process: by tier, when it was let through, how often it was refused, and decided without Redis."""

    clock: float  #: the process' own, less the machine's monotonic one, in seconds
    granted: dict[str, list[float]]
    refused: int
    local: int


def quotas(shrink: float) -> dict[str, tuple[Quota, ...]]:
    """Of each tier that is shipped, in windows that are shorter by this factor: a day that fits into a test."""
    day = Seconds(2 * 60 / shrink)
    return {
        name: (
            Quota("minute", tier.requests_per_minute, Seconds(60 / shrink)),
            Quota("day", tier.requests_per_minute * 3 // 2, day),
        )
        for name, tier in tiers(load(environ={"HOME": "/nowhere"}).promises).items()
    }


def hammer(place: RedisPlace, shrink: float, last_s: float) -> list[Seen]:
    """All at once, for so long."""
    command = [sys.executable, __file__, str(shrink), str(time.monotonic() + 2), str(last_s)]
    redis = {
        "REDIS_HOST": place.host, "REDIS_PORT": str(place.port), "REDIS_USERNAME": place.username,
        "REDIS_PASSWORD": place.password,
    }  # fmt: skip
    running = []
    for number in range(PROCESSES):
        fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"+{number}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        environment = {**os.environ, **redis, **fake, "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    outputs = [each.communicate(timeout=last_s + 60)[0] for each in running]
    assert [each.returncode for each in running] == [0] * PROCESSES
    return [Seen(**json.loads(output)) for output in outputs]


def worst(granted: list[float], window: float) -> int:
    """The most that any window holds, wherever it begins."""
    moments, most, begin = sorted(granted), 0, 0
    for end, moment in enumerate(moments):
        while moments[begin] <= moment - window:
            begin += 1
        most = max(most, end - begin + 1)
    return most


async def ask(shrink: float, begin: float, last_s: float) -> dict[str, Any]:
    """Of each tier one user, from four requests at a time."""
    limiter = Limiter(RedisPlace.of_environment(), processes=PROCESSES)  # as it is shipped: 50 ms of patience
    found: dict[str, Any] = {"granted": {}, "refused": 0, "local": 0}

    async def user(tier: str, limits: tuple[Quota, ...]) -> None:
        moments = found["granted"].setdefault(tier, [])
        while time.monotonic() < begin + last_s:
            decision = await limiter.decide(tier, limits)
            found["local"] += decision.is_local
            if decision.is_allowed:
                moments.append(time.monotonic())
            else:
                found["refused"] += 1
                await asyncio.sleep(0.005)

    await asyncio.sleep(begin - time.monotonic())
    await asyncio.gather(*(user(tier, limits) for tier, limits in quotas(shrink).items() for _ in range(4)))
    await limiter.close()
    return {"clock": time.time() - time.monotonic(), **found}


if __name__ == "__main__":
    json.dump(asyncio.run(ask(*map(float, sys.argv[1:]))), sys.stdout)
