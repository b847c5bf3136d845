"""Each fault of the API becomes its one error, and what was begun nevertheless is found."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cloudsql_bench import QUICK, Bench, here
from google.oauth2.credentials import Credentials

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.errors import (
    Exit,
    Failed,
    Held,
    Missing,
    OpsError,
    OutcomeUnknown,
    PermissionMissing,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
)
from aiprod_ops.lab.cloudsql import faults
from aiprod_ops.lab.cloudsql.emulator import PROJECT, Emulator
from aiprod_ops.lab.cloudsql.faults import Fault
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(short_path: Path) -> Iterator[tuple[Emulator, Bench]]:
    with here(short_path / "faults", QUICK) as (emulator, bench):
        bench.make("main")
        yield emulator, bench


@pytest.fixture
def bench(running: tuple[Emulator, Bench]) -> Iterator[Bench]:
    yield running[1]
    faults.clear(running[1].url)


def hasty(bench: Bench) -> CloudSqlAdmin:
    """A client that does not wait long for an answer."""
    return CloudSqlAdmin(PROJECT, endpoint=bench.url, timeout=Seconds(0.3), reads=0)


@pytest.mark.parametrize(
    ("status", "of_read", "of_change"),
    [
        (400, Failed, Failed),
        (401, PermissionMissing, PermissionMissing),
        (403, PermissionMissing, PermissionMissing),
        (404, Missing, Missing),
        (409, Held, Held),
        (412, Stale, Stale),
        (429, Throttled, Throttled),
        (500, Unreachable, OutcomeUnknown),
        (503, Unreachable, OutcomeUnknown),
    ],
)
def test_statuses(bench: Bench, status: int, of_read: type[OpsError], of_change: type[OpsError]) -> None:
    faults.inject(bench.url, Fault("answer", status=status, count=2))
    with pytest.raises(OpsError) as read:
        bench.admin.instance("main")
    with pytest.raises(OpsError) as change:
        bench.admin.take_backup("main")
    assert (type(read.value), type(change.value)) == (of_read, of_change)
    assert bench.admin.instance("main").name == "main"


@pytest.mark.parametrize("status", [429, 503])
def test_reads_are_tried_again(bench: Bench, status: int) -> None:
    faults.inject(bench.url, Fault("answer", status=status))
    assert CloudSqlAdmin(PROJECT, endpoint=bench.url, reads=1).instance("main").name == "main"


def test_changes_are_not(bench: Bench) -> None:
    faults.inject(bench.url, Fault("answer", status=503))
    with pytest.raises(OutcomeUnknown) as lost:
        CloudSqlAdmin(PROJECT, endpoint=bench.url, reads=5).take_backup("main")
    assert lost.value.exit_code is Exit.UNKNOWN


def test_only_some_calls(bench: Bench) -> None:
    faults.inject(bench.url, Fault("answer", status=503, only="sql.backupRuns.*"))
    bench.admin.instance("main")
    with pytest.raises(Unreachable):
        bench.admin.backups("main")


def test_faults_by_curl(bench: Bench) -> None:
    url = f"{bench.url}/lab/faults"
    for body, expected in (('{"kind": "answer", "status": 503}', 200), ('{"kind": "storm"}', 400)):
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, url]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == str(expected)
    listed = subprocess.run(["curl", "-s", url], capture_output=True, text=True, check=True).stdout
    assert [each["status"] for each in json.loads(listed)["faults"]] == [503]
    from_a_page = ["curl", "-s", "-H", "Origin: http://evil.example", "-w", "%{http_code}", url]
    assert subprocess.run(from_a_page, capture_output=True, text=True, check=True).stdout.endswith("403")


@pytest.mark.parametrize("kind", ["hang", "drop"])
@pytest.mark.parametrize("after_work", [False, True])
def test_an_answer_that_never_comes(bench: Bench, kind: Any, after_work: bool) -> None:
    name = f"{kind}-{after_work}".lower()
    faults.inject(bench.url, Fault(kind, after_work=after_work, only="sql.instances.clone"))
    since = datetime.now(UTC)
    with pytest.raises((TimedOut, OutcomeUnknown)) as lost:
        hasty(bench).clone("main", name)
    assert isinstance(lost.value, TimedOut if kind == "hang" else OutcomeUnknown)
    assert "instances.clone on instance main" in lost.value.message
    found = waiting.find(bench.admin, "CLONE", name, since)
    assert (found is not None) is after_work
    assert (bench.admin.find(name) is not None) is after_work
    if found:
        bench.wait(found)
        bench.wait(bench.admin.delete(name))


def test_a_read_that_hangs(bench: Bench) -> None:
    faults.inject(bench.url, Fault("hang"))
    with pytest.raises(TimedOut, match=r"within 0\.3 s"):
        hasty(bench).instance("main")


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match="nothing listens") as lost:
        CloudSqlAdmin(PROJECT, endpoint="http://127.0.0.1:19999", reads=0).delete("main")
    assert "nothing was sent" in lost.value.message


def test_credentials_end_in_the_middle(bench: Bench) -> None:
    faults.inject(bench.url, Fault("slow", seconds=1.0))
    begun = bench.admin.take_backup("main")
    faults.inject(bench.url, Fault("expire-credentials"))
    with pytest.raises(PermissionMissing, match="expired"):
        bench.admin.instance("main")
    with pytest.raises(OutcomeUnknown) as lost:
        bench.wait(begun)
    assert begun.name in lost.value.message
    assert "goes on without us" in lost.value.message
    faults.clear(bench.url)
    assert bench.wait(begun).is_done


def test_a_token_is_never_told(bench: Bench) -> None:
    secret = "ya29.a-token-that-nobody-may-see"
    admin = CloudSqlAdmin(PROJECT, endpoint=bench.url, credentials=Credentials(token=secret), reads=0)
    assert admin.instance("main").name == "main"
    faults.inject(bench.url, Fault("expire-credentials"))
    with pytest.raises(PermissionMissing) as refused:
        admin.instance("main")
    assert secret not in f"{refused.value!r} {refused.value.hint} {refused.value.__cause__!r}"


def test_an_operation_that_never_ends(bench: Bench) -> None:
    faults.inject(bench.url, Fault("never-end", only="BACKUP_VOLUME"))
    begun = bench.admin.take_backup("main")
    seen: list[str] = []
    with pytest.raises(TimedOut) as late:
        waiting.wait(
            bench.admin, begun.name, _clock(), timeout=Seconds(0.5), pause=Seconds(0.05),
            report=lambda operation: seen.append(operation.status),
        )  # fmt: skip
    assert begun.name in late.value.message
    assert "nothing was cancelled" in late.value.message
    assert begun.name in late.value.hint
    assert "RUNNING" in seen
    with pytest.raises(Held):
        bench.admin.take_backup("main")
    faults.clear(bench.url)
    assert bench.wait(begun).backup_id


class Leaping:
    """A clock that does not wait; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, duration: Seconds) -> None:
        self.pauses.append(duration)


