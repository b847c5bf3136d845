"""A batch of 100,000: accepted in a memory that does not grow with its size, and downloaded as one file."""

import hashlib
import io
import json
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from served_api import JOB, Api
from worker_process import until, workers

from aiprod_ops.lab.rendering import HOST, content

pytestmark = pytest.mark.soak
MB = 1_000_000


def lines(number: int) -> Iterator[bytes]:
    for n in range(number):
        yield json.dumps({**JOB, "title": f"{n}", "duration_seconds": 5, "prompt": "x" * 300}).encode() + b"\n"


def peak(api: Api, *, anew: bool = False) -> int:
    """The most memory that the API's process had, in bytes."""
    assert api.process is not None
    folder = Path(f"/proc/{api.process.pid}")
    if anew:
        (folder / "clear_refs").write_text("5")
        return int(psutil.Process(api.process.pid).memory_info().rss)
    [line] = [line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def say(text: str) -> None:
    """For whoever measures: shown with `-s`."""
    sys.stderr.write(f"{text}\n")


def complete(api: Api, batch: str) -> None:
    """Render what is left of a batch, faster than a worker: rendering 100,000 would take half an hour."""
    left = api.sql("SELECT id::text FROM jobs WHERE batch_id = %(id)s AND status = 'queued'", {"id": batch})
    rows = io.StringIO()
    for (job,) in left:
        video = b"".join(content(job, 0, 5_000))
        digest = hashlib.sha256(video).hexdigest()
        url = f"https://{HOST}/{job}.mp4?size=5000"
        rows.write(f"{uuid.uuid4()}\t{job}\t{url}\t{url}\t5\t5000\t0.9\t{zlib.crc32(video)}\t\\\\x{digest}\n")
    rows.seek(0)
    columns = (
        "id", "job_id", "video_url", "thumbnail_url", "duration_seconds", "size_bytes", "quality_score", "crc32",
        "sha256",
    )  # fmt: skip
    with closing(psycopg2.connect(api.admin)) as connection, connection, connection.cursor() as cursor:
        cursor.copy_from(rows, "results", columns=columns)
        cursor.execute(
            "UPDATE jobs SET status = 'completed', completed_at = now() WHERE batch_id = %s AND status = 'queued'",
            (batch,),
        )


def test_a_hundred_thousand(api: Api, tmp_path: Path) -> None:
    with api.client(api.key("soak-batch@example.org")) as client:
        client.timeout = 300
        kind = {"Content-Type": "application/x-ndjson"}
        grown = {}
        for number in (1_000, 100_000):
            before, began = peak(api, anew=True), time.monotonic()
            answer = client.post("/batches", content=lines(number), headers=kind)
            assert answer.status_code == 201, answer.text
            grown[number] = peak(api) - before
            say(f"{number} items: {time.monotonic() - began:.1f} s, the API grew by {grown[number] / MB:.1f} MB")
        assert grown[100_000] < grown[1_000] + 16 * MB, grown
        batch = answer.json()["id"]
        with workers(api, 1, "--concurrency", "50", "--sender", "none"):
            until(lambda: client.get(f"/batches/{batch}").json()["completed"] > 200, "nothing is rendered", 300)
        complete(api, batch)
        with workers(api, 1, "--sender", "none"):
            until(lambda: client.get(f"/batches/{batch}").json()["status"] == "completed", "it does not end", 300)
        before, began = peak(api, anew=True), time.monotonic()
        with (tmp_path / "all.zip").open("wb") as file, client.stream("GET", f"/batches/{batch}/download") as videos:
            for chunk in videos.iter_bytes():
                file.write(chunk)
        say(f"downloaded in {time.monotonic() - began:.0f} s, the API grew by {(peak(api) - before) / MB:.1f} MB")
        assert peak(api) - before < 32 * MB
        with zipfile.ZipFile(tmp_path / "all.zip") as archive:
            assert len(archive.namelist()) == 100_001
            assert archive.testzip() is None
