"""The whole document, fuzzed by schemathesis with all its checks, on the running API."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from redis_servers import Server
from served_api import JOB, Api

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


def fuzzed(api: Api, folder: Path, *words: str) -> None:
    """What schemathesis says; fails with it where it found something. Two users take turns: neither may get what is the
    other's."""
    keys = {name: api.key(f"{name}@example.org", "jobs", "webhooks", "admin") for name in ("fuzz-a", "fuzz-b")}
    for key in keys.values():
        with api.client(key) as client:
            for _ in range(3):  # something to find: results and stages are made by workers
                job = client.post("/jobs", json=JOB).json()["id"]
                api.stage(job)
                api.complete(job)
    headers = {name: [{"name": "Authorization", "value": f"Bearer {key}"}] for name, key in keys.items()}
    users = {"auth": [{"name": name, "fixedHeaders": header} for name, header in headers.items()]}
    (folder / "users.json").write_text(json.dumps(users))
    peers = f'[auth.wfc]\npath = "users.json"\npeers = {json.dumps(list(keys))}\n'
    hooks = f'hooks = "{HOOKS}"\n'
    (folder / "schemathesis.toml").write_text(f"{hooks}{CONFIGURATION.read_text()}\n{peers}")
    tool = Path(sys.executable).with_name("schemathesis")
    command = [tool, "--no-color", "run", f"{api.url}/api/v1/openapi.json", "--checks", "all", "--continue-on-failure"]
    done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True, timeout=3_600)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    with api.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}" in done.stdout, done.stdout
    assert " ERROR " not in api.said(), api.said()[-20_000:]


@pytest.mark.lab
def test_no_check_fails(stored: Api, redis: Server, tmp_path: Path) -> None:
    fuzzed(stored, tmp_path, "--seed", "20261128", "--max-examples", "5")
    assert redis.figure("stats", "keyspace_hits") > 0  # it was used


@pytest.mark.lab
def test_no_check_fails_with_redis_stopped(stored: Api, redis: Server, tmp_path: Path) -> None:
    redis.hang()
    try:
        fuzzed(stored, tmp_path, "--seed", "20261129", "--max-examples", "2", "--phases", "fuzzing")
    finally:
        redis.go_on()


@pytest.mark.soak
@pytest.mark.parametrize("state", ["up", "hung", "dead"])
def test_no_check_fails_for_long(stored: Api, redis: Server, tmp_path: Path, state: str) -> None:
    {"up": lambda: None, "hung": redis.hang, "dead": redis.kill}[state]()
    try:
        fuzzed(stored, tmp_path, "--max-examples", "300")
    finally:
        {"up": lambda: None, "hung": redis.go_on, "dead": redis.start}[state]()
