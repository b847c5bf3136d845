"""What Redis may do instead of answering: a request pays once, little; then the origin answers; then it closes itself.

And nothing that was invalidated meanwhile is served afterwards.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY
from redis_servers import PATIENT, Server, in_loop, listening, proxy

from aiprod_ops.service import RedisCache, RedisPlace, cached_endpoint

pytestmark = pytest.mark.lab

PATIENCE = 0.05
BUSY = 0.5  #: what a loaded machine adds; those who wait for Redis wait for seconds


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.remove()


class Origin:
    """A cached function, and what it says now."""

    def __init__(self, cache: RedisCache) -> None:
        self.value, self.asked = 0, 0

        @cached_endpoint(tags=("job:1",), cache=lambda: cache)
        async def job(number: int = 0) -> int:
            self.asked += 1
            return self.value

        self.job = job


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def until(holds: Callable[[], bool], longest: float = 5.0) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < longest, "it did not come back by itself"
        await asyncio.sleep(0.02)


def failures(kind: str) -> float:
    return REGISTRY.get_sample_value("aiprod_cache_redis_failures_total", {"kind": kind}) or 0.0


async def pays_once(cache: RedisCache, origin: Origin) -> None:
    """A hundred at once pay no more than the patience, a hundred after them nothing."""
    before = origin.asked
    first = await timed(lambda: asyncio.gather(*(origin.job() for _ in range(100))))
    assert first < PATIENCE + BUSY
    assert not cache.is_available()
    later = [await timed(origin.job) for _ in range(100)]
    assert sorted(later)[50] < PATIENCE / 4
    assert origin.asked - before == 200


@in_loop
async def test_hung(server: Server) -> None:
    cache = RedisCache(server.place)
    origin = Origin(cache)
    assert (await origin.job(), await origin.job(), origin.asked) == (0, 0, 1)
    await asyncio.sleep(0.05)
    before = failures("timeout")
    server.hang()
    await pays_once(cache, origin)
    assert failures("timeout") > before
    assert REGISTRY.get_sample_value("aiprod_cache_breaker_open") == 1
    assert (await cache.health())["status"] == "degraded"
    origin.value = 1
    assert not await cache.invalidate("job:1"), "a server that hangs confirms nothing"
    server.go_on()
    await until(cache.is_available)
    assert await origin.job() == 1, "what was invalidated while it hung was served"
    assert REGISTRY.get_sample_value("aiprod_cache_breaker_open") == 0
    await cache.close()


@in_loop
async def test_down_and_started_anew(server: Server) -> None:
    cache = RedisCache(server.place)
    origin = Origin(cache)
    await origin.job()
    await asyncio.sleep(0.05)
    server.kill()
    await pays_once(cache, origin)
    await asyncio.to_thread(server.start)
    await until(cache.is_available)
    before = origin.asked
    await origin.job()
    await asyncio.sleep(0.05)
    await asyncio.gather(*(origin.job() for _ in range(50)))
    assert origin.asked - before == 1
    await cache.close()


@in_loop
async def test_restarted_between_two_requests(server: Server) -> None:
    """The connections in the pool are dead: nobody notices."""
    cache = RedisCache(server.place, delays=PATIENT)
    assert await cache.set("a", 1)
    server.kill()
    await asyncio.to_thread(server.start)
    await asyncio.sleep(0.05)
    assert await cache.set("a", 2)
    assert await cache.get("a") == 2
    await cache.close()


@in_loop
async def test_started_anew_from_a_file_that_is_older_than_an_invalidation(server: Server) -> None:
    cache, other = RedisCache(server.place, delays=PATIENT), RedisCache(server.place, delays=PATIENT)
    assert await cache.set("a", 1)
    assert server.ask("SAVE") == "+OK"
    assert await cache.delete("a")
    assert await cache.set("b", 2, tags=["job:1"])
    assert server.ask("SAVE") == "+OK"
    assert await cache.invalidate("job:1")
    server.kill()
    await asyncio.to_thread(server.start)
    assert server.ask("EXISTS", "aiprod:cache:entry:value:b") == ":1", "the file has not what was deleted"
    for each in (cache, other):
        await until(each.is_available)
        assert (await each.get("a"), await each.get("b")) == (None, None)
    assert await cache.set("b", 3)
    new = RedisCache(server.place, delays=PATIENT)
    assert await new.get("b") == 3, "a new connection alone empties the cache"
    for each in (cache, other, new):
        await each.close()


@in_loop
async def test_a_replica_that_took_over_and_lacks_an_invalidation(server: Server) -> None:
    replica = Server("--replicaof", "127.0.0.1", str(server.port))
    try:
        cache = RedisCache(server.place, delays=PATIENT)
        assert await cache.set("a", 1, tags=["job:1"])
        while replica.ask("EXISTS", "aiprod:cache:entry:value:a") != ":1":
            await asyncio.sleep(0.05)
        replica.ask("REPLICAOF", "NO", "ONE")  # it takes over; what happens now on the old one is lost
        assert await cache.invalidate("job:1")
        new = RedisCache(replica.place, delays=PATIENT)
        assert await new.get("a") is None
        await cache.close()
        await new.close()
    finally:
        replica.remove()


@in_loop
async def test_slow(server: Server) -> None:
    async with proxy(server.port, delay=0.2) as port:
        cache = RedisCache(RedisPlace("127.0.0.1", port, password=server.place.password))
        await pays_once(cache, Origin(cache))
        await asyncio.sleep(0.5)
        assert not cache.is_available(), "a server that is as slow as before is asked again"
        await cache.close()


@in_loop
async def test_it_hangs_while_one_waits_for_another_process(server: Server) -> None:
    cache, other = RedisCache(server.place), RedisCache(server.place)

    def job(mine: RedisCache, takes: float) -> Awaitable[int]:
        @cached_endpoint(key_prefix="shared", cache=lambda: mine)
        async def shared() -> int:
            await asyncio.sleep(takes)
            return 1

        return shared()

    first = asyncio.create_task(job(other, 3.0))  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(job(cache, 0.0))  # type: ignore[arg-type]
    await asyncio.sleep(0.2)
    assert not waiting.done()
    server.hang()
    assert await timed(lambda: waiting) < 3 * PATIENCE + BUSY
    server.go_on()
    assert await first == 1
    await cache.close()
    await other.close()


@in_loop
async def test_full(server: Server) -> None:
    """Reads and invalidations go on, only nothing new is stored."""
    cache = RedisCache(server.place, delays=PATIENT)
    origin = Origin(cache)
    await origin.job()
    assert await cache.set("a", 1, ttl=60)
    await asyncio.sleep(0.05)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    before, full = origin.asked, failures("full")
    assert [await origin.job() for _ in range(20)] == [0] * 20
    assert origin.asked == before, "a full server is read"
    assert await origin.job(7) == 0
    assert failures("full") > full
    assert cache.is_available()
    origin.value = 1
    assert await cache.invalidate("job:1"), "a full server invalidates"
    assert await origin.job() == 1
    assert not await cache.set("a", 2)
    assert await cache.get("a") is None, "a value that was overwritten is served"
    server.ask("CONFIG", "SET", "maxmemory", "0")
    assert await cache.set("a", 3)
    assert await cache.get("a") == 3
    await cache.close()


@in_loop
async def test_a_primary_that_has_become_a_replica_is_not_read(server: Server) -> None:
    """It takes no invalidations; whoever asks it by the name that leads to the new primary finds that."""
    new, cache = Server(), RedisCache(server.place, delays=PATIENT)
    try:
        origin = Origin(cache)
        await origin.job()
        await asyncio.sleep(0.05)
        server.ask("REPLICAOF", "127.0.0.1", str(new.port))
        origin.value = 1
        assert not await cache.invalidate("job:1")
        assert not cache.is_available()
        assert await origin.job() == 1
        await asyncio.sleep(0.3)
        assert not cache.is_available(), "a read-only server was taken for one that serves"
        assert "read only" in (await cache.health())["why"]
        server.ask("REPLICAOF", "NO", "ONE")
        await until(cache.is_available)
        assert await origin.job() == 1
        await cache.close()
    finally:
        new.remove()


@in_loop
async def test_a_failover_behind_the_same_address(server: Server) -> None:
    """The old primary's connections live on; a write that it refuses drops them."""
    new = Server()
    try:
        target = server.port
        writers: set[asyncio.StreamWriter] = set()

        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(65536):
                writer.write(piece)
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            writers.update((writer, far_writer))
            await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)

        async with listening(serve) as port:
            cache = RedisCache(RedisPlace("127.0.0.1", port, password=server.place.password), delays=PATIENT)
            assert await cache.set("a", 1)
            server.ask("REPLICAOF", "127.0.0.1", str(new.port))
            target = new.port
            assert not await cache.set("a", 2)
            await until(cache.is_available)
            assert await cache.get("a") is None
            assert await cache.set("a", 3)
            assert await cache.get("a") == 3
            await cache.close()
            for writer in writers:
                writer.close()
    finally:
        new.remove()


