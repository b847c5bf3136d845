"""Limits decided in a real Redis, and what happens when it is not there."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from redis_servers import Server, in_loop, listening

from aiprod_ops.domain.quotas import SLOTS, Decision, Quota, Spent, take
from aiprod_ops.domain.tiers import Tier
from aiprod_ops.service.caching.breaker import Delays
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.limiting.decisions import _SCRIPT, Limiter
from aiprod_ops.service.limits import Client, RateLimits, install, limited
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab

QUOTAS = (Quota("minute", 40, Seconds(60)), Quota("day", 400, Seconds(86_400)))
SHORT = (Quota("short", 5, Seconds(0.6)), Quota("long", 12, Seconds(3)))
BRIEF = Delays().patience
_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    running = Server()
    yield running
    running.remove()


@pytest.fixture
def alone() -> Iterator[Server]:
    """One that a test may break."""
    running = Server()
    yield running
    running.remove()


@pytest.fixture
def caller() -> str:
    return f"user{next(_numbers)}"


def with_limiter(place: RedisPlace, work: Callable[[Limiter], Awaitable[Any]], patience: Seconds = Seconds(2)) -> Any:
    """Patient unless a test is about that: the machine may be busy."""

    async def run() -> Any:
        limiter = Limiter(place, processes=8, delays=Delays(patience=patience, longest=Seconds(0.2)))
        try:
            return await work(limiter)
        finally:
            await limiter.close()

    return asyncio.run(run())


def client(server: Server) -> Redis:
    return Redis(port=server.port, password=server.place.password)


def scripts_run(server: Server) -> int:
    async def count() -> int:
        redis = client(server)
        found = await redis.info("commandstats")
        await redis.aclose()
        return int(found["cmdstat_evalsha"]["calls"])

    return asyncio.run(count())


async def at_once(limiter: Limiter, caller: str, count: int, quotas: tuple[Quota, ...] = QUOTAS) -> list[Decision]:
    return await asyncio.gather(*(limiter.decide(caller, quotas) for _ in range(count)))


async def until_back(limiter: Limiter) -> None:
    async with asyncio.timeout(10):
        while limiter.is_local:
            await asyncio.sleep(0.01)


def test_the_script_decides_as_the_calculation_does(shared: Server, caller: str) -> None:
    """Requests of random cost, some in one batch: each answer is what the pure function says at Redis' own time."""
    choice = random.Random(7)

    async def work() -> int:
        redis = client(shared)
        script, spent, refused = redis.register_script(_SCRIPT), tuple[Spent, ...](((), ())), 0
        for _ in range(200):
            costs = [choice.choice((0, 1, 1, 1, 2, 6)) for _ in range(choice.choice((1, 1, 3)))]
            policy = ([each.slot_ms for each in SHORT], [each.limit for each in SHORT])
            owed = choice.choice(((), (), (), (1, 2), (0, 1)))
            asked = msgspec.msgpack.encode((SLOTS, [policy], [(1, costs, owed)]))
            now, [rows] = msgspec.msgpack.decode(await script(keys=[caller], args=[asked]))
            for cost, row in zip(costs, rows, strict=True):
                decision, spent = take(spent, SHORT, cost, now, owed)
                owed = ()
                figures = [figure for each in decision.standings for figure in (each.remaining, each.more_ms)]
                assert row == [decision.is_allowed, -1 if decision.wait_ms is None else decision.wait_ms, *figures]
                refused += not decision.is_allowed
            await asyncio.sleep(choice.choice((0, 0, 0.01, 0.05)))
        await redis.aclose()
        return refused

    assert 20 < asyncio.run(work()) < 300


