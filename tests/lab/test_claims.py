"""Which jobs a worker is given: the urgent first, everybody his share, nobody more at a time than his tier allows."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from served_api import Api, database
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from aiprod_ops.domain.tiers import Tier
from aiprod_ops.service import database as databases
from aiprod_ops.service.batching import storing
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.working import claims
from aiprod_ops.service.working.periodic import Work, run_due
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
JOB = {
    "priority": "normal", "preset": "quick_social", "language": "en", "prompt": "", "title": "", "duration_seconds": 5,
    "aspect_ratio": "9:16", "reference_urls": [],
}  # fmt: skip
TIERS = {"pro": Tier("pro", 60, 1_000, concurrent_jobs=3, batch_size=100, monthly_cost_units=1_000)}


@pytest.fixture(scope="module")
def empty() -> Iterator[Api]:
    with database() as made:
        yield made


def with_engine(api: Api, work: Callable[[AsyncEngine], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        engine = databases.engine(Settings(dsn=api.dsn))
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    api.sql("DELETE FROM jobs")
    return asyncio.run(run())


def user(api: Api, tier: str = "pro") -> str:
    name = str(uuid7())
    api.sql(f"INSERT INTO users (id, email, name, tier) VALUES ('{name}', '{name}@example.org', '', '{tier}')")
    return name


async def batch(engine: AsyncEngine, owner: str, number: int, **fields: str) -> None:
    async with engine.begin() as transaction:
        await storing.create(transaction, owner, ({**JOB, **fields} for _ in range(number)), number)


async def claimed(engine: AsyncEngine, room: int) -> list[RowMapping]:
    async with engine.begin() as transaction:
        return list(await claims.claim(transaction, "w", room, TIERS))


def owners(rows: list[RowMapping]) -> Counter[str]:
    return Counter(row["user_id"] for row in rows)


def test_everybody_has_his_share(empty: Api) -> None:
    large, small = user(empty, "premium"), user(empty, "premium")

    async def work(engine: AsyncEngine) -> None:
        await batch(engine, large, 50)
        assert owners(await claimed(engine, 4)) == {large: 4}  # nobody else waits
        await batch(engine, small, 10)
        assert owners(await claimed(engine, 4)) == {small: 4}  # until he has as many in work
        assert owners(await claimed(engine, 4)) == {small: 2, large: 2}

    with_engine(empty, work)


def test_the_urgent_come_first_and_of_one_user_single_jobs(empty: Api) -> None:
    ana, bea = user(empty, "premium"), user(empty, "premium")
    single = str(uuid7())

    async def work(engine: AsyncEngine) -> None:
        await batch(engine, ana, 5)
        await batch(engine, bea, 2, priority="low")
        await batch(engine, bea, 1, priority="urgent")
        empty.sql(
            "INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt) "
            f"VALUES ('{single}', '{ana}', 'queued', 'normal', 'quick_social', 'en', '')"
        )
        rows = [(await claimed(engine, 1))[0] for _ in range(8)]
        assert [row["priority"] for row in rows] == ["urgent", *["normal"] * 6, "low"]
        assert rows[1]["id"] == single
        assert [row["batch_position"] for row in rows[2:7]] == [1, 2, 3, 4, 5]

    with_engine(empty, work)


def test_the_tier_limits_what_is_in_work(empty: Api) -> None:
    limited = user(empty)

    async def work(engine: AsyncEngine) -> None:
        await batch(engine, limited, 20)
        found = await asyncio.gather(*(claimed(engine, 2) for _ in range(5)))
        assert sum(len(rows) for rows in found) == 3
        ids = [row["id"] for rows in found for row in rows]
        assert len(set(ids)) == 3
        async with engine.begin() as transaction:
            await claims.give_back(transaction, "w", ids[:1])
        [again] = await claimed(engine, 5)
        assert again["attempts"] == 1

    with_engine(empty, work)


def test_periodic_work_is_done_by_one_and_not_lost(empty: Api) -> None:
    begun, ended = asyncio.Event(), Counter[str]()

    async def slow(_: Any) -> None:
        begun.set()
        await asyncio.sleep(0.3)
        ended["slow"] += 1

    async def fails(_: Any) -> None:
        raise OSError("killed")

    async def counts(_: Any) -> None:
        ended["counted"] += 1

    async def work(engine: AsyncEngine) -> None:
        works = [Work("slow", Seconds(60), slow)]
        await asyncio.gather(*(run_due(engine, works) for _ in range(4)))
        assert ended == {"slow": 1}
        with pytest.raises(OSError, match="killed"):
            await run_due(engine, [Work("lost", Seconds(60), fails)])
        await run_due(engine, [Work("lost", Seconds(60), counts)])  # at once: it was not done
        await run_due(engine, [Work("lost", Seconds(60), counts)])
        assert ended["counted"] == 1

    with_engine(empty, work)