def test_pauses_grow_and_end_at_the_deadline(bench: Bench) -> None:
    faults.inject(bench.url, Fault("never-end"))
    begun, clock = bench.admin.take_backup("main"), Leaping()
    with pytest.raises(TimedOut, match="not done after 600 s"):
        waiting.wait(bench.admin, begun.name, clock, timeout=Seconds(600))
    assert clock.pauses[:4] == [1, 1.5, 2.25, 3.375]
    assert max(clock.pauses) == waiting.LONGEST_PAUSE
    assert sum(clock.pauses) == pytest.approx(600)
    faults.clear(bench.url)
    bench.wait(begun)


def test_an_operation_that_fails(bench: Bench) -> None:
    broken = Fault("fail", only="CLONE", code="RESOURCE_EXHAUSTED", message="No capacity in the zone.")
    faults.inject(bench.url, broken)
    begun = bench.admin.clone("main", "doomed")
    with pytest.raises(Failed, match="RESOURCE_EXHAUSTED: No capacity in the zone"):
        bench.wait(begun)
    assert bench.admin.operation(begun.name).problems[0].code == "RESOURCE_EXHAUSTED"
    assert bench.admin.instance("doomed").state == "FAILED"
    bench.wait(bench.admin.delete("doomed"))


def test_a_backup_that_fails_leaves_nothing(bench: Bench) -> None:
    faults.inject(bench.url, Fault("fail", only="BACKUP_VOLUME"))
    begun = bench.admin.take_backup("main")
    with pytest.raises(Failed):
        bench.wait(begun)
    run = bench.admin.backup("main", begun.backup_id)
    assert (run.status, run.is_usable) == ("FAILED", False)
    assert run.problem is not None
    with pytest.raises(Failed, match="FAILED"):
        bench.admin.restore("main", run.id, "main")
    bench.wait(bench.admin.delete_backup("main", run.id))


def test_a_copy_that_is_done_and_does_not_start(bench: Bench) -> None:
    faults.inject(bench.url, Fault("broken-copy", only="CLONE"))
    bench.wait(bench.admin.clone("main", "hollow"))
    assert bench.admin.instance("hollow").state == "RUNNABLE"
    with pytest.raises(psycopg2.OperationalError):
        bench.sql("hollow", "SELECT 1")
    bench.wait(bench.admin.delete("hollow"))


def test_polling_outlives_bad_minutes(bench: Bench) -> None:
    faults.inject(bench.url, Fault("slow", seconds=0.5))
    begun = bench.admin.take_backup("main")
    for status in (503, 429, 500):
        faults.inject(bench.url, Fault("answer", status=status, only="sql.operations.get"))
    assert bench.wait(begun).is_done


def _clock() -> Any:
    from aiprod_ops.adapters.clock import SystemClock

    return SystemClock()