def test_what_is_asked_in_one_turn_is_one_round_trip(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> list[Decision]:
        found = await at_once(limiter, caller, 100)
        assert [each.standings[0].remaining for each in found] == [*range(39, -1, -1), *[0] * 60]
        return found

    with_limiter(shared.place, lambda limiter: limiter.decide(caller, QUOTAS, 0))
    before = scripts_run(shared)
    found = with_limiter(shared.place, work)
    assert scripts_run(shared) == before + 1
    assert sum(each.is_allowed for each in found) == 40
    assert not any(each.is_local for each in found)


def test_callers_and_quotas_do_not_meet(shared: Server) -> None:
    async def work(limiter: Limiter) -> None:
        other = (Quota("minute", 3, Seconds(30)),)
        found = await asyncio.gather(
            *(limiter.decide(name, quotas) for _ in range(60) for name in ("a", "b") for quotas in (QUOTAS, other))
        )
        assert sum(each.is_allowed for each in found) == 2 * (40 + 3)

    with_limiter(shared.place, work)


def test_a_higher_tier_counts_at_once_and_keeps_what_was_taken(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        await at_once(limiter, caller, 50)
        higher = (Quota("minute", 60, Seconds(60)), Quota("day", 4_000, Seconds(86_400)))
        assert sum(each.is_allowed for each in await at_once(limiter, caller, 50, higher)) == 20

    with_limiter(shared.place, work)


def test_what_somebody_else_wrote_does_not_stop_the_others(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        key = f"aiprod:limits:1000-1440000:{caller}"
        for write in (("SET", key, "\xc1"), ("SET", key, "\x91\xa1x"), ("SET", key, "\x92\x92\xa1x\xa1y\x90"),
                      ("LPUSH", key, "1")):  # fmt: skip
            redis = client(shared)
            await redis.delete(key)
            await redis.execute_command(*(part.encode("latin-1") for part in write))
            await redis.aclose()
            mine, others = await asyncio.gather(
                at_once(limiter, caller, 2), at_once(limiter, f"other{next(_numbers)}", 2)
            )
            assert [each.standings[0].remaining for each in (*mine, *others)] == [39, 38, 39, 38]
            assert not limiter.is_local

    with_limiter(shared.place, work)


def test_keys_go_away_by_themselves(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> int:
        await limiter.decide(caller, SHORT)
        redis = client(shared)
        left = await redis.pttl(f"aiprod:limits:10-50:{caller}")
        await redis.aclose()
        return int(left)

    assert 0 < with_limiter(shared.place, work) <= 3_050


def test_waiting_as_long_as_it_says_lets_one_through(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        for _ in range(2):
            refused = (await at_once(limiter, caller, 6, SHORT))[-1]
            assert not refused.is_allowed
            assert refused.wait_ms is not None
            await asyncio.sleep(refused.wait_ms / 1000)
            assert (await limiter.decide(caller, SHORT)).is_allowed

    with_limiter(shared.place, work)


# Redis is not there


@pytest.mark.parametrize(
    "answer", [b"\0\xff" * 50, b"$-1\r\n", b"*2\r\n:1\r\n:2\r\n", b"+OK\r\n", b"$2\r\n\x92\x01\r\n"]
)
@in_loop
async def test_garbage(answer: bytes, caller: str) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(answer)
        writer.close()
        gone.set()

    async with listening(serve) as port:
        limiter = Limiter(RedisPlace("127.0.0.1", port), processes=8)
        found = await at_once(limiter, caller, 100)
        await limiter.close()
        await gone.wait()
    assert all(each.is_local for each in found)
    assert sum(each.is_allowed for each in found) == 5


def test_a_redis_that_is_down_and_comes_back(alone: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        await at_once(limiter, caller, 8)
        assert not limiter.is_local
        alone.kill()
        found = await at_once(limiter, caller, 100)
        assert limiter.is_local
        assert sum(each.is_allowed for each in found) == 4  # of a part of 5, since 8 of 40 were taken
        assert 1 <= (found[-1].retry_after or 0) <= 61
        await asyncio.to_thread(alone.start)
        await until_back(limiter)
        back = await limiter.decide(caller, QUOTAS)
        assert not back.is_local
        # What was let through meanwhile, and this process' eighth of what Redis had said before.
        assert [each.remaining for each in back.standings] == [40 - 4 - 1 - 1, 400 - 4 - 1 - 1]

    with_limiter(alone.place, work)


def test_a_redis_that_forgets_again_and_again(alone: Server, caller: str) -> None:
    async def work() -> int:
        limiter, granted = (
            Limiter(alone.place, processes=1, delays=Delays(patience=Seconds(2), longest=Seconds(0.2))),
            0,
        )
        for _ in range(4):
            granted += sum(each.is_allowed for each in await at_once(limiter, caller, 100))
            await asyncio.to_thread(alone.kill)
            await asyncio.to_thread(alone.start)
            await limiter.decide("somebody", QUOTAS)  # who finds out
            await until_back(limiter)
        await limiter.close()
        return granted

    assert asyncio.run(work()) == 40


def test_a_redis_that_hangs_costs_one_moment(alone: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        await limiter.decide(caller, QUOTAS)
        alone.hang()
        try:
            lags = asyncio.create_task(longest_lag(1.0))
            began = time.monotonic()
            await at_once(limiter, caller, 50)
            first = time.monotonic() - began
            began = time.monotonic()
            for _ in range(200):
                assert (await limiter.decide(caller, QUOTAS)).is_local
            later = (time.monotonic() - began) / 200
            assert first < 0.5  # 0.05 on an idle machine
            assert later < first / 20
            assert await lags < 0.5
        finally:
            alone.go_on()
        await until_back(limiter)
        looked = [await limiter.decide(f"new{number}", QUOTAS) for number in range(20)]
        assert [each.standings[0].remaining for each in looked] == [39] * 20  # no answer of another's request

    async def longest_lag(last_s: float) -> float:
        longest, end = 0.0, time.monotonic() + last_s
        while (began := time.monotonic()) < end:
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)
        return longest

    with_limiter(alone.place, work, BRIEF)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ([("CONFIG", "SET", "maxmemory", "1")], [("CONFIG", "SET", "maxmemory", "0")]),
        ([("CONFIG", "SET", "min-replicas-to-write", "3")], [("CONFIG", "SET", "min-replicas-to-write", "0")]),
        ([("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    ],
    ids=["full", "refuses writes", "a replica"],
)
def test_a_redis_that_takes_no_writes(
    alone: Server, caller: str, broken: list[tuple[str, ...]], mended: list[tuple[str, ...]]
) -> None:
    async def work(limiter: Limiter) -> None:
        await at_once(limiter, caller, 8)
        for command in broken:
            assert alone.ask(*command) == "+OK"
        found = await at_once(limiter, caller, 100)
        assert sum(each.is_allowed for each in found) == 4
        await asyncio.sleep(0.5)
        assert limiter.is_local  # a probe that only reads would have been answered
        for command in mended:
            assert alone.ask(*command) == "+OK"
        await until_back(limiter)
        assert not (await limiter.decide(caller, QUOTAS)).is_local

    with_limiter(alone.place, work)


def test_scripts_that_were_flushed_are_loaded_again(alone: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        await limiter.decide(caller, QUOTAS)
        assert alone.ask("SCRIPT", "FLUSH") == "+OK"
        assert (await limiter.decide(caller, QUOTAS)).standings[0].remaining == 38
        assert not limiter.is_local

    with_limiter(alone.place, work)


def test_requests_that_are_given_up_do_no_harm(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        tasks = [asyncio.create_task(limiter.decide(caller, QUOTAS)) for _ in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, Decision) for each in found) == 15
        assert (await limiter.decide(caller, QUOTAS)).standings[0].remaining == 9

    with_limiter(shared.place, work)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_who_waits_when_it_is_closed_is_answered(shared: Server, caller: str, turns: int) -> None:
    async def work(limiter: Limiter) -> None:
        waiting = [asyncio.create_task(limiter.decide(caller, QUOTAS)) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await limiter.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)

    with_limiter(shared.place, work)


@pytest.mark.parametrize(("quotas", "cost"), [((), 1), (QUOTAS, -1), (QUOTAS, 2**70)])
def test_what_makes_no_sense_is_refused(shared: Server, caller: str, quotas: tuple[Quota, ...], cost: int) -> None:
    async def work(limiter: Limiter) -> None:
        with pytest.raises(ValueError, match="expected 0 to"):
            await limiter.decide(caller, quotas, cost)

    with_limiter(shared.place, work)


# The API

TIERS = {"free": Tier("free", 3, 100, 1, 1, 1), "second": Tier("second", 1, 100, 1, 1, 1)}


def application(limiter: Limiter) -> FastAPI:
    app = FastAPI()

    def client_of(request: Request) -> Client:
        return Client(request.headers["x-user"], "free")

    app.state.rate_limits = RateLimits(limiter, TIERS, client_of)
    install(app)

    @app.get("/things", dependencies=[Depends(limited())])
    async def things() -> list[str]:
        return []

    @app.get("/broken", dependencies=[Depends(limited())])
    async def broken() -> None:
        raise HTTPException(409)

    @app.get("/dear", dependencies=[Depends(limited(cost=2))])
    def dear() -> None: ...

    @app.get("/dearest", dependencies=[Depends(limited(cost=4))])
    def dearest() -> None: ...

    @app.get("/free")
    async def free() -> None: ...

    return app


async def get(app: FastAPI, path: str, user: str) -> tuple[int, dict[str, str], Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
             "raw_path": path.encode(), "query_string": b"", "headers": [(b"x-user", user.encode())],
             "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": ""}  # fmt: skip
    await app(scope, receive, send)
    fields = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    body = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], fields, json.loads(body) if body else None


def test_each_answer_tells_how_the_caller_stands(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        for path, status, remaining in (("/things", 200, 2), ("/broken", 409, 1), ("/things", 200, 0)):
            found, fields, _ = await get(app, path, caller)
            assert found == status
            assert fields["ratelimit-policy"] == '"minute";q=3;w=60, "day";q=100;w=86400'
            minute, day = fields["ratelimit"].split(", ")
            assert minute.startswith(f'"minute";r={remaining};t=')
            assert 60 <= int(minute.rpartition("=")[2]) <= 61
            assert day.startswith(f'"day";r={97 + remaining};t=')
            assert "retry-after" not in fields
        assert "ratelimit" not in (await get(app, "/free", caller))[1]

    with_limiter(shared.place, work)


def test_a_refusal_is_a_problem(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        assert (await get(app, "/dear", caller))[0] == 200
        status, fields, body = await get(app, "/dear", caller)
        assert (status, fields["content-type"]) == (429, "application/problem+json")
        assert body["code"] == "RATE_LIMITED"
        assert body["violated-policies"] == ["minute"]
        assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert 60 <= int(fields["retry-after"]) <= 61
        assert fields["retry-after"] in body["detail"]
        assert fields["ratelimit"].startswith('"minute";r=1;')
        assert (await get(app, "/things", caller))[0] == 200  # one is left
        status, fields, body = await get(app, "/dearest", caller)
        assert (status, "retry-after" in fields) == (429, False)
        assert "smaller parts" in body["detail"]

    with_limiter(shared.place, work)


def test_waiting_for_retry_after_lets_one_through(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        app.state.rate_limits._quotas = {"free": (Quota("brief", 2, Seconds(1.2)),)}
        while (found := await get(app, "/things", caller))[0] == 200:
            pass
        await asyncio.sleep(int(found[1]["retry-after"]))
        assert (await get(app, "/things", caller))[0] == 200

    with_limiter(shared.place, work)


def test_an_api_without_redis_goes_on(alone: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        alone.kill()
        statuses = [(await get(app, "/things", caller))[0] for _ in range(5)]
        assert statuses == [200, 429, 429, 429, 429]
        assert [(await get(app, "/free", caller))[0] for _ in range(3)] == [200, 200, 200]

    with_limiter(alone.place, work)


def test_prometheus_is_told(shared: Server, caller: str) -> None:
    def figures() -> list[float | None]:
        labels = [{"outcome": outcome, "decided": "redis"} for outcome in ("allowed", "refused")]
        return [REGISTRY.get_sample_value("aiprod_limit_decisions_total", each) for each in labels]

    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        before = figures()
        for _ in range(5):
            await get(app, "/things", caller)
        assert [after - (each or 0) for after, each in zip(figures(), before, strict=True)] == [3, 2]

    with_limiter(shared.place, work)


def test_a_tier_that_is_not_promised_is_told(shared: Server, caller: str) -> None:
    async def work(limiter: Limiter) -> None:
        app = application(limiter)
        app.state.rate_limits = RateLimits(limiter, TIERS, lambda _: Client(caller, "gold"))
        with pytest.raises(LookupError, match=r"is 'gold', expected one of .*: free, second"):
            await get(app, "/things", caller)

    with_limiter(shared.place, work)
