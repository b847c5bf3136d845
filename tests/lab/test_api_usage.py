"""What jobs cost: as a user sees it, as an administrator does, and as billing gets it."""

import csv
import io
import json
import os
from datetime import UTC, datetime

import pytest
from command_line import Done, Going
from served_api import JOB, Api
from test_api_life import problem

pytestmark = pytest.mark.lab


def typed(*words: str) -> Done:
    return Going(words, {name: value for name, value in os.environ.items() if not name.startswith("AIPROD")}).done()


def test_a_month_s_cost_and_its_entries(api: Api) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    with api.client(api.key("costs@example.org", "jobs", "admin")) as client:
        me = client.get("/users/me").json()["id"]
        nothing = client.get("/usage").json()
        assert (nothing["cost_units"], nothing["warnings"], nothing["month"]) == (0, [], month)
        jobs = [client.post("/jobs", json=JOB).json()["id"] for _ in range(5)]
        for job in jobs:
            api.used(me, job)
        summed = client.get("/usage").json()
        assert (summed["cost_units"], summed["monthly_cost_units"]) == (150, 1_000_000_000)
        assert client.get(f"/users/{me}/usage").json() == summed
        first = client.get("/usage/entries", params={"limit": 3}).json()
        rest = client.get("/usage/entries", params={"limit": 3, "cursor": first["next_cursor"]}).json()
        found = [each["job_id"] for part in (first, rest) for each in part["items"]]
        assert found == jobs[::-1]
        assert rest["next_cursor"] is None
        assert client.get("/usage", params={"month": "2020-01"}).json()["cost_units"] == 0
        assert client.get("/usage/entries", params={"month": "2020-01"}).json()["items"] == []
        problem(client.get("/usage", params={"month": "2026-13"}), "VALIDATION_FAILED")
        problem(client.get("/users/00000000-0000-7000-8000-00000000dead/usage"), "NOT_FOUND")
    with api.client(api.key("plain@example.org")) as other:
        problem(other.get(f"/users/{me}/usage"), "INSUFFICIENT_SCOPE")
        assert other.get("/usage/entries").json()["items"] == []


def test_billing_gets_the_same(api: Api) -> None:
    with api.client(api.key("billed@example.org")) as client:
        me, job = client.get("/users/me").json()["id"], client.post("/jobs", json=JOB).json()["id"]
    api.used(me, job)
    mine = ("--user", "billed@example.org", "--app-dsn", api.dsn)
    done = typed("usage", *mine)
    assert done.exit == 0, done.err
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert (row["job_id"], row["cost_units"], row["user_id"]) == (job, "30", me)
    month = f"{datetime.now(UTC):%Y-%m}"
    (line,) = typed("usage", month, "--format", "jsonl", *mine).out.splitlines()
    assert json.loads(line) == {**row, "id": int(row["id"]), "seconds": 15, "cost_units": 30}
    assert len(typed("usage", month, "--app-dsn", api.dsn).out.splitlines()) >= 2
    assert typed("usage", "2020-01", "--app-dsn", api.dsn).out.splitlines() == [",".join(row)]
    for words, exit_code in ((("2026-13",), 64), (("--user", "nobody@example.org"), 64)):
        refused = typed("usage", *words, "--app-dsn", api.dsn)
        assert (refused.exit, refused.out) == (exit_code, ""), refused.err
