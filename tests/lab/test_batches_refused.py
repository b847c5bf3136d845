"""What is no batch is refused, and what is our fault is told as that: bad lines, two files, a full disk."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served_api import JOB, Api
from test_api_life import problem
from test_batches import LINES, items, lines, made
from worker_process import until

from aiprod_ops.lab.faults import small_filesystem
from aiprod_ops.units import Bytes

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key("refused@example.org")) as refused:
        yield refused


def test_one_bad_line(api: Api, client: httpx.Client) -> None:
    [(before,)] = api.sql("SELECT count(*) FROM jobs")
    content = lines(items(20)) + b'{"preset": "quick_social"\n' + lines([{**JOB, "prompt": " "}]) + lines(items(20))
    refused = problem(client.post("/batches", content=content, headers=LINES), "VALIDATION_FAILED")
    assert [error["field"] for error in refused["errors"]] == ["items.21", "items.22.prompt"]  # type: ignore[attr-defined]
    assert refused["detail"] == "2 of 42 items do not follow the rules: nothing was accepted."
    assert api.sql("SELECT count(*) FROM jobs") == [(before,)]
    batch = made(client.post("/batches", params={"partial": True}, content=content, headers=LINES))
    assert (batch["jobs"], batch["rejected"]) == (40, 2)
    assert [(error["item"], error["rule"]) for error in batch["errors"]] == [(21, "json"), (22, "blank")]
    client.post(f"/batches/{batch['id']}/cancel")


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"", "application/json", "INVALID_JSON"),
        (b"[]", "application/json", "VALIDATION_FAILED"),
        (b"{}", "application/json", "INVALID_JSON"),
        (b"[1, true, null]", "application/json", "VALIDATION_FAILED"),
        (b"[{}", "application/json", "INVALID_JSON"),
        (b"[{}]]", "application/json", "INVALID_JSON"),
        (b"[{},,{}]", "application/json", "INVALID_JSON"),
        (b"[" * 300_000, "application/json", "INVALID_JSON"),
        (b'["' + b"x" * 300_000, "application/json", "INVALID_JSON"),
        (b"[\xff]", "application/json", "INVALID_JSON"),
        (b"\n\n", "application/x-ndjson", "VALIDATION_FAILED"),
        (b"x" * 300_000, "application/x-ndjson", "PAYLOAD_TOO_LARGE"),
        (b"{}", "text/csv", "UNSUPPORTED_MEDIA_TYPE"),
        ("[]".encode("utf-16"), "application/json; charset=utf-16", "UNSUPPORTED_MEDIA_TYPE"),
        (b"--a\r\n", "multipart/form-data; boundary=a", "INVALID_JSON"),
        (b"nothing", "multipart/form-data; boundary=a", "INVALID_JSON"),
    ],
)
def test_what_is_no_batch(client: httpx.Client, content: bytes, kind: str, code: str) -> None:
    problem(client.post("/batches", content=content, headers={"Content-Type": kind}), code)


def test_two_files_are_no_batch(api: Api, client: httpx.Client) -> None:
    [(before,)] = api.sql("SELECT count(*) FROM jobs")
    two = [("items", ("first.jsonl", lines(items(2)))), ("items", ("second.jsonl", lines(items(2))))]
    refused = problem(client.post("/batches", files=two, params={"partial": True}), "VALIDATION_FAILED")
    assert "second.jsonl" in str(refused["detail"])
    assert api.sql("SELECT count(*) FROM jobs") == [(before,)]


if os.geteuid() == 0 and sys.platform == "linux":

    def test_no_room_for_a_batch_is_told(api: Api, client: httpx.Client, short_path: Path) -> None:
        failed = made(client.post("/batches", content=lines(items(500)), headers=LINES))
        api.sql("UPDATE jobs SET status = 'failed' WHERE batch_id = %(id)s", failed)
        api.sql("UPDATE batches SET completed_at = now() WHERE id = %(id)s", failed)
        with small_filesystem(short_path / "full", Bytes(64 * 1024)) as place:
            other = Api(api.server, {**api.environment, "TMPDIR": str(place)})
            other.start()
            try:
                with other.client(api.key("refused@example.org")) as full:
                    for answer in (
                        full.post("/batches", content=lines(items(500)), headers=LINES),
                        full.post(f"/batches/{failed['id']}/retry"),
                    ):
                        assert "room on the server's disk" in str(problem(answer, "SERVICE_UNAVAILABLE")["detail"])
                        assert answer.headers["retry-after"]
                    small = made(full.post("/batches", content=lines(items(5)), headers=LINES))
                assert other.said().count("No space left on device") == 2
                assert "Traceback" not in other.said()
            finally:
                other.stop()
                other.log.close()
        client.post(f"/batches/{small['id']}/cancel")


@pytest.mark.parametrize("path", ["batches", "jobs"])
def test_who_breaks_off_is_no_fault_of_ours(api: Api, client: httpx.Client, path: str) -> None:
    head = (
        f"POST /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {client.headers['authorization']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n[{"
    )
    before = len(api.said())
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(head.encode())
        time.sleep(0.2)  # until it is being read
    until(lambda: "broke off" in api.said()[before:], "nobody tells of it")
    assert "Traceback" not in api.said()[before:]
    assert " ERROR " not in api.said()[before:]
