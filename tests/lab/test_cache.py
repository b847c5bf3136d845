"""The cache on a real Redis: what is served, what is not, and who computes."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis_servers import PASSWORD, PATIENT, Server, in_loop

from aiprod_ops.errors import UsageError
from aiprod_ops.service import RedisCache, cached_endpoint
from aiprod_ops.service.caching import keys

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.remove()


@pytest.fixture
def cache(server: Server) -> RedisCache:
    server.ask("FLUSHALL")
    return RedisCache(server.place, delays=PATIENT)


@dataclass
class Origin:
    """What is cached, and how often it was asked."""

    value: int = 0
    asked: int = 0
    takes: float = 0.0

    async def read(self) -> int:
        self.asked += 1
        seen = self.value
        await asyncio.sleep(self.takes)
        return seen


@in_loop
async def test_values_come_back_as_they_were(cache: RedisCache) -> None:
    value = {"name": "ä", "parts": [1, 2.5, None, True, b"\x00"]}
    assert await cache.set("a", value, ttl=60)
    assert await cache.get("a") == value
    assert await cache.get("b", "nothing") == "nothing"
    assert await cache.delete("a")
    assert await cache.get("a") is None
    with pytest.raises(UsageError, match="expected 1 to 512"):
        await cache.get("")
    with pytest.raises(TypeError):
        await cache.set("a", object())
    await cache.close()


@in_loop
async def test_a_value_with_tags_is_gone_with_one_of_them(cache: RedisCache) -> None:
    await cache.set("list", [1, 2], tags=[keys.job(1), keys.job(2)])
    await cache.set("other", 3, tags=[keys.job(3)])
    assert await cache.get("list") == [1, 2]
    assert await cache.invalidate(keys.job(2))
    assert (await cache.get("list"), await cache.get("other")) == (None, 3)
    assert await cache.clear()
    assert await cache.get("other") is None
    await cache.close()


@in_loop
async def test_arguments_and_users_are_told_apart(cache: RedisCache) -> None:
    @dataclass(frozen=True)
    class User:
        id: str
        session: object = None

    @cached_endpoint(user="{user.id}", tags=("job:{job_id}",), cache=lambda: cache)
    async def job(job_id: int, user: User, fields: tuple[str, ...] = ()) -> list[object]:
        return [job_id, user.id, list(fields)]

    ada, bob = User("ada", object()), User("bob", object())
    for _ in range(2):
        assert await job(1, ada) == [1, "ada", []]
        assert await job(1, bob) == [1, "bob", []]
        assert await job(2, user=ada, fields=("a",)) == [2, "ada", ["a"]]
    await cache.close()


@in_loop
async def test_an_argument_that_cannot_be_in_a_key_is_refused(cache: RedisCache) -> None:
    @cached_endpoint(cache=lambda: cache)
    async def job(job_id: int, session: object) -> int:
        return job_id

    with pytest.raises(TypeError, match="name it in `ignore`"):
        await job(1, object())
    with pytest.raises(TypeError, match="has no argument sesion"):
        cached_endpoint(ignore=("sesion",))(job)
    await cache.close()


@in_loop
async def test_a_sync_function_runs_in_a_thread_and_nothing_is_kept_shortly(cache: RedisCache, server: Server) -> None:
    calls: list[int] = []

    @cached_endpoint(ttl=600, key_prefix="found", negative_ttl=7, cache=lambda: cache)
    def found(number: int) -> int | None:
        calls.append(number)
        return number or None

    assert [await found(1), await found(0), await found(1), await found(0)] == [1, None, 1, None]
    assert calls == [1, 0]
    await cache.close()
    lasts = sorted(int(server.ask("TTL", name).removeprefix(":")) for name in entries(server, "found"))
    assert 5 <= lasts[0] <= 8
    assert 590 <= lasts[1] <= 720


def entries(server: Server, prefix: str) -> list[str]:
    import redis

    with redis.Redis("127.0.0.1", server.port, password=PASSWORD, decode_responses=True) as client:
        return list(client.scan_iter(f"aiprod:cache:entry:{prefix}:*"))


@in_loop
async def test_what_was_stored_together_does_not_end_together(cache: RedisCache, server: Server) -> None:
    @cached_endpoint(ttl=1000, stale=0, key_prefix="many", cache=lambda: cache)
    async def many(number: int) -> int:
        return number

    await asyncio.gather(*(many(number) for number in range(300)))
    await cache.close()
    lasts = [int(server.ask("TTL", name).removeprefix(":")) for name in entries(server, "many")]
    assert len(lasts) == 300
    assert 890 <= min(lasts) < 930
    assert 1070 < max(lasts) <= 1101


@in_loop
async def test_a_computation_that_began_before_an_invalidation_is_not_kept(cache: RedisCache) -> None:
    origin = Origin(takes=0.2)

    @cached_endpoint(tags=("job:1",), cache=lambda: cache)
    async def job() -> int:
        return await origin.read()

    early = asyncio.create_task(job())
    await asyncio.sleep(0.1)  # it has read the old value
    origin.value = 1
    await cache.invalidate("job:1")
    assert await job() == 1, "who asks after the invalidation joined what began before it"
    assert await early == 0
    await asyncio.sleep(0.05)
    assert await job() == 1, "the old value was stored after the invalidation"
    assert origin.asked == 2
    await cache.close()


@in_loop
async def test_no_read_that_begins_after_an_invalidation_is_older(cache: RedisCache, server: Server) -> None:
    """Two processes' worth of caches, writers and readers: a reader never sees less than what was invalidated before
    he began."""
    origin, other = Origin(takes=0.002), RedisCache(server.place, delays=PATIENT)
    confirmed, wrong, reads = 0, 0, 0

    def reading(mine: RedisCache):  # type: ignore[no-untyped-def]
        @cached_endpoint(key_prefix="counter", tags=("counter",), cache=lambda: mine)
        async def counter() -> int:
            return await origin.read()

        return counter

    async def read(counter) -> None:  # type: ignore[no-untyped-def]
        nonlocal wrong, reads
        while time.monotonic() < until:
            least = confirmed
            wrong += await counter() < least
            reads += 1
            await asyncio.sleep(0)

    async def write() -> None:
        nonlocal confirmed
        while time.monotonic() < until:
            origin.value += 1
            mine = origin.value
            assert await (cache if mine % 2 else other).invalidate("counter")
            confirmed = max(confirmed, mine)
            await asyncio.sleep(0.004)

    until = time.monotonic() + 2
    counters = [reading(cache), reading(other)]
    await asyncio.gather(write(), *(read(each) for each in counters for _ in range(10)))
    assert wrong == 0
    assert reads > 2 * origin.asked, "nothing was cached"
    await cache.close()
    await other.close()


@in_loop
async def test_an_old_value_is_served_while_one_computes_a_new_one(cache: RedisCache) -> None:
    origin = Origin()

    @cached_endpoint(ttl=0.3, stale=60, cache=lambda: cache)
    async def job() -> int:
        return await origin.read()

    assert await job() == 0
    await asyncio.sleep(0.4)
    origin.value, origin.takes = 1, 0.1
    assert await asyncio.gather(*(job() for _ in range(20))) == [0] * 20
    await asyncio.sleep(0.2)
    assert await job() == 1
    assert origin.asked == 2
    await cache.close()


@in_loop
async def test_one_computes_for_all_and_fails_for_all(cache: RedisCache) -> None:
    origin = Origin(takes=0.05)

    @cached_endpoint(cache=lambda: cache)
    async def job(number: int) -> int:
        if number < 0:
            await origin.read()
            raise LookupError(number)
        return await origin.read()

    assert await asyncio.gather(*(job(1) for _ in range(100))) == [0] * 100
    assert origin.asked == 1
    failures = await asyncio.gather(*(job(-1) for _ in range(100)), return_exceptions=True)
    assert {type(each) for each in failures} == {LookupError}
    assert origin.asked == 2
    leader = asyncio.create_task(job(2))
    await asyncio.sleep(0.02)
    follower = asyncio.create_task(job(2))
    await asyncio.sleep(0.01)
    leader.cancel()
    assert await follower == 0, "who was cancelled took the others with him"
    assert origin.asked == 3
    await cache.close()


WORKER = Path(__file__).with_name("cache_worker.py")


def workers(server: Server, count: int, *words: str) -> list[subprocess.Popen[str]]:
    """Processes that ask for one value when they are told to."""
    command = [sys.executable, str(WORKER), str(server.port), *words]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    assert [each.stdout.readline() for each in started if each.stdout] == ["ready\n"] * count
    return started


def told(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    lines = (line for line in process.stdout if line != "computing\n")
    return json.loads(next(lines))


def test_a_hundred_misses_in_four_processes_are_one_computation(cache: RedisCache, server: Server) -> None:
    started = workers(server, 4, "25", "0.5")
    for each in started:
        print("go", file=each.stdin, flush=True)
    results = [told(each) for each in started]
    for each in started:
        each.communicate()
    assert sum(result["computed"] for result in results) == 1
    assert max(result["longest"] for result in results) < 1.2  # polling at a lease's end would take 2 s


def test_who_dies_keeps_the_others_waiting_for_a_lease_and_no_longer(cache: RedisCache, server: Server) -> None:
    first, *rest = started = workers(server, 2, "1", "1.5")
    print("go", file=first.stdin, flush=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "computing\n"
    print("go", file=rest[0].stdin, flush=True)
    time.sleep(0.4)
    first.kill()
    (result,) = [told(each) for each in rest]
    for each in started:
        each.communicate()
    assert result["computed"] == 1
    assert result["longest"] < 6  # a lease of 2 s, the computation's 1.5 s


def test_a_computation_longer_than_a_lease_is_still_one(cache: RedisCache, server: Server) -> None:
    started = workers(server, 2, "3", "2.6")
    for each in started:
        print("go", file=each.stdin, flush=True)
    results = [told(each) for each in started]
    for each in started:
        each.communicate()
    assert sum(result["computed"] for result in results) == 1
