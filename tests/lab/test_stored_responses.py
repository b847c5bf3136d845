"""Responses that are served below the framework: to whom they belong, as they were, and nothing that must not be."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from redis_servers import PATIENT, Server, in_loop

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service import Caller, RedisCache, StoredResponses, cached_endpoint, stored_routes
from aiprod_ops.service.caching import keys
from aiprod_ops.service.caching.breaker import Delays
from aiprod_ops.service.caching.keys import Tags
from aiprod_ops.service.caching.routes import Route
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.remove()


class Job(BaseModel):
    id: str
    owner: str
    progress: int


class Service:
    """An API with a cache before it, and what its endpoints do."""

    def __init__(self, server: Server, delays: Delays = PATIENT) -> None:
        server.ask("FLUSHALL")
        self.cache = RedisCache(server.place, delays=delays)
        self.calls: list[str] = []
        self.progress, self.takes, self.known = 0, 0.0, {"ada-key": "ada", "bob-key": "bob"}
        self.app = FastAPI()
        self._add_routes()
        self.asgi = StoredResponses(
            self.app,  # type: ignore[arg-type]
            cache=self.cache,
            routes=stored_routes(self.app.routes, public=["/presets"]),
            identify=self._identify,
        )

    def _identify(self, scope: Any) -> Caller | None:
        key = dict(scope["headers"]).get(b"x-api-key", b"").decode()
        return Caller(self.known[key], key) if key in self.known else None

    def _user(self, x_api_key: str = Header("")) -> str:
        if not x_api_key.endswith("-key"):
            raise HTTPException(401)
        return x_api_key.split("-")[0]

    def _add_routes(self) -> None:
        app, service = self.app, self

        @app.get("/jobs/{job_id}")
        @cached_endpoint(ttl=60, key_prefix="job", tags=("job:{job_id}",), user="{user}", cache=lambda: self.cache)
        async def job(job_id: str, user: str = Depends(self._user), limit: int = 5) -> Job:
            service.calls.append(job_id)
            await asyncio.sleep(service.takes)
            if job_id == "none":
                raise HTTPException(404, "there is no such job")
            if job_id == "broken":
                raise HTTPException(503)
            if job_id == "bug":
                raise ZeroDivisionError
            return Job(id=job_id, owner=user, progress=service.progress)

        @app.get("/presets")
        @cached_endpoint(ttl=600, key_prefix="presets", cache=lambda: self.cache)
        def presets() -> list[str]:
            service.calls.append("presets")
            return ["fast", "good"]

        @app.get("/special/{kind}")
        @cached_endpoint(ttl=60, user="{user}", cache=lambda: self.cache)
        async def special(kind: str, user: str = Depends(self._user)) -> Any:
            service.calls.append(kind)
            headers = {
                "cookie": {"set-cookie": "a=1"}, "no-store": {"cache-control": "no-store"},
                "private": {"cache-control": "private"}, "vary": {"vary": "accept-language"}, "tag": {"etag": '"mine"'},
            }.get(kind, {})  # fmt: skip
            if kind == "stream":
                return StreamingResponse(iter([b"a" * 400_000] * 4), headers=headers)
            return Response(kind.encode(), headers=headers)

        router = APIRouter(prefix="/words")

        @router.get("/{number}")
        @cached_endpoint(ttl=60, tags=("word:{number}",), user="{user}", cache=lambda: self.cache)
        async def word(number: int, user: str = Depends(self._user), accept_language: str = Header("en")) -> str:
            return f"{number} in {accept_language}"

        app.include_router(router, prefix="/v1")

        @app.post("/jobs/{job_id}")
        async def change(job_id: str) -> None:
            service.progress += 1
            await service.cache.invalidate(keys.job(job_id))

    async def ask(self, path: str, key: str = "ada-key", method: str = "GET", **headers: str) -> "Answer":
        path, _, query = path.partition("?")
        lines = [
            (b"x-api-key", key.encode()),
            *((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()),
        ]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
                 "raw_path": path.encode(), "query_string": query.encode(), "headers": lines, "root_path": "",
                 "scheme": "http", "server": ("test", 80), "client": ("127.0.0.1", 1)}  # fmt: skip
        sent: list[Any] = []
        body = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            if not body:
                await asyncio.Event().wait()  # the client stays
            return body.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.asgi(scope, receive, send)
        await asyncio.sleep(0.01)  # what is stored is stored beside
        return Answer(sent)


class Answer:
    def __init__(self, sent: list[Any]) -> None:
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])
        assert len(sent[0]["headers"]) == len(self.headers), "a header is there twice"
        assert self.headers.get("content-length", str(len(self.body))) == str(len(self.body))
        assert [message.get("more_body", False) for message in sent[1:]][-1] is False

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


@in_loop
async def test_a_hit_is_the_same_response(server: Server) -> None:
    service = Service(server)
    first, second = await service.ask("/jobs/1?limit=3&x=1"), await service.ask("/jobs/1?x=1&limit=3")
    assert (first.cache, second.cache) == ("miss", "hit")
    assert first.body == second.body == b'{"id":"1","owner":"ada","progress":0}'
    assert {**first.headers, "x-cache": "hit", "age": "0"} == second.headers
    assert service.calls == ["1"]
    assert (await service.ask("/jobs/1")).cache == "miss", "another query is another response"
    public = [await service.ask("/presets"), await service.ask("/presets", key="")]
    assert [each.cache for each in public] == ["miss", "hit"]
    assert service.calls == ["1", "1", "presets"]
    await service.cache.close()


@in_loop
async def test_nobody_gets_what_is_another_s(server: Server) -> None:
    service = Service(server)
    await service.ask("/jobs/1")
    other = await service.ask("/jobs/1", key="bob-key")
    assert (other.cache, other.body) == ("miss", b'{"id":"1","owner":"bob","progress":0}')
    stranger = await service.ask("/jobs/1", key="wrong")
    assert (stranger.status, stranger.cache) == (401, "")
    service.known.clear()  # revoked
    assert (await service.ask("/jobs/1")).cache == ""
    await service.cache.close()


@in_loop
async def test_nobody_gets_what_is_another_s_when_many_ask_and_redis_comes_and_goes(server: Server) -> None:
    service = Service(server, Delays())
    service.known = {f"u{number}-key": f"u{number}" for number in range(20)}
    kinds: set[str] = set()

    async def ask(user: str) -> None:
        for number in range(40):
            answer = await service.ask(f"/jobs/{number % 3}", key=f"{user}-key")
            assert answer.body == b'{"id":"%d","owner":"%s","progress":0}' % (number % 3, user.encode())
            kinds.add(answer.cache)

    async def harm() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
            server.hang()
            await asyncio.sleep(0.1)
            server.go_on()
        server.kill()
        await asyncio.to_thread(server.start)

    await asyncio.gather(harm(), *(ask(user) for user in service.known.values()))
    assert kinds >= {"hit", "miss"}
    await service.cache.close()


@in_loop
async def test_keys_of_one_user_with_other_scopes_have_other_entries(server: Server) -> None:
    service = Service(server)
    service.known["new-key"] = "ada"
    await service.ask("/jobs/1")
    assert (await service.ask("/jobs/1", key="new-key")).cache == "miss"
    await service.cache.close()


@in_loop
async def test_who_is_not_known_is_answered_by_the_framework_with_the_cached_function(server: Server) -> None:
    service = Service(server)
    service.known.clear()
    for _ in range(2):
        assert (await service.ask("/jobs/1")).body == b'{"id":"1","owner":"ada","progress":0}'
    assert service.calls == ["1"]
    await service.cache.close()


@in_loop
async def test_a_change_is_seen(server: Server) -> None:
    service = Service(server)
    await service.ask("/jobs/1")
    await service.ask("/jobs/1", method="POST")
    after = await service.ask("/jobs/1")
    assert (after.cache, after.body) == ("miss", b'{"id":"1","owner":"ada","progress":1}')
    await service.cache.invalidate(keys.user("bob"))
    assert (await service.ask("/jobs/1")).cache == "hit"
    await service.cache.invalidate(keys.user("ada"))
    assert (await service.ask("/jobs/1")).cache == "miss"
    await service.cache.close()


@in_loop
async def test_a_header_that_the_endpoint_reads_is_a_part_of_the_key(server: Server) -> None:
    service = Service(server)
    for _ in range(2):
        assert (await service.ask("/v1/words/7", accept_language="de")).body == b'"7 in de"'
        answer = await service.ask("/v1/words/7", accept_language="fr")
        assert answer.body == b'"7 in fr"'
    assert answer.cache == "hit"
    await service.cache.close()


@in_loop
async def test_two_ways_to_write_a_number_are_invalidated_as_one(server: Server) -> None:
    service = Service(server)
    assert [(await service.ask("/v1/words/007")).cache for _ in range(2)] == ["miss", "hit"]
    await service.cache.invalidate("word:7")
    assert (await service.ask("/v1/words/007")).cache == "miss"
    assert (await service.ask("/v1/words/seven")).status == 422
    await service.cache.close()


@in_loop
async def test_what_must_not_be_stored_is_not(server: Server) -> None:
    service = Service(server)
    for kind in ("cookie", "no-store", "vary", "stream"):
        first, second = await service.ask(f"/special/{kind}"), await service.ask(f"/special/{kind}")
        assert (first.status, second.cache, first.body) == (200, "miss", second.body)
        assert service.calls == [kind, kind]
        service.calls.clear()
    assert len(first.body) == 1_600_000
    for path, status in (("/jobs/broken", 503), ("/nothing", 404)):
        assert [(await service.ask(path)).status for _ in range(2)] == [status] * 2
    assert service.calls == ["broken", "broken"]
    assert (await service.ask("/special/private")).cache == "miss"
    assert (await service.ask("/special/private")).cache == "hit", "it is private, and stored for its user"
    assert (await service.ask("/special/private", range="bytes=0-1")).cache == ""
    await service.cache.close()


@in_loop
async def test_what_is_not_there_is_kept_shortly(server: Server) -> None:
    service = Service(server)
    answers = [await service.ask("/jobs/none") for _ in range(2)]
    assert [(each.status, each.cache) for each in answers] == [(404, "miss"), (404, "hit")]
    assert service.calls == ["none"]
    await service.cache.invalidate(keys.job("none"))  # it was made
    assert (await service.ask("/jobs/none")).cache == "miss"
    await service.cache.close()


@in_loop
async def test_what_the_client_has_is_not_sent_again(server: Server) -> None:
    service = Service(server)
    first = await service.ask("/jobs/1")
    tag = first.headers["etag"]
    for asked in (tag, f'"x", W/{tag}', "*"):
        again = await service.ask("/jobs/1", if_none_match=asked)
        assert (again.status, again.body, again.cache, again.headers["etag"]) == (304, b"", "hit", tag)
    assert (await service.ask("/jobs/1", if_none_match='"x"')).status == 200
    await service.cache.invalidate(keys.job(1))
    unchanged = await service.ask("/jobs/1", if_none_match=tag)
    assert (unchanged.status, unchanged.cache) == (304, "miss")
    assert (await service.ask("/jobs/1")).cache == "hit", "what was not modified was not stored"
    assert [(await service.ask("/special/tag")).headers["etag"] for _ in range(2)] == ['"mine"'] * 2
    await service.cache.close()


@in_loop
async def test_one_computes_for_all_and_an_error_is_each_one_s_own(server: Server) -> None:
    service = Service(server)
    service.takes = 0.05
    answers = await asyncio.gather(*(service.ask("/jobs/1") for _ in range(50)))
    assert {each.body for each in answers} == {b'{"id":"1","owner":"ada","progress":0}'}
    assert service.calls == ["1"]
    failed = await asyncio.gather(*(service.ask("/jobs/broken") for _ in range(5)))
    assert [each.status for each in failed] == [503] * 5
    bugs = await asyncio.gather(*(service.ask("/jobs/bug") for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in bugs] == [ZeroDivisionError] * 5
    await service.cache.close()


@in_loop
async def test_an_old_response_is_served_while_a_new_one_is_made(server: Server) -> None:
    service = Service(server)
    shortly = Lifetime(Seconds(0.5), Seconds(60))
    service.asgi = StoredResponses(
        service.app,  # type: ignore[arg-type]
        cache=service.cache,
        routes=[replace(each, lifetime=shortly) for each in stored_routes(service.app.routes)],
        identify=service._identify,
    )
    await service.ask("/jobs/1")
    await asyncio.sleep(0.6)
    service.progress = 1
    new = old = await service.ask("/jobs/1")
    for _ in range(200):
        if new.cache == "stale":
            new = await service.ask("/jobs/1")
    assert (old.cache, old.body) == ("stale", b'{"id":"1","owner":"ada","progress":0}')
    assert (new.cache, new.body) == ("hit", b'{"id":"1","owner":"ada","progress":1}')
    await service.cache.close()


@in_loop
async def test_without_redis_the_origin_answers(server: Server) -> None:
    service = Service(server, Delays())
    first = await service.ask("/jobs/1")
    server.hang()
    try:
        answers = await asyncio.gather(*(service.ask("/jobs/1") for _ in range(5)))
        assert [(each.status, each.cache, each.body) for each in answers] == [(200, "miss", first.body)] * 5
        assert (await service.ask("/jobs/1", if_none_match=first.headers["etag"])).status == 304
    finally:
        server.go_on()
    await service.cache.close()


def test_an_application_without_cached_endpoints_is_told() -> None:
    with pytest.raises(ConfigurationError, match="no route is stored"):
        stored_routes(FastAPI().routes)


def test_a_tag_of_what_a_request_does_not_tell_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tags of user\.id; known from a request are job_id, user"):
        Route("/jobs/{job_id}", Lifetime(Seconds(1)), Tags(("user:{user.id}", "job:{job_id}")))
    with pytest.raises(ConfigurationError, match="tags of user; known from a request are none"):
        Route("/presets", Lifetime(Seconds(1)), Tags(("{user}",)), is_public=True)
