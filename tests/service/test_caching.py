"""The parts of the cache that need no server."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service.caching import keys, values
from aiprod_ops.service.caching.breaker import Breaker, Delays
from aiprod_ops.service.caching.endpoint import Policy, _Arguments
from aiprod_ops.service.caching.keys import NONE
from aiprod_ops.service.caching.owed import Owed
from aiprod_ops.service.caching.patience import Patience
from aiprod_ops.service.caching.place import RedisPlace
from aiprod_ops.service.caching.responses import Rules
from aiprod_ops.service.caching.values import Entry, Lifetime
from aiprod_ops.units import Seconds

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(PLAIN, max_size=3), st.lists(PLAIN, max_size=3))
def test_keys_are_equal_where_all_parts_are(some: list[object], others: list[object]) -> None:
    encode = msgspec.msgpack.Encoder(order="deterministic").encode  # True == 1, and yet another argument
    assert (keys.key_of("p", *some) == keys.key_of("p", *others)) == (encode(some) == encode(others))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=5), st.randoms())
def test_a_query_s_order_counts_within_one_name_only(pairs: list[tuple[str, str]], drawn) -> None:  # type: ignore[no-untyped-def]
    def query(given: list[tuple[str, str]]) -> bytes:
        return keys.query_of("&".join(f"{name}={value}" for name, value in given).encode())

    others = list(pairs)
    drawn.shuffle(others)
    same = all([v for n, v in pairs if n == name] == [v for n, v in others if n == name] for name in "ab")
    assert (query(pairs) == query(others)) == same


@given(st.binary(max_size=200))
def test_noise_is_a_miss(noise: bytes) -> None:
    assert values.read(noise, "key") is None
    assert values.read(b"\x01" + noise, "key") is None


@given(st.binary(max_size=50), st.integers(0, 200), st.binary(min_size=1, max_size=1))
def test_an_altered_entry_is_a_miss_or_of_its_key(payload: bytes, at: int, byte: bytes) -> None:
    kept = values.stored(Entry("key", 5.0, ("*",), (b"v",), payload))
    assert values.read(kept, "key") == Entry("key", 5.0, ("*",), (b"v",), payload)
    assert values.read(kept, "kex") is None
    found = values.read(kept[: at % len(kept)] + byte + kept[at % len(kept) + 1 :], "key")
    assert found is None or (found.key, len(found.tags)) == ("key", len(found.versions))


@pytest.mark.parametrize(
    ("status", "header", "why"),
    [
        (200, (b"Cache-Control", b"max-age=5"), ""),
        (200, (b"cache-control", b"max-age=5, No-Store"), "it says no-store"),
        (200, (b"vary", b"Accept, X-Api-Key"), ""),
        (200, (b"vary", b"*"), "it varies with *"),
        (206, (b"a", b"b"), "its status is 206"),
        (301, (b"a", b"b"), "its status is 301"),
        (404, (b"a", b"b"), ""),
        (500, (b"a", b"b"), "its status is 500"),
    ],
)
def test_what_may_be_stored(status: int, header: tuple[bytes, bytes], why: str) -> None:
    assert Rules(is_public=False, varies=(b"accept",)).refusal(status, [header]) == why


def test_more_owed_than_can_be_remembered_is_all() -> None:
    owed = Owed("all")
    owed.add(f"tag {number}" for number in range(20_000))
    assert list(owed.taken()) == ["all"]


def several(a: int, b: int = 2, *, c: int = 3) -> None: ...


def any_number(*a: int, b: int = 2, **c: int) -> None: ...


@given(
    st.sampled_from([several, any_number]),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=3),
)
def test_two_calls_have_one_key_where_python_binds_them_alike(
    function: Callable[..., None], args: list[int], kwargs: dict[str, int]
) -> None:
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return
    bound.apply_defaults()
    arguments = _Arguments.of(function, Policy("p", Lifetime(Seconds(1)), NONE), ())
    assert arguments.key(tuple(args), kwargs) == arguments.key(bound.args, bound.kwargs)
    assert arguments.key(tuple(args), kwargs)[0] == keys.key_of("p", arguments.name, "", dict(bound.arguments))


QUICK = Delays(Seconds(0.05), Seconds(0.02), Seconds(0.1), Seconds(0.5))


def test_a_breaker_closes_when_its_probe_returns_and_not_before() -> None:
    changes: list[bool] = []
    probes = iter([ConnectionError("refused"), TimeoutError(), None])

    async def probe() -> None:
        failure = next(probes)
        if failure is not None:
            raise failure

    async def main() -> None:
        breaker = Breaker(probe, (OSError,), QUICK, changes.append)
        breaker.trip("it hung")
        breaker.trip("it hung again")
        assert (breaker.is_closed, breaker.why, changes) == (False, "it hung", [False])
        while not breaker.is_closed:
            await asyncio.sleep(0.005)
        assert changes == [False, True]
        assert next(probes, "all were asked") == "all were asked"

    asyncio.run(main())


def test_a_probe_that_hangs_is_given_up_and_the_pauses_grow() -> None:
    moments: list[float] = []

    async def probe() -> None:
        moments.append(time.monotonic())
        await asyncio.sleep(60)

    async def main() -> None:
        breaker = Breaker(probe, (), QUICK)
        breaker.trip("it hung")
        while len(moments) < 5:
            await asyncio.sleep(0.01)
        assert not breaker.is_closed
        await breaker.close()

    asyncio.run(main())
    pauses = [later - before for before, later in pairwise(moments)]
    assert pauses[-1] > 0.05 + 0.75 * 0.1 - 0.01  # the patience and the longest pause
    assert pauses[0] < pauses[-1] * 1.5


def test_patience_ends() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with Patience(Seconds(0.02)):
                await asyncio.sleep(60)

    asyncio.run(main())


def test_patience_takes_an_answer_that_came_while_the_loop_was_busy() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            async with Patience(Seconds(0.02)):
                writer.write(b"hello\n")
                asyncio.get_running_loop().call_later(0.001, time.sleep, 0.1)
                asyncio.get_running_loop().call_later(0.005, time.sleep, 0.1)
                assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_where_redis_is() -> None:
    assert str(RedisPlace.of_environment({})) == "redis://localhost:6379/0"
    given = {"REDIS_HOST": "cache", "REDIS_PORT": "6380", "REDIS_DB": "2", "REDIS_PASSWORD": "secret", "REDIS_TLS": "1"}
    place = RedisPlace.of_environment(given)
    assert str(place) == "rediss://cache:6380/2"
    assert "secret" not in repr(place)
    with pytest.raises(ConfigurationError, match=r"\$REDIS_PORT is '-1', expected a whole number from 0 to 65535"):
        RedisPlace.of_environment({"REDIS_PORT": "-1"})


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_the_package_is_imported_without_what_it_needs() -> None:
    heavy = "redis", "prometheus_client", "msgspec", "anyio", "fastapi", "sqlalchemy"
    loaded = run("import sys, aiprod_ops.service; print(*sys.modules)").split()
    assert not set(heavy) & set(loaded)


def test_a_missing_extra_is_named() -> None:
    program = """
