"""`serve` and `api-key` as they are typed: on a lab, and where something is missing."""

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from command_line import Bench, lab, until

from aiprod_ops.lab import ports, postgres

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(2_000) as made:
        yield made


def test_the_lab_serves(bench: Bench) -> None:
    early = bench.run("serve")
    assert early.exit == 78
    assert "the database lacks what the API needs: " in early.err
    assert "alembic upgrade head" in early.err
    assert bench.run("api-key", "ana@example.org").exit == 78
    postgres.migrate(bench.admin, "head")
    key = bench.run("api-key", "ana@example.org", "--scope", "jobs", "--scope", "admin").out.strip()
    other = bench.run("api-key", "ana@example.org", "--tier", "premium")
    assert (other.exit, other.out) == (64, "")
    assert "is there already, with the tier free" in other.err
    assert bench.run("api-key", "ana@example.org", "--tier", "free").exit == 0
    port = str(ports.free(bench.fleet.folder, taken=bench.fleet.ports)[0])
    scratch = bench.config.with_name("scratch")
    scratch.mkdir()
    going = bench.start("serve", "--port", port, "--workers", "2", TMPDIR=str(scratch))
    url = f"http://127.0.0.1:{port}/api/v1"
    working = bench.start("worker", "--renderer", "aiprod_ops.lab.rendering:Renderer")
    try:
        until(lambda: _status(f"{url}/docs") == 200, "it does not serve")
        with closing(httpx.Client(headers={"Authorization": f"Bearer {key}"})) as client:
            made = client.post(f"{url}/jobs", json={"preset": "premium_spot", "prompt": "A city at night."})
            name = made.headers["x-request-id"]
            here = f"{url}/jobs/{made.json()['id']}"
            until(lambda: client.get(here).json()["status"] == "completed", "the worker does nothing")
            users = client.get(f"{url}/users", params={"limit": 100}).json()
            assert len(users["items"]) == 41  # the lab's own, and Ana
        taken = bench.run("serve", "--port", port)
        assert (taken.exit, "cannot be listened at: Address already in use" in taken.err) == (78, True), taken.err
        page = httpx.get(f"http://127.0.0.1:{port}/docs")
        assert "//cdn" not in page.text
        assert httpx.get(f"http://127.0.0.1:{port}/docs/files/swagger-ui-bundle.js").status_code == 200
    finally:
        going.process.terminate()
        working.process.terminate()
    worked = working.done()
    assert (worked.exit, "Traceback" in worked.said) == (0, False), worked.said
    done = going.done()
    assert done.exit == 0, done.said
    assert key not in done.said
    assert f"request {name}" in done.said
    assert "Traceback" not in done.said
    assert list(scratch.iterdir()) == []


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def test_where_something_is_missing(bench: Bench) -> None:
    done = bench.run("serve", "--app-dsn", "host=127.0.0.1 port=1 dbname=x password=hush")
    assert (done.exit, "hush" in done.said) == (10, False)
    assert "does not answer" in done.err
    bench.sql("REVOKE SELECT ON jobs, results FROM aiprod_app")
    done = bench.run("serve")
    bench.sql("GRANT SELECT ON jobs, results TO aiprod_app")
    assert (done.exit, "may not read jobs, results" in done.err, "GRANT SELECT" in done.err) == (78, True, True), (
        done.err
    )
    done = bench.run("worker")
    assert (done.exit, "AIPROD_OPS_RENDERER is not set" in done.err) == (78, True)
    done = bench.run("worker", "--renderer", "nowhere:Nothing")
    assert (done.exit, "there is no renderer at 'nowhere:Nothing'" in done.err) == (78, True)
    done = bench.run("api-key", "nobody")
    assert (done.exit, "is not an e-mail address" in done.err) == (64, True)
    other = bench.config.with_name("without_app.toml")
    lines = bench.config.read_text().splitlines(keepends=True)
    other.write_text("".join(line for line in lines if not line.startswith("app =")))
    done = bench.run("serve", "--config", str(other))
    assert (done.exit, "has no app identity" in done.err, "--app-dsn" in done.err) == (78, True, True)
