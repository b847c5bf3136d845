"""The API's revision on a database with rows, and the API inside of an application that is not ours."""

import asyncio
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import psutil
import pytest
from fastapi import APIRouter, FastAPI
from served_api import JOB, Api, database
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from test_api_life import problem

from aiprod_ops.lab import postgres
from aiprod_ops.service import init_phase2_features, register_phase2_router
from aiprod_ops.service.around import close
from aiprod_ops.service.http.requests import AnyCaller, OwnedRoute
from aiprod_ops.service.settings import Settings
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab

ROWS = textwrap.dedent("""
    INSERT INTO users VALUES ('00000000-0000-7000-8000-000000000001', 'old@example.org', 'Old', 'free');
    INSERT INTO api_keys VALUES
        ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 'hash', 'default');
    INSERT INTO jobs (id, user_id, status, priority, preset, language, prompt)
        SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', status, 'normal', 'quick_social', 'en', 'x'
        FROM unnest(ARRAY['queued', 'processing', 'completed', 'failed', 'cancelled']) AS status;
""")


@pytest.fixture(scope="module")
def old() -> Iterator[Api]:
    """A database that was at 002 when its rows came."""
    with database() as made:
        postgres.migrate(made.admin, "002", downgrade=True)
        made.sql(ROWS)
        postgres.migrate(made.admin, "head")
        yield made


def columns(api: Api) -> list[tuple[str, ...]]:
    return api.sql(
        "SELECT table_name, column_name, data_type, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2"
    ) + api.sql(
        "SELECT indexrelid::regclass::text, indisvalid::text FROM pg_index WHERE indrelid > 16000 "
        "AND indexrelid::regclass::text NOT LIKE 'pg_toast%' ORDER BY 1"
    )


def test_there_and_back(old: Api) -> None:
    before = columns(old)
    postgres.migrate(old.admin, "002", downgrade=True)
    assert "idempotency_keys" not in {row[0] for row in columns(old)}
    postgres.migrate(old.admin, "head")
    assert columns(old) == before


def test_what_an_interrupted_build_left_is_built_again(old: Api) -> None:
    before = columns(old)
    postgres.migrate(old.admin, "002", downgrade=True)
    old.sql("CREATE INDEX idx_jobs_user_id_id ON jobs (user_id, id)")
    old.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_jobs_user_id_id'::regclass")
    postgres.migrate(old.admin, "head")
    assert columns(old) == before


def test_rows_that_are_older_than_the_api(old: Api) -> None:
    async def look(client: httpx.AsyncClient, _: FastAPI) -> list[dict[str, object]]:
        items: list[dict[str, object]] = (await client.get("/jobs")).json()["items"]
        return items

    jobs = {job["status"]: job for job in asyncio.run(_inside(old, old.key("old@example.org", tier="free"), look))}
    assert {status: (job["progress"], job["title"], job["priority"]) for status, job in jobs.items()} == {
        "queued": (0, "", "medium"),
        "processing": (0, "", "medium"),
        "completed": (100, "", "medium"),
        "failed": (0, "", "medium"),
        "cancelled": (0, "", "medium"),
    }


@pytest.mark.parametrize("when", ["before", "at-start"])
def test_in_an_application_that_is_not_ours(api: Api, when: str) -> None:
    async def use(client: httpx.AsyncClient, _: FastAPI) -> list[httpx.Response]:
        made = await client.post("/jobs", json=JOB, headers={"Idempotency-Key": when})
        return [
            made,
            await client.post("/jobs", json=JOB, headers={"Idempotency-Key": when}),
            await client.get(f"/jobs/{made.json()['id']}"),
            await client.get("/jobs/nothing"),
            await client.get("/users/me", headers={"Authorization": ""}),
            await client.get("/docs/api/overview"),
        ]

    key = api.key("inside@example.org")
    answers = asyncio.run(_inside(api, key, use, at_start=when != "before"))
    assert [answer.status_code for answer in answers] == [201, 201, 200, 422, 401, 200]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert ["ratelimit" in answer.headers for answer in answers[:3]] == [when == "before"] * 3
    for answer, code in ((answers[3], "VALIDATION_FAILED"), (answers[4], "UNAUTHENTICATED")):
        answer.headers.setdefault("x-request-id", answer.json()["request_id"])  # the name is a middleware's
        problem(answer, code)


