"""Calls that are refused, lists and filters, patches, two at once, and curl: on one emulator with one instance."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg2
import pytest
from cloudsql_bench import PASSWORD, PLUS, Bench, Checked, google, here, until

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.errors import Failed, Held, Missing, OpsError, OutcomeUnknown, PermissionMissing, Stale
from aiprod_ops.lab import faults as lab_faults
from aiprod_ops.lab.cloudsql import faults
from aiprod_ops.lab.cloudsql.emulator import PROJECT, Emulator
from aiprod_ops.lab.cloudsql.faults import Fault
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(short_path: Path) -> Iterator[tuple[Emulator, Bench]]:
    with here(short_path / "calls") as (emulator, bench):
        bench.make("main", region="us-central1")
        bench.sql("main", "CREATE TABLE rows (n int PRIMARY KEY)")
        yield emulator, bench


@pytest.fixture
def bench(running: tuple[Emulator, Bench]) -> Bench:
    return running[1]


def curl(*arguments: str) -> Any:
    done = subprocess.run(["curl", "--silent", "--show-error", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_curl_of_the_page_makes_an_instance(short_path: Path) -> None:
    page = (Path(__file__).parents[2] / "site/cloudsql-emulator.md").read_text()
    (block,) = [each.partition("```")[0] for each in page.split("```sh\n") if each.startswith("URL=")]
    with here(short_path / "page") as (_, bench):
        script = block.replace("http://127.0.0.1:PORT", bench.url).replace("curl ", "curl --silent --show-error ")
        *posting, looking = script.rstrip().splitlines()
        done = subprocess.run(["/bin/sh", "-c", "\n".join(posting)], capture_output=True, text=True, check=True)
        operation = json.loads(done.stdout)
        assert (operation["kind"], operation["operationType"]) == ("sql#operation", "CREATE"), operation
        bench.wait(bench.admin.operation(operation["name"]))
        words = ["/bin/sh", "-c", f"{posting[0]}\n{looking}"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["state"] == "RUNNABLE"


def test_the_python_of_the_page_takes_a_backup_clones_and_deletes(short_path: Path) -> None:
    page = (Path(__file__).parents[2] / "site/cloudsql-emulator.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    with here(short_path / "python") as (_, bench):
        script = code.replace("http://127.0.0.1:PORT", bench.url.rstrip("/"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        backup, address = done.stdout.splitlines()
        assert backup.endswith(" SUCCESSFUL")
        assert int(address.removeprefix("127.0.0.1 ")) > 1024
        assert [each.name for each in bench.admin.instances()] == ["main"]


def test_curl_works(bench: Bench) -> None:
    base = f"{bench.url}/v1/projects/{PROJECT}"
    assert curl(f"{base}/instances/main")["kind"] == "sql#instance"
    assert curl("-H", "Authorization: Bearer anything", f"{base}/instances?filter=name:main")["items"]
    posted = curl("-H", "Content-Type: application/json", "-d", "{}", f"{base}/instances/main/backupRuns")
    assert posted["kind"] == "sql#operation"
    bench.wait(bench.admin.operation(posted["name"]))
    refused = curl("-H", "Content-Type: application/json", "-d", '{"colour": 1}', f"{base}/instances")["error"]
    assert refused["code"] == 400
    assert 'Unknown name "colour"' in refused["message"]
    assert curl("-d", "a=b", f"{base}/instances")["error"]["code"] == 400
    assert curl("-H", "Content-Type: application/json", "-d", "{", f"{base}/instances")["error"]["code"] == 400
    assert curl("-X", "POST", f"{base}/operations/x/cancel")["error"]["code"] == 501
    assert curl(f"{bench.url}/nothing")["error"]["code"] == 404


@pytest.mark.parametrize(
    ("call", "expected", "words"),
    [
        (lambda sql: sql.instance("none"), Missing, "instanceDoesNotExist"),
        (lambda sql: sql.delete("none"), Missing, "instanceDoesNotExist"),
        (lambda sql: sql.backups("none"), PermissionMissing, "notAuthorized"),
        (lambda sql: sql.clone("none", "other"), PermissionMissing, "notAuthorized"),
        (lambda sql: sql.operation("none"), Missing, "operation"),
        (lambda sql: sql.backup("main", "7"), Missing, "backup"),
        (lambda sql: sql.restore("main", "7", "main"), Missing, "backup"),
        (lambda sql: sql.failover("main", 999), Stale, "staleData"),
        (lambda sql: sql.patch("main", Settings(labels={}), settings_version=999), Stale, "staleData"),
        (lambda sql: sql.failover("main", sql.instance("main").settings_version), Failed, "REGIONAL"),
        (lambda sql: sql.switchover("main"), Failed, "not a replica"),
        (lambda sql: sql.promote("main"), Failed, "not a replica"),
        (lambda sql: sql.clone("main", "main"), Failed, "instanceAlreadyExists"),
        (lambda sql: sql.clone("main", "Wrong Name"), Failed, "name"),
        (lambda sql: sql.clone("main", "b", at=datetime.now(UTC) + timedelta(hours=1)), Failed, "future"),
        (lambda sql: sql.clone("main", "b", at=datetime(2020, 1, 1, tzinfo=UTC)), Failed, "earliest"),
        (lambda sql: sql.insert(NewInstance("x")), Failed, "tier"),
        (lambda sql: sql.insert(NewInstance("x", version="POSTGRES_9_6", settings=PLUS)), Failed, "POSTGRES_9_6"),
        (lambda sql: sql.patch("main", Settings(flags={"port": "1"})), Failed, "port"),
        (lambda sql: sql.patch("main", Settings(), dr_replica="none"), PermissionMissing, "notAuthorized"),
        (lambda sql: sql.instances("state=RUNNABLE"), Failed, "field:value"),
    ],
)
def test_refused(bench: Bench, call: Any, expected: type[OpsError], words: str) -> None:
    with pytest.raises(OpsError) as refused:
        call(bench.admin)
    assert type(refused.value) is expected, refused.value.message
    assert words in refused.value.message
    assert bench.admin.instance("main").state == "RUNNABLE"
    assert [each.name for each in bench.admin.instances()] == ["main"]


def test_another_project_is_not_ours(bench: Bench) -> None:
    with pytest.raises(Exception, match="403"):
        google(bench.url, Checked()).instances().list(project="other").execute()


def test_an_instance_is_found_or_surely_not_there(bench: Bench) -> None:
    found = bench.admin.find("main")
    assert found is not None
    assert found.name == "main"
    assert bench.admin.find("mai") is None


def test_labels_and_retention_are_patched(bench: Bench) -> None:
    before = bench.admin.instance("main")
    changes = Settings(labels={"purpose": "drill", "run": "7"}, retained_backups=30, maintenance=(7, 3))
    bench.wait(bench.admin.patch("main", changes, settings_version=before.settings_version))
    after = bench.admin.instance("main")
    assert after.labels == {"purpose": "drill", "run": "7"}
    assert (after.backups.retained, after.backups.point_in_time, after.maintenance) == (30, True, (7, 3))
    assert after.settings_version == before.settings_version + 1
    bench.wait(bench.admin.patch("main", Settings(labels={"run": None})))
    assert bench.admin.instance("main").labels == {"purpose": "drill"}
    assert [each.name for each in bench.admin.instances("settings.userLabels.purpose:drill")] == ["main"]
    assert bench.admin.instances("settings.userLabels.purpose:other") == ()


def test_flags_are_the_servers(bench: Bench) -> None:
    bench.wait(bench.admin.patch("main", Settings(flags={"work_mem": "3MB"})))
    assert bench.sql("main", "SHOW work_mem") == [("3MB",)]
    assert bench.admin.instance("main").flags == {"work_mem": "3MB"}
    with pytest.raises(Failed, match="does not start"):
        bench.wait(bench.admin.patch("main", Settings(flags={"work_mem": "much"})))
    assert bench.sql("main", "SHOW work_mem") == [("3MB",)]
    assert bench.admin.instance("main").flags == {"work_mem": "3MB"}


def test_one_operation_at_a_time(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(bench.admin.take_backup, "main") for _ in range(8)]
    errors = [each.exception() for each in futures]
    assert errors.count(None) == 1
    assert {type(each) for each in errors if each} == {Held}
    begun = next(each.result() for each in futures if not each.exception())
    with pytest.raises(Held, match="operationInProgress"):
        bench.admin.clone("main", "busy")
    assert bench.wait(begun).backup_id
    assert bench.admin.find("busy") is None


def test_two_instances_are_made_at_once(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(bench.make, ("one", "two")))
    ports = {bench.admin.instance(name).port for name in ("main", "one", "two")}
    assert len(ports) == 3
    assert all(20_000 <= port < 32_000 for port in ports)
    for name in ("one", "two"):
        bench.wait(bench.admin.delete(name))


def test_deletion_protection_holds_and_is_inherited(bench: Bench) -> None:
    bench.wait(bench.admin.patch("main", Settings(deletion_protected=True)))
    with pytest.raises(Failed, match="protected"):
        bench.admin.delete("main")
    bench.wait(bench.admin.clone("main", "heir"))
    bench.wait(bench.admin.patch("main", Settings(deletion_protected=False)))
    with pytest.raises(Failed, match="protected"):
        bench.admin.delete("heir")
    bench.wait(bench.admin.patch("heir", Settings(deletion_protected=False)))
    bench.wait(bench.admin.delete("heir"))


def test_backups_are_listed_aged_and_deleted(running: tuple[Emulator, Bench]) -> None:
    _, bench = running
    ids = [bench.wait(bench.admin.take_backup("main")).backup_id for _ in range(2)]
    window = bench.admin.recovery_window("main")
    assert window is not None
    assert window.earliest is not None
    assert window.latest is not None
    assert window.earliest <= window.latest
    listed = bench.admin.backups("main")
    assert [each.id for each in listed[:2]] == ids[::-1]
    assert all(each.is_usable and each.size for each in listed)
    assert {each.id for each in bench.admin.backups("-")} >= set(ids)
    aged = json.dumps({"instance": "main", "id": ids[1], "age_s": 40 * 86400, "type": "AUTOMATED"})
    curl("-d", aged, f"{bench.url}/lab/backups")
    old = bench.admin.backup("main", ids[1])
    assert old.ended is not None
    assert (old.type, old.ended < datetime.now(UTC) - timedelta(days=39)) == ("AUTOMATED", True)
    files = next(Path(each["folder"]) for each in bench.lab()["backups"] if each["id"] == ids[1])
    assert (files / "data" / "backup_manifest").is_file()
    bench.wait(bench.admin.delete_backup("main", ids[1]))
    assert not files.exists()
    with pytest.raises(Missing):
        bench.admin.backup("main", ids[1])


def test_lists_come_in_pages(bench: Bench) -> None:
    client = google(bench.url, Checked()).operations()
    page = client.list(project=PROJECT, instance="main", maxResults=2).execute()
    assert len(page["items"]) == 2
    assert page["nextPageToken"]
    following = client.list(project=PROJECT, instance="main", maxResults=2, pageToken=page["nextPageToken"]).execute()
    assert {each["name"] for each in following["items"]}.isdisjoint(each["name"] for each in page["items"])


def test_every_answer_fits_the_document(running: tuple[Emulator, Bench]) -> None:
    """Those that the story does not come to: lists, windows, restarts, and what failed."""
    emulator, bench = running
    http = Checked()
    client = google(bench.url, http)
    instances, backups, operations = client.instances(), client.backupRuns(), client.operations()
    named = {"project": PROJECT, "instance": "main"}
    emulator.faults.add(Fault("fail", only="BACKUP_VOLUME"))
    failed = bench.admin.operation(backups.insert(**named, body={"location": "eu"}).execute()["name"])
    with pytest.raises(Failed):
        bench.wait(failed)
    bench.wait(bench.admin.operation(instances.restart(**named).execute()["name"]))
    bench.wait(bench.admin.take_backup("main"))
    client.projects().instances().getLatestRecoveryTime(**named).execute()
    runs = backups.list(**named).execute()["items"]
    assert {run["status"] for run in runs} == {"SUCCESSFUL", "FAILED"}
    assert operations.get(project=PROJECT, operation=failed.name).execute()["error"]["errors"][0]["code"]
    assert len(operations.list(project=PROJECT).execute()["items"]) > 3
    deleted = backups.delete(**named, id=failed.backup_id).execute()["name"]
    bench.wait(bench.admin.operation(deleted))
    assert {status for _, status in http.seen} == {200}


def test_what_is_lost_is_looked_for_where_it_is_listed(bench: Bench) -> None:
    for call, where in (
        (lambda: bench.admin.clone("main", "elsewhere"), "instance=elsewhere"),
        (lambda: bench.admin.insert(NewInstance("replica", primary="main")), "instance=main"),
    ):
        faults.inject(bench.url, Fault("answer", status=503))
        with pytest.raises(OutcomeUnknown) as lost:
            call()
        assert where in lost.value.hint


def test_a_replica_keeps_its_primary(bench: Bench) -> None:
    backup = bench.wait(bench.admin.take_backup("main")).backup_id
    bench.make("near", primary="main", region="us-central1")
    refusals = (
        (lambda: bench.admin.restore("main", backup, "main"), "replicas"),
        (lambda: bench.admin.delete("main"), "replicas"),
        (lambda: bench.admin.take_backup("near"), "not backed up"),
        (lambda: bench.admin.switchover("near"), "designated"),
        (lambda: bench.admin.promote("near", failover=True), "designated"),
        (lambda: bench.admin.patch("main", Settings(), dr_replica="near"), "another region"),
    )
    for call, words in refusals:
        with pytest.raises(Failed, match=words):
            call()
    bench.wait(bench.admin.delete("near"))
    assert bench.admin.instance("main").replicas == ()
    assert bench.sql("main", "SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_a_switchover_that_cannot_catch_up_changes_nothing(bench: Bench) -> None:
    bench.make("far", primary="main", region="us-east1")
    bench.wait(bench.admin.patch("main", Settings(), dr_replica="far"))
    bench.sql("far", "SELECT pg_wal_replay_pause()")
    bench.sql("main", "INSERT INTO rows SELECT generate_series(1000, 2000)")
    with pytest.raises(Failed, match="nothing was changed"):
        bench.wait(bench.admin.switchover("far", timeout=Seconds(1)))
    assert bench.admin.instance("far").primary == "main"
    bench.sql("main", "INSERT INTO rows VALUES (2001)")
    bench.sql("far", "SELECT pg_wal_replay_resume()")
    bench.wait(bench.admin.switchover("far"))
    assert max(bench.rows("far")) == 2001
    bench.wait(bench.admin.switchover("main"))
    bench.wait(bench.admin.delete("far"))


def test_a_candidate_that_froze_leaves_the_primary_serving(running: tuple[Emulator, Bench]) -> None:
    emulator, bench = running
    bench.make("far", primary="main", region="us-east1")
    bench.wait(bench.admin.patch("main", Settings(), dr_replica="far"))
    with lab_faults.frozen(emulator.context.servers.of(emulator.state.instances["far"])):
        begun = bench.admin.switchover("far", timeout=Seconds(1))
        with pytest.raises(Failed):
            bench.wait(begun)
        assert bench.admin.instance("far").primary == "main"
        assert bench.sql("main", "SELECT pg_is_in_recovery()") == [(False,)]
        bench.sql("main", "INSERT INTO rows VALUES (3000)")
    until(lambda: 3000 in bench.rows("far"))
    bench.wait(bench.admin.delete("far"))


def test_a_switchover_under_load_loses_nothing(bench: Bench) -> None:
    """Constant writers, each writing down what was acknowledged; afterwards every row is looked for."""
    bench.make("far", primary="main", region="us-east1")
    bench.wait(bench.admin.patch("main", Settings(), dr_replica="far"))
    bench.sql("main", "CREATE TABLE writes (n bigint)")
    ports = [bench.admin.instance(name).port for name in ("main", "far")]
    stop, acknowledged = Event(), [[], []]  # type: ignore[var-annotated]
    writers = [Thread(target=_write, args=(ports, number, stop, acknowledged[number])) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        for primary in ("far", "main", "far"):
            time.sleep(0.3)
            bench.wait(bench.admin.switchover(primary))
    finally:
        time.sleep(0.3)
        stop.set()
        for writer in writers:
            writer.join()
    found = {n for (n,) in bench.sql("far", "SELECT n FROM writes")}
    assert all(len(each) > 100 for each in acknowledged)
    assert [n for each in acknowledged for n in each if n not in found] == []
    bench.wait(bench.admin.switchover("main"))
    bench.wait(bench.admin.delete("far"))


def _write(ports: list[int], number: int, stop: Event, acknowledged: list[int]) -> None:
    """Insert numbers of one's own, wherever that is possible, and keep those that were acknowledged."""
    n = number
    while not stop.is_set():
        for port in ports:
            with suppress(psycopg2.Error):
                session = psycopg2.connect(
                    host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres",
                    connect_timeout=2, options="-c statement_timeout=2000",
                )  # fmt: skip
                with closing(session), session.cursor() as cursor:
                    session.autocommit = True
                    while not stop.is_set():
                        n += 2
                        cursor.execute("INSERT INTO writes VALUES (%s)", (n,))
                        acknowledged.append(n)


def test_an_operation_is_found_without_its_name(bench: Bench) -> None:
    since = datetime.now(UTC) + timedelta(seconds=4)  # only what is surely ours
    assert waiting.find(bench.admin, "CLONE", "never", since) is None
    begun = bench.admin.clone("main", "sought")
    found = waiting.find(bench.admin, "CLONE", "sought", datetime.now(UTC))
    assert found is not None
    assert found.name == begun.name
    bench.wait(found)
    bench.wait(bench.admin.delete("sought"))
    assert PASSWORD not in json.dumps(bench.lab())
