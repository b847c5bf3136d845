"""The usage ledger, its warnings and its export, and jobs counted in PostgreSQL: on a real server, many at once."""

import asyncio
import csv
import io
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from command_line import lone_server, short_folder
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.domain.tiers import Prices, Tier
from aiprod_ops.lab import postgres
from aiprod_ops.service.ids import uuid7
from aiprod_ops.service.limiting.jobs import JobsRefused, admit
from aiprod_ops.service.usage import export
from aiprod_ops.service.usage.ledger import QuotaWarning, Usage, monthly_cost, record

pytestmark = pytest.mark.lab

PRICES = Prices({"quick_social": 1, "brand_campaign": 3, "premium_spot": 10})
TIER = Tier("pro", 60, 10_000, concurrent_jobs=3, batch_size=5, monthly_cost_units=1_000)
NOVEMBER = datetime(2026, 11, 28, 12, tzinfo=UTC)
MONTH = date(2026, 11, 1)
#: What the application may do in the lab.
APP = "ALTER DEFAULT PRIVILEGES FOR ROLE aiprod_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aiprod_app"
USER = "INSERT INTO users (id, email, name, tier) VALUES (%(id)s, 'a@b.c', 'A', 'pro')"
ENDPOINT = "INSERT INTO webhook_endpoints (id, user_id, url, events) VALUES (%(id)s, %(id)s, 'https://e.x/', '{}')"
EVENTS = "SELECT payload FROM webhook_events WHERE user_id = %(id)s ORDER BY created_at, id"
JOB = """
    INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt)
    VALUES (:id, :user_id, :status, 'normal', 'quick_social', 'en', '')
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with short_folder() as folder, lone_server(folder) as made:
        admin = made.dsn("postgres", "postgres")
        postgres.rows(admin, "CREATE ROLE aiprod_owner")
        postgres.rows(admin, "CREATE ROLE aiprod_app LOGIN")
        postgres.rows(admin, "CREATE DATABASE ledger OWNER aiprod_owner")
        postgres.rows(made.dsn("postgres", "ledger"), APP)
        postgres.migrate(made.dsn("postgres", "ledger"), "head")
        yield made


@pytest.fixture
def user(server: PostgresServer) -> str:
    made = str(uuid7())
    postgres.rows(server.dsn("postgres", "ledger"), USER, {"id": made})
    return made


def with_engine(server: PostgresServer, work: Callable[[AsyncEngine], Awaitable[Any]], role: str = "aiprod_app") -> Any:
    query = {"host": str(server.sockets), "port": str(server.port)}
    url = URL.create("postgresql+psycopg", role, database="ledger", query=query)

    async def run() -> Any:
        engine = create_async_engine(url, poolclass=NullPool)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


async def job(engine: AsyncEngine, user: str, status: str = "completed") -> str:
    made = str(uuid7())
    async with engine.begin() as connection:
        await connection.execute(text(JOB), {"id": made, "user_id": user, "status": status})
    return made


async def enter(engine: AsyncEngine, usage: Usage, tier: Tier = TIER) -> tuple[QuotaWarning, ...]:
    async with engine.begin() as connection:
        return await record(connection, usage, tier, PRICES)


def sums(server: PostgresServer, user: str) -> tuple[list[Any], list[Any]]:
    """By month: what the entries add up to, and the sums that are kept."""
    dsn, values = server.dsn("postgres", "ledger"), {"user": user}
    entries = """
        SELECT date_trunc('month', moment AT TIME ZONE 'UTC')::date, sum(cost_units)::bigint FROM usage
        WHERE user_id = %(user)s GROUP BY 1 ORDER BY 1
    """
    kept = "SELECT month, cost_units FROM usage_months WHERE user_id = %(user)s ORDER BY 1"
    return postgres.rows(dsn, entries, values), postgres.rows(dsn, kept, values)


def test_the_schema_goes_down_and_up_again(server: PostgresServer) -> None:
    dsn = server.dsn("postgres", "ledger")
    postgres.migrate(dsn, "002", downgrade=True)
    ours = "relnamespace = 'public'::regnamespace AND relname LIKE '%usage%'"
    assert postgres.rows(dsn, f"SELECT relname FROM pg_class WHERE {ours}") == []
    assert postgres.rows(dsn, "SELECT proname FROM pg_proc WHERE proname LIKE '%of_usage'") == []
    postgres.migrate(dsn, "head")


def test_a_job_is_entered_once(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        usage = Usage(user, await job(engine, user), "premium_spot", 90, NOVEMBER)
        found = await asyncio.gather(*(enter(engine, usage) for _ in range(8)))
        assert sorted(map(len, found)) == [0] * 7 + [1]
        async with engine.connect() as connection:
            assert await monthly_cost(connection, user, MONTH) == 900
            assert await monthly_cost(connection, user, date(2026, 12, 1)) == 0

    with_engine(server, work)
    assert sums(server, user) == ([(MONTH, 900)], [(MONTH, 900)])


def test_what_is_rolled_back_was_never_entered(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        usage = Usage(user, await job(engine, user), "premium_spot", 90, NOVEMBER)
        async with engine.connect() as connection:
            assert len(await record(connection, usage, TIER, PRICES)) == 1
            await connection.rollback()
        assert [each.percent for each in await enter(engine, usage)] == [80]

    with_engine(server, work)


def test_each_warning_comes_once_however_many_jobs_end_at_once(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        jobs = [await job(engine, user) for _ in range(24)]
        found = await asyncio.gather(*(enter(engine, Usage(user, each, "quick_social", 50, NOVEMBER)) for each in jobs))
        warnings = [warning for each in found for warning in each]
        assert sorted((each.percent, each.cost_units) for each in warnings) == [(80, 800), (100, 1_000)]
        more = await enter(engine, Usage(user, await job(engine, user), "quick_social", 1, NOVEMBER))
        higher = Tier("premium", 1, 1, 1, 1, monthly_cost_units=1_300)
        raised = await enter(engine, Usage(user, await job(engine, user), "quick_social", 99, NOVEMBER), higher)
        assert (more, raised) == ((), ())  # a warning of this month was sent

    dsn, values = server.dsn("postgres", "ledger"), {"id": user}
    postgres.rows(dsn, ENDPOINT, values)
    with_engine(server, work)
    told = [json.loads(bytes(payload)) for (payload,) in postgres.rows(dsn, EVENTS, values)]
    assert [(each["type"], each["data"]["percent"]) for each in told] == [("quota.warning", 80), ("quota.warning", 100)]
    assert told[0]["data"] == {"month": "2026-11-01", "percent": 80, "cost_units": 800, "monthly_cost_units": 1_000}
    assert sums(server, user) == ([(MONTH, 1_300)], [(MONTH, 1_300)])


def test_a_month_is_one_of_utc(server: PostgresServer, user: str) -> None:
    moments = ("2026-11-30T23:59:59.999999+00:00", "2026-12-01T00:30:00+01:00", "2026-12-01T00:00:00+00:00")

    async def work(engine: AsyncEngine) -> None:
        for moment in moments:
            usage = Usage(user, await job(engine, user), "quick_social", 1, datetime.fromisoformat(moment))
            await enter(engine, usage)
        naive = Usage(user, await job(engine, user), "quick_social", 1, datetime(2026, 11, 1))  # noqa: DTZ001
        with pytest.raises(ValueError, match="no time zone"):
            await enter(engine, naive)

    with_engine(server, work)
    assert sums(server, user) == ([(MONTH, 2), (date(2026, 12, 1), 1)],) * 2


@pytest.mark.parametrize(
    "statement", ["UPDATE usage SET cost_units = 0", "DELETE FROM usage", "TRUNCATE usage", "TRUNCATE usage CASCADE"]
)
def test_the_ledger_is_only_added_to(server: PostgresServer, statement: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        with pytest.raises(DBAPIError, match="only added to"):
            async with engine.begin() as connection:
                await connection.execute(text(statement))

    with_engine(server, work, "postgres")


def test_the_export_holds_every_entry_of_the_month(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> tuple[bytes, bytes, bytes]:
        for number in range(3):
            moment = datetime(2027, 1 + number // 2, 1 + number, 12, 30, tzinfo=UTC)
            await enter(engine, Usage(user, await job(engine, user), "brand_campaign", 10 + number, moment))
        async with engine.connect() as connection:
            january = date(2027, 1, 1)
            csv_lines = b"".join([piece async for piece in export.as_csv(connection, january)])
            lines = b"".join([piece async for piece in export.as_json_lines(connection, january, user)])
            nobodys = [piece async for piece in export.as_json_lines(connection, january, str(uuid7()))]
            return csv_lines, lines, b"".join(nobodys)

    table, lines, nobodys = with_engine(server, work)
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    objects = [json.loads(line) for line in lines.splitlines()]
    assert [(each["seconds"], each["cost_units"]) for each in rows] == [("10", "30"), ("11", "33")]
    assert [each["moment"] for each in rows] == ["2027-01-01T12:30:00.000000+00:00", "2027-01-02T12:30:00.000000+00:00"]
    assert [{name: str(value) for name, value in each.items()} for each in objects] == rows
    assert {each["user_id"] for each in rows} == {user}
    assert nobodys == b""


def test_memory_does_not_grow_with_the_export(server: PostgresServer, user: str) -> None:
    count = 25_000
    many = f"""
        WITH made AS (
            INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt)
            SELECT gen_random_uuid(), '{user}', 'completed', 'normal', 'quick_social', 'en', ''
            FROM generate_series(1, {count}) RETURNING id
        )
        INSERT INTO usage (user_id, job_id, preset, seconds, cost_units, moment)
        SELECT '{user}', id, 'quick_social', 15, 15, '2028-02-10 00:00+00' FROM made
    """
    postgres.rows(server.dsn("postgres", "ledger"), many)

    async def work(engine: AsyncEngine) -> tuple[int, int, int]:
        async with engine.connect() as connection:
            lines, size = 0, 0
            tracemalloc.start()
            async for piece in export.as_csv(connection, date(2028, 2, 1)):
                lines, size = lines + piece.count(b"\n"), size + len(piece)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return lines, size, peak

    lines, size, peak = with_engine(server, work)
    assert lines == count + 1
    assert peak < size / 2, (peak, size)


# Jobs under way


async def submit(engine: AsyncEngine, user: str, jobs: int = 1, tier: Tier = TIER) -> int:
    async with engine.begin() as connection:
        room = await admit(connection, user, tier, jobs, NOVEMBER)
        for _ in range(jobs):
            await connection.execute(text(JOB), {"id": uuid7(), "user_id": user, "status": "queued"})
        return room.jobs


def test_many_submissions_at_once_are_not_more_than_the_tier_allows(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> list[Any]:
        await job(engine, user)  # one that is completed does not count
        return await asyncio.gather(*(submit(engine, user) for _ in range(16)), return_exceptions=True)

    found = with_engine(server, work)
    assert sorted(each for each in found if isinstance(each, int)) == [0, 1, 2]
    refused = [each for each in found if isinstance(each, JobsRefused)]
    assert (len(refused), {each.code for each in refused}) == (13, {"CONCURRENT_JOBS_EXCEEDED"})
    assert "3 jobs are under way and 1 were submitted" in refused[0].detail
    query = "SELECT count(*) FROM jobs WHERE user_id = %(user)s AND status = 'queued'"
    assert postgres.rows(server.dsn("postgres", "ledger"), query, {"user": user}) == [(3,)]


def test_users_do_not_wait_for_each_other(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await admit(connection, user, TIER, 1, NOVEMBER)
            async with asyncio.timeout(10), engine.begin() as other:
                assert (await admit(other, str(uuid7()), TIER, 1, NOVEMBER)).jobs == 2

    with_engine(server, work)


def test_a_batch_is_all_or_nothing(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        for jobs, code in ((6, "BATCH_TOO_LARGE"), (4, "CONCURRENT_JOBS_EXCEEDED")):
            with pytest.raises(JobsRefused) as refused:
                await submit(engine, user, jobs)
            assert refused.value.code == refused.value.problem["code"] == code
        assert await submit(engine, user, 3) == 0

    with_engine(server, work)


def test_the_months_cost_units_are_a_limit(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        await enter(engine, Usage(user, await job(engine, user), "premium_spot", 100, NOVEMBER))
        with pytest.raises(JobsRefused) as refused:
            await submit(engine, user)
        assert refused.value.code == "MONTHLY_QUOTA_EXCEEDED"
        assert refused.value.retry_after == 2.5 * 86_400
        assert "1,000 of 1,000 cost units of 2026-11" in refused.value.detail

    with_engine(server, work)


def test_an_old_snapshot_is_refused(server: PostgresServer, user: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            with pytest.raises(RuntimeError, match="expected read committed"):
                await admit(connection, user, TIER, 1, NOVEMBER)

    with_engine(server, work)