def test_a_database_that_hangs(api: Api) -> None:
    async def use(client: httpx.AsyncClient, _: FastAPI) -> list[httpx.Response]:
        answers = [await client.get("/users/me")]
        with hung(api):
            answers += await asyncio.gather(*(client.post("/jobs", json=JOB) for _ in range(12)))
        for _ in range(100):  # what was given up is still on its way to the server
            last = await client.get("/users/me")
            if last.status_code == 200:
                break
            await asyncio.sleep(0.1)
        return [*answers, last]

    first, *meanwhile, last = asyncio.run(_inside(api, api.key("patient@example.org"), use, longest=Seconds(1)))
    assert (first.status_code, last.status_code) == (200, 200)
    for answer in meanwhile:
        problem(answer, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
    assert "Whether it was done is unknown" in meanwhile[0].json()["detail"]


@contextmanager
def hung(api: Api) -> Iterator[None]:
    """PostgreSQL, which keeps all its connections and does nothing."""
    postmaster = psutil.Process(int((api.server.data / "postmaster.pid").read_text().split()[0]))
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for each in stopped:
        each.suspend()
    try:
        yield
    finally:
        for each in stopped:
            each.resume()


def test_a_route_of_the_application_s_own(api: Api) -> None:
    async def use(client: httpx.AsyncClient, app: FastAPI) -> list[httpx.Response]:
        router = APIRouter(route_class=OwnedRoute)

        @router.get("/mine")
        async def mine(caller: AnyCaller) -> str:
            return caller.tier

        @app.get("/open")
        async def opened() -> str:
            return "to everybody"

        app.include_router(router)
        found = [await client.get("http://app/mine"), await client.get("http://app/open")]
        return [*found, await client.get("http://app/mine", headers={"Authorization": ""})]

    mine, opened, nobody = asyncio.run(_inside(api, api.key("own@example.org", tier="enterprise"), use))
    assert (mine.json(), opened.json()) == ("enterprise", "to everybody")
    assert ["ratelimit" in each.headers for each in (mine, opened)] == [True, False]
    problem(nobody, "UNAUTHENTICATED")


class Tired(Exception):
    """What the application answers in its own way."""


def test_who_is_asked_before_the_work_and_told_after_its_commit(api: Api) -> None:
    asked: list[str] = []
    seen: list[tuple[str, list[tuple[object, ...]]]] = []

    async def guard(request: Request) -> None:
        asked.append(request.state.caller.tier)
        if len(asked) > 1:
            raise Tired

    async def told(request: Request) -> None:
        seen.append((request.method, api.sql("SELECT count(*) FROM jobs WHERE title = 'guarded'")))

    async def use(client: httpx.AsyncClient, app: FastAPI) -> list[httpx.Response]:
        app.state.service.guards.append(guard)
        app.state.service.after_change.append(told)
        app.add_exception_handler(Tired, lambda *_: PlainTextResponse("later", 429))
        return [await client.post("/jobs", json={**JOB, "title": "guarded"}) for _ in range(2)]

    answers = asyncio.run(_inside(api, api.key("guarded@example.org", tier="premium"), use))
    assert [answer.status_code for answer in answers] == [201, 429]
    assert asked == ["premium", "premium"]
    assert seen == [("POST", [(1,)])]


def test_what_its_own_routes_raise_an_application_answers_itself(api: Api) -> None:
    async def use(_: httpx.AsyncClient, app: FastAPI) -> httpx.Response:
        @app.get("/mine")
        async def mine() -> None:
            raise KeyError("mine")

        app.add_exception_handler(Exception, lambda *_: PlainTextResponse("sorry", 500))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get("/mine")

    answer = asyncio.run(_inside(api, "no key", use))
    assert (answer.status_code, answer.text) == (500, "sorry")


async def _inside(api: Api, key: str, use: object, *, at_start: bool = False, longest: Seconds = Seconds(20)) -> Any:
    settings = Settings(dsn=api.dsn, longest=longest)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if at_start:
            app.middleware_stack = app.build_middleware_stack()  # as a server has done by then
            init_phase2_features(app, settings)
            register_phase2_router(app)
        yield

    app = FastAPI(lifespan=lifespan)
    if not at_start:
        init_phase2_features(app, settings)
        register_phase2_router(app)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://app/api/v1", headers=headers) as client:
            found = await use(client, app)  # type: ignore[operator]
    await close(app.state.service)
    return found