def noises() -> list[bytes]:
    """Bytes, and answers that are well formed and nonsense."""
    drawn = random.Random(1)
    shaped = [
        "+OK", ":1", "$-1", "*0", "*1|:1", "*2|$-1|$1|x", "-ERR no", "-LOADING wait", "$999999999", "*9999",
        "HTTP/1.1 400 Bad Request|",
    ]  # fmt: skip
    return [f"{each}|".replace("|", "\r\n").encode() * 40 for each in shaped] + [
        drawn.randbytes(drawn.randrange(1, 4000)) for _ in range(20)
    ]


@asynccontextmanager
async def noisy(noise: bytes):  # type: ignore[no-untyped-def]
    """A server that answers everything with the same."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                writer.write(noise)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(serve) as port:
        yield port


@pytest.mark.parametrize("password", ["", "secret"])
@in_loop
async def test_noise(password: str) -> None:
    for noise in noises():
        async with noisy(noise) as port:
            cache = RedisCache(RedisPlace("127.0.0.1", port, password=password))
            origin = Origin(cache)
            assert await asyncio.wait_for(asyncio.gather(*(origin.job() for _ in range(5))), 20) == [0] * 5
            origin.value = 1
            await cache.invalidate("job:1")
            assert await origin.job() == 1, noise
            assert await cache.get("a") is None
            await cache.delete("a")
            assert await timed(origin.job) < PATIENCE + BUSY
            await cache.close()


@in_loop
async def test_values_that_are_none_of_ours(server: Server) -> None:
    """Truncated, altered, and of another program: each is a miss."""
    import redis

    cache = RedisCache(server.place, delays=PATIENT)
    assert await cache.set("a", {"x": "y" * 50})
    name = "aiprod:cache:entry:value:a"
    with redis.Redis("127.0.0.1", server.port, password=server.place.password) as client:
        good = client.get(name)
        assert isinstance(good, bytes)
        client.set("aiprod:cache:entry:value:b", good)
        assert await cache.get("b") is None, "an entry of another key is served"
        for cut in range(len(good)):
            client.set(name, good[:cut])
            assert await cache.get("a") is None
        for bad in (b"\x02" + good[1:], b"\x80\x04.", b'{"x": 1}', b"\x01\xc1", good + b"\x00"):
            client.set(name, bad)
            assert await cache.get("a") is None
        client.delete(name)
        client.rpush(name, "a list")
        assert await cache.get("a") is None
        assert cache.is_available()
    await cache.close()


@in_loop
async def test_a_wrong_password_is_told(server: Server) -> None:
    cache = RedisCache(RedisPlace("127.0.0.1", server.port, password="wrong"))
    origin = Origin(cache)
    assert await origin.job() == 0
    health = await cache.health()
    assert health["status"] == "degraded"
    assert "password" in health["why"]
    assert "wrong" not in str(health)
    assert not RedisCache(RedisPlace("127.0.0.1", server.port, password="wrong")).is_available()
    await cache.close()


@in_loop
async def test_a_busy_event_loop_is_not_a_dead_server(server: Server) -> None:
    cache = RedisCache(server.place)
    assert await cache.set("a", 1)
    for _ in range(5):
        asked = asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.2)  # somebody computes in the loop
        assert await asked == 1
        assert cache.is_available()
    await cache.close()