import sys
sys.modules["redis"] = None
import aiprod_ops.service
try:
    aiprod_ops.service.cache_get
except ImportError as error:
    print(error)
"""
    assert "pip install 'aiprod-ops[service]'" in run(program)


def test_every_name_is_there_and_one_cache_is_the_process_s_own() -> None:
    import aiprod_ops.service as service

    for name in service._NAMES:
        assert getattr(service, name) is not None
    assert (service.DEFAULT_TTL, service.SHORT_TTL, service.MEDIUM_TTL, service.LONG_TTL) == (300, 60, 600, 3600)
    assert service.RedisCache() is service.RedisCache()
    assert service.RedisCache(RedisPlace()) is not service.RedisCache()
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = service.nonsense


def test_every_series_is_there_from_the_start() -> None:
    program = """
from aiprod_ops.service import cached_endpoint
cached_endpoint(key_prefix="job")(lambda: None)
from prometheus_client import generate_latest
print(generate_latest().decode())
"""
    lines = run(program).splitlines()
    for series in (
        *(
            f'aiprod_cache_requests_total{{cache="job",result="{result}"}}'
            for result in ("hit", "stale", "miss", "bypass")
        ),
        *(f'aiprod_cache_redis_failures_total{{kind="{kind}"}}' for kind in ("full", "readonly", "timeout", "garbage")),
        *(f'aiprod_cache_stores_total{{outcome="{outcome}"}}' for outcome in ("stored", "lost", "unfit")),
        *(f'aiprod_cache_invalidations_total{{outcome="{outcome}"}}' for outcome in ("done", "owed")),
        "aiprod_cache_breaker_open",
    ):
        assert f"{series} 0.0" in lines
