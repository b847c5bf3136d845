"""Backups on Cloud SQL are taken, tested and told through Google's own client; a bad API day leaves nothing behind."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, short_folder, until

from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.backups import CloudSqlBackups
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.domain.backups import State
from aiprod_ops.engine.journal import OperationLog
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.cloudsql import background
from aiprod_ops.lab.cloudsql.faults import Fault, inject
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
BOOK = "test-backup"
KNOWN = {"aiprod", "aiprod-replica1", "aiprod-replica2"}


class Cloud(Bench):
    """The lab as Cloud SQL instances."""

    @property
    def url(self) -> str:
        found = background.find(self.fleet.folder)
        assert found is not None
        return found.url

    @property
    def api(self) -> CloudSqlAdmin:
        return CloudSqlAdmin("aiprod-lab", endpoint=self.url, timeout=Seconds(10), reads=0)

    @property
    def backups(self) -> CloudSqlBackups:
        calls = Calls(self.api, SystemClock(), Seconds(60), OperationLog())
        return CloudSqlBackups("aiprod", self.api, lambda: calls)

    @property
    def newest(self) -> str:
        return self.backups.listed()[-1].id

    def instances(self) -> set[str]:
        return {each.name for each in self.api.instances()}

    def prove(self, *options: str, longest: str = "") -> Done:
        words = ["prove", BOOK, "--wait", "0", *options, "-o", "json"]
        if longest:
            promises = self.config.with_name("service.toml")
            promises.write_text(f'[backups]\nlongest = "{longest}"\n')
            config = self.config.with_name("impatient.toml")
            config.write_text(f'service = "{promises}"\n' + self.config.read_text())
            words += ["--config", str(config)]
        return self.run(*words, timeout_s=120)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with short_folder() as folder:
        fleet = fleets.up(folder / "lab", 5_000, workload=False, cloudsql=True)
        try:
            made = Cloud(fleet.cloudsql_config, fleet.dsn("postgres"), fleet)
            made.backups.take("first")
            yield made
        finally:
            fleets.down(folder / "lab")


def test_the_list_tells_what_google_tells(cloud: Cloud) -> None:
    (first,) = cloud.backups.listed()
    assert (first.state, first.label, first.kind) == (State.SUCCESSFUL, "first", "full")
    told = cloud.backups.arrangement()
    assert (told.keeps, told.is_protected, told.automatic, told.region) == (15, True, True, "us-central1")
    assert told.recovers_to is not None
    assert cloud.backups.take("first") == first.id, "a label is one backup"
    done = cloud.run("check", "backups")
    assert "backups short of the retention: 15" in done.out, done.said
    assert "keeps 15, then throws the oldest away; 30 are promised" in done.out


def test_a_backup_is_restored_looked_at_and_gone(cloud: Cloud) -> None:
    done = cloud.prove("--control", "true")
    assert done.exit == 0, done.said
    told = done.json()
    assert told["copy"]["backup"] == cloud.newest
    (said,) = told["copy"]["checks"]
    assert said.startswith("cloned from aiprod as of ")
    assert said.endswith(f": its backup {cloud.newest} and the WAL after it")
    findings = {each["metric"]: each for each in told["findings"]}
    assert findings["damaged heaps and b-trees"]["status"] == "OK"
    assert findings["damage that was not noticed"]["value"] == 0
    assert "of one row differs" in findings["damage that was not noticed"]["note"]
    assert "pg_amcheck: not tried" in findings["damage that was not noticed"]["note"]
    assert findings["tables that differ at the same moment"]["value"] == 0, "nobody wrote since the backup"
    assert cloud.instances() == KNOWN
    cloud.sound()


def test_what_was_written_since_the_backup_is_recovered_from_its_wal(cloud: Cloud) -> None:
    """And a backup alone has it not: what the API says of the WAL is not what was restored."""
    cloud.sql("CREATE TABLE since AS SELECT generate_series(1, 10) AS n")
    try:
        whole, alone = cloud.prove().json(), cloud.prove("--backup", cloud.newest).json()
    finally:
        cloud.sql("DROP TABLE since")
    found, lone = ({each["id"]: each for each in told["findings"]} for told in (whole, alone))
    assert found["tables that differ at the same moment"]["value"] == 0
    assert found["rpo"]["status"] == "OK"
    assert alone["copy"]["checks"] == [f"restored from the backup {cloud.newest} of aiprod"]
    assert "tables that differ at the same moment" not in lone
    assert lone["rpo"]["value"] > 0, "and no limit: it was asked for"
    assert "the copy is of" in lone["rpo"]["note"]
    assert (alone["exit"], whole["exit"]) == (0, 0)


def test_a_point_in_time_is_a_clone(cloud: Cloud) -> None:
    cloud.sql("CREATE TABLE marks AS SELECT clock_timestamp() AS at")
    ((at,),) = cloud.sql("SELECT clock_timestamp()")
    cloud.sql("INSERT INTO marks SELECT clock_timestamp()")
    done = cloud.prove("--at", at.isoformat())
    assert done.exit == 0, done.said
    assert done.json()["copy"]["checks"][0].startswith("cloned from aiprod as of ")
    assert cloud.instances() == KNOWN
    cloud.sql("DROP TABLE marks")


@pytest.mark.parametrize("at", ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_a_moment_that_google_cannot_recover_to_is_refused_before_anything_is_made(cloud: Cloud, at: str) -> None:
    done = cloud.run("prove", BOOK, "--wait", "0", "--at", at)
    assert done.exit == 10, done.said
    assert "can be recovered to moments from" in done.err
    assert "ask for one of these" in done.err
    assert cloud.instances() == KNOWN


def test_google_chooses_the_backup_of_a_moment(cloud: Cloud) -> None:
    old = cloud.newest
    assert cloud.run("run", "take-backup", "--apply", digest(cloud)).exit == 0
    ((now,),) = cloud.sql("SELECT clock_timestamp()")
    done = cloud.run("prove", BOOK, "--wait", "0", "--backup", old, "--at", now.isoformat())
    assert done.exit == 10, done.said
    assert f"Google restores {cloud.newest} for this moment, not {old}" in done.err


def digest(cloud: Cloud) -> str:
    made = cloud.run("plan", "take-backup", "--now", "-o", "json")
    return str(made.json()["digest"])


def test_a_copy_is_deleted_also_where_the_api_stumbles(cloud: Cloud) -> None:
    """It costs money as long as it is there."""
    inject(cloud.url, Fault("answer", only="sql.instances.delete", status=503, count=2))
    assert cloud.prove().exit == 0
    assert cloud.instances() == KNOWN


def test_a_copy_that_is_done_and_does_not_answer_is_evidence(cloud: Cloud) -> None:
    inject(cloud.url, Fault("broken-copy", only="CLONE"))
    ((now,),) = cloud.sql("SELECT clock_timestamp()")
    try:
        done = cloud.prove("--at", now.isoformat(), longest="5 s")
    finally:
        clear(cloud)
    assert done.exit == 10, done.said
    assert "is there, but it does not answer" in str(done.json()["refused"]), done.said
    assert cloud.run("check", BOOK).exit == 2
    assert cloud.prove().exit == 0, "the next one removes what was left, and holds"
    assert cloud.instances() == KNOWN


def test_an_operation_that_fails_once_is_tried_again(cloud: Cloud) -> None:
    inject(cloud.url, Fault("fail", only="RESTORE_VOLUME"))
    done = cloud.run("prove", BOOK, "--wait", "0", "--backup", cloud.newest)
    assert done.exit == 0, done.said
    assert "once more, with a fresh instance" in done.err
    assert cloud.instances() == KNOWN


@pytest.mark.parametrize(
    ("fault", "longest", "words"),
    [
        (Fault("fail", only="RESTORE_VOLUME", count=2), "", "INTERNAL_ERROR"),
        pytest.param(
            Fault("fail", only="CREATE", count=2, code="RESOURCE_EXHAUSTED"),
            "",
            "RESOURCE_EXHAUSTED",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            Fault("answer", only="sql.instances.restoreBackup", status=400),
            "",
            "Google answered 400",
            marks=pytest.mark.soak,
        ),
        pytest.param(Fault("never-end", only="RESTORE_VOLUME"), "5 s", "is not done after 5 s", marks=pytest.mark.soak),
    ],
)
def test_trouble_of_the_api_disproves_no_backup(cloud: Cloud, fault: Fault, longest: str, words: str) -> None:
    """No evidence is sealed, no other backup becomes due, and the metrics say that nothing is known."""
    assert cloud.prove("--backup", cloud.newest).exit == 0
    before, metrics = sorted(cloud.state.glob("evidence/*")), cloud.config.with_name("proof.prom")
    inject(cloud.url, fault)
    try:
        done = cloud.prove("--backup", cloud.newest, "--prom-file", str(metrics), longest=longest)
    finally:
        clear(cloud)
    assert (done.exit, words in done.said) == (10, True), done.said
    assert sorted(cloud.state.glob("evidence/*")) == before
    assert "its last test failed" not in cloud.run("plan", "take-backup").said
    assert cloud.run("check", BOOK).exit == 0
    assert re.search(r"_proof_status\{.*\} 3", metrics.read_text()), metrics.read_text()
    assert cloud.prove().exit == 0, "the next one removes what was left"
    assert cloud.instances() == KNOWN


def clear(cloud: Cloud) -> None:
    import urllib.request

    request = urllib.request.Request(f"{cloud.url}/lab/faults", method="DELETE")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5):
        pass


@pytest.mark.parametrize("fault", [Fault("answer", status=503, count=2), Fault("answer", status=429, count=2)])
def test_a_read_that_fails_for_a_while_is_tried_again(cloud: Cloud, fault: Fault) -> None:
    inject(cloud.url, Fault(fault.kind, count=fault.count, status=fault.status, only="sql.operations.get"))
    done = cloud.prove()
    assert done.exit == 0, done.said


def test_an_answer_that_was_lost_is_found(cloud: Cloud) -> None:
    """The restore was begun, and nobody was told: its operation is looked for, and waited for."""
    inject(cloud.url, Fault("drop", only="sql.instances.restoreBackup", after_work=True))
    done = cloud.prove("--backup", cloud.newest)
    assert done.exit == 0, done.said
    assert cloud.instances() == KNOWN


def test_credentials_that_end_in_the_middle_are_no_bad_backup(cloud: Cloud) -> None:
    inject(cloud.url, Fault("expire-credentials", only="sql.operations.get"))
    try:
        done = cloud.prove()
    finally:
        clear(cloud)
    assert done.exit == 10, done.said
    assert "goes on without us" in done.said
    assert cloud.prove().exit == 0
    assert cloud.instances() == KNOWN


@pytest.mark.parametrize("state", ["PENDING_CREATE", "RUNNABLE"])
def test_kill_9_leaves_an_instance_that_the_next_run_deletes(cloud: Cloud, state: str) -> None:
    if state == "PENDING_CREATE":
        inject(cloud.url, Fault("slow", only="CLONE", seconds=2))
    going = cloud.start("prove", BOOK, "--wait", "0")
    until(lambda: [e for e in cloud.api.instances() if e.name not in KNOWN and e.state == state], f"never {state}")
    going.kill()
    assert cloud.instances() > KNOWN
    done = cloud.prove()
    assert done.exit == 0, done.said
    assert cloud.instances() == KNOWN
    for run in cloud.unfinished():
        assert cloud.run("rollback", run).exit == 0


def kept(cloud: Cloud, known: set[Path], kind: str) -> list[dict[str, Any]]:
    """The records of a kind in the one journal that is not known yet."""
    lines = [line for path in set(cloud.journals()) - known for line in path.read_text().splitlines(keepends=True)]
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [each["data"] for each in records if each["kind"] == kind]


@pytest.mark.parametrize("kind", ["CLONE", "CREATE", "RESTORE_VOLUME"])
def test_a_killed_proof_is_resumed_by_the_name_of_its_operation(cloud: Cloud, kind: str) -> None:
    known = set(cloud.journals())
    inject(cloud.url, Fault("slow", only=kind, seconds=2))
    going = cloud.start("prove", BOOK, "--wait", "0", *([] if kind == "CLONE" else ["--backup", cloud.newest]))
    (begun,) = until(lambda: [e for e in kept(cloud, known, "operation") if e["what"].startswith(kind)], "no name")
    going.kill()
    operation = cloud.api.operation(begun["operation"])
    assert (operation.type, operation.is_done) == (kind, False), "journalled before its end"
    (run,) = cloud.unfinished()
    done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert f"waiting for the operation {begun['operation']}" in done.err
    names = [each["operation"] for each in kept(cloud, known, "operation")]
    assert sorted(names) == sorted(each["operation"] for each in kept(cloud, known, "operation-ended"))
    assert names[-1] != begun["operation"], "and then it was proven"
    assert cloud.instances() == KNOWN


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.soak), "after"])
@pytest.mark.parametrize("record", [2, pytest.param(0, marks=pytest.mark.soak)])
def test_killed_at_a_record_there_is_no_orphan(cloud: Cloud, moment: str, record: int) -> None:
    """After the first record of an operation, and at each record until there are no more (0)."""
    for n in [record] if record else range(1, 30):
        words = ["-m", "aiprod_ops.cli.crash", moment, str(n), "prove", BOOK, "--wait", "0"]
        died = subprocess.run([sys.executable, *words], env=cloud.env(), capture_output=True, text=True, cwd="/")
        if died.returncode == 0:
            assert n > 8, "fewer records than expected"
            break
        assert died.returncode == -signal.SIGKILL, died.stderr
        for run in cloud.unfinished():
            done = cloud.run("resume", run)
            assert done.exit == 0, done.said
        assert cloud.prove().exit == 0
        assert cloud.instances() == KNOWN
    cloud.sound()


def test_a_killed_backup_is_waited_for_and_not_taken_twice(cloud: Cloud) -> None:
    known, before = set(cloud.journals()), {each.id for each in cloud.backups.listed()}
    digest = cloud.run("plan", "take-backup", "--now", "true", "-o", "json").json()["digest"]
    inject(cloud.url, Fault("slow", only="BACKUP_VOLUME", seconds=9))
    going = cloud.start("run", "take-backup", "--apply", digest)
    (begun,) = until(lambda: kept(cloud, known, "operation"), "no name")
    going.kill()
    (run,) = cloud.unfinished()
    done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert kept(cloud, known, "operation-ended") == [{"operation": begun["operation"]}]
    new = [each for each in cloud.backups.listed() if each.id not in before]
    assert [each.state for each in new] == [State.SUCCESSFUL]


def test_a_copy_of_another_machine_goes_by_its_age(cloud: Cloud) -> None:
    """Its run has no journal here: it may be at work. Twice the longest that a run may take is old."""
    from aiprod_ops.adapters.cloudsql.platform import LABEL
    from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings

    calls = Calls(cloud.api, SystemClock(), Seconds(60), OperationLog())
    name = "ops-20261101-000000-000-test-backup-abcd"
    settings = Settings(tier="db-custom-1-3840", labels={LABEL: name.removeprefix("ops-")})
    new = NewInstance(name, root_password="x", settings=settings)
    made = time.monotonic()
    calls.done(lambda: cloud.api.insert(new), "CREATE", name, lambda _: None)
    assert cloud.prove().exit == 0
    assert cloud.instances() == KNOWN | {name}
    time.sleep(max(0.0, 11 - (time.monotonic() - made)))
    done = cloud.prove(longest="5 s")
    assert done.exit == 0, done.said
    assert cloud.instances() == KNOWN


def test_an_api_that_is_gone_for_a_while_is_told_and_waited_out(cloud: Cloud) -> None:
    inject(cloud.url, Fault("answer", status=503, count=9, only="sql.operations.get"))
    done = cloud.run("prove", BOOK, "--wait", "0")
    clear(cloud)
    assert done.exit == 0, done.said
    assert "which goes on without us" in done.err


def test_an_instance_that_is_nobodys_copy_is_left_alone(cloud: Cloud) -> None:
    from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings

    calls = Calls(cloud.api, SystemClock(), Seconds(60), OperationLog())
    settings = Settings(tier="db-custom-1-3840", labels={"team": "ops"})
    new = NewInstance("ops-dashboard", root_password="x", settings=settings)
    calls.done(lambda: cloud.api.insert(new), "CREATE", "ops-dashboard", lambda _: None)
    assert cloud.prove().exit == 0
    assert "ops-dashboard" in cloud.instances()
    calls.done(lambda: cloud.api.delete("ops-dashboard"), "DELETE", "ops-dashboard", lambda _: None)


def test_an_index_that_lacks_rows_is_found_by_comparing(cloud: Cloud) -> None:
    cloud.sql("CREATE TABLE t (id int)")
    cloud.sql("CREATE INDEX t_id ON t (id)")
    cloud.sql("UPDATE pg_index SET indisready = false WHERE indexrelid = 't_id'::regclass")
    cloud.sql("INSERT INTO t SELECT generate_series(1, 100)")
    cloud.sql("UPDATE pg_index SET indisready = true WHERE indexrelid = 't_id'::regclass")
    taken = cloud.backups.take("lacking")
    cloud.sql("DROP TABLE t")
    done = cloud.prove("--backup", taken)
    assert done.exit == 10, done.said
    assert done.json()["refused"]["indexes that lack rows"].startswith("1 public.t_id: ")
    cloud.backups.remove(taken)


def test_a_damaged_backup_is_found_by_looking(cloud: Cloud, tmp_path: Path) -> None:
    """Google's restore does not tell; the pages do."""
    import urllib.request

    taken = cloud.backups.take("damaged")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{cloud.url}/lab", timeout=5) as answer:
        told: Any = json.load(answer)
    (folder,) = [Path(each["folder"]) for each in told["backups"] if str(each["id"]) == taken]
    ((path,),) = cloud.sql("SELECT pg_relation_filepath('jobs')")
    (file,) = folder.rglob(str(path))
    content = bytearray(file.read_bytes())
    content[4096] ^= 0xFF
    file.write_bytes(bytes(content))
    done = cloud.prove("--backup", taken)
    assert done.exit == 10, done.said
    assert "invalid page in block 0" in str(done.json()["refused"]), done.said
    cloud.backups.remove(taken)
    assert taken not in {each.id for each in cloud.backups.listed()}


def test_a_lost_instance_is_recovered_to_the_end_of_its_wal(cloud: Cloud) -> None:
    """Nothing comes after the newest moment that the API names: that is where the WAL ends."""
    assert cloud.prove().exit == 0, "it has to be known"
    cloud.fleet.primary.stop("fast")
    try:
        done = cloud.prove()
    finally:
        cloud.fleet.primary.start()
    assert done.exit == 0, done.said
    assert "the source does not answer" in str(done.json()["findings"])
    assert done.json()["copy"]["checks"][0].startswith("cloned from aiprod as of ")
    assert cloud.instances() == KNOWN
