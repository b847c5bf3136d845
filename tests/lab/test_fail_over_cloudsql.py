"""The primary is moved through Google's Admin API while others write: nothing acknowledged is lost in a planned move,
never do two take writes, and a run that was killed anywhere, or told nothing, is finished by `resume`."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Done, short_folder, until

from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.requests import Settings
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import faults as lab_faults
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import postgres
from aiprod_ops.lab.cloudsql import background, faults
from aiprod_ops.lab.cloudsql.faults import Fault, inject
from aiprod_ops.lab.writers import TABLE, Writers, following, writing
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
BOOK = "fail-over-replica"
NAMES = ("aiprod", "aiprod-replica1", "aiprod-replica2")


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

    def wait(self, operation: Operation) -> Operation:
        return waiting.wait(self.api, operation.name, SystemClock(), timeout=Seconds(60), pause=Seconds(0.05))

    def server(self, name: str) -> PostgresServer:
        servers = dict(zip(NAMES, (self.fleet.primary, *self.fleet.replicas), strict=True))
        return servers[name]

    def on(self, name: str, text: str) -> list[tuple[Any, ...]]:
        return postgres.rows(self.fleet.dsn("postgres", self.server(name)), text)

    def writes(self) -> list[str]:
        """Instances that answer and take writes."""
        running = [name for name in NAMES if self.server(name).is_running()]
        return [name for name in running if not self.on(name, "SELECT pg_is_in_recovery()")[0][0]]

    @property
    def primary(self) -> str:
        (name,) = self.writes()
        return name

    @property
    def designated(self) -> str:
        return self.api.instance(self.primary).dr_replica

    def in_order(self) -> None:
        streaming = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn = sent_lsn"
        until(lambda: len(self.on(self.primary, streaming)) == 2, "the fleet is not in order")

    def planned(self, *options: str, book: str = BOOK) -> str:
        self.in_order()
        made = self.run("plan", book, "-o", "json", *options)
        assert made.exit == 0, made.said
        assert made.json()["plan"]["actions"], made.said
        return str(made.json()["digest"])

    def unplanned(self) -> str:
        """The digest of a plan against a primary that is lost, as soon as there is one."""
        words, deadline = (BOOK, "--mode", "unplanned", "--silence", "1s"), time.monotonic() + 30
        while True:
            made = self.run("plan", *words, "-o", "json")
            if made.exit == 0 and made.json()["plan"]["actions"]:
                return str(made.json()["digest"])
            assert time.monotonic() < deadline, f"{made.said}{self.run('check', *words).said}"

    def applied(self, digest: str, *options: str, book: str = BOOK) -> Done:
        return self.run("run", book, "--apply", digest, "--confirm", "lab", *options)

    def writing(self, folder: Path) -> AbstractContextManager[Writers]:
        found = [self.api.instance(name) for name in NAMES]
        hosts, ports = ",".join(each.host for each in found), ",".join(str(each.port) for each in found)
        return writing(self.fleet, folder, dsn=following(self.fleet, f"host={hosts} port={ports}"))

    def lost(self, writers: Writers) -> list[tuple[float, int]]:
        return writers.writes().lost({n for (n,) in self.on(self.primary, f"SELECT n FROM {TABLE}")})


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    with short_folder() as folder:
        fleet = fleets.up(folder / "lab", 5_000, workload=False, cloudsql=True)
        try:
            made = Cloud(fleet.cloudsql_config, fleet.dsn("postgres"), fleet)
            made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
            yield made
        finally:
            fleets.down(folder / "lab")


@pytest.fixture
def cloud(running: Cloud) -> Iterator[Cloud]:
    yield running
    faults.clear(running.url)


# Within a region


def test_the_standby_in_the_other_zone_takes_over(cloud: Cloud, tmp_path: Path) -> None:
    before = cloud.api.instance("aiprod")
    digest = cloud.planned(book="fail-over-zone")
    with cloud.writing(tmp_path) as writers:
        done = cloud.applied(digest, book="fail-over-zone")
    assert done.exit == 0, done.said
    after = cloud.api.instance("aiprod")
    assert (after.zone, after.secondary_zone) == (before.secondary_zone, before.zone)
    assert cloud.lost(writers) == []
    stale = cloud.applied(digest, book="fail-over-zone")
    assert (stale.exit, "was applied already" in stale.said) == (10, True), stale.said
    assert cloud.api.instance("aiprod").zone == after.zone


def test_killed_while_the_zone_is_left(cloud: Cloud) -> None:
    """It has begun, and nobody wrote its name down: what was begun is not begun again, which would lead back."""
    before, digest = cloud.api.instance("aiprod"), cloud.planned(book="fail-over-zone")
    words = ["before", "4", "run", "fail-over-zone", "--apply", digest, "--confirm", "lab"]
    line = [sys.executable, "-m", "aiprod_ops.cli.crash", *words]
    died = subprocess.run(line, env=cloud.env(), cwd="/", capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    (run,) = cloud.unfinished()
    done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert cloud.api.instance("aiprod").zone == before.secondary_zone


def test_no_zone_without_a_standby_in_it(cloud: Cloud) -> None:
    checked = cloud.run("check", "fail-over-zone")
    assert checked.exit == 0, checked.said
    local = cloud.run("plan", "fail-over-zone", "--config", str(cloud.fleet.config))
    assert "Nothing to do" in local.out, local.said


# Planned


def test_roles_are_exchanged_under_load(cloud: Cloud, tmp_path: Path, record_property: Any) -> None:
    for turn in range(2):
        before, expected, digest = cloud.primary, cloud.designated, cloud.planned()
        with cloud.writing(tmp_path / str(turn)) as writers:
            done = cloud.applied(digest)
        assert done.exit == 0, done.said
        assert cloud.writes() == [expected]
        assert cloud.api.instance(before).primary == expected
        assert cloud.lost(writers) == []
        record_property("write_stop_s", round(writers.writes().longest_stop, 3))
    cloud.sound()


@pytest.mark.parametrize("death", ["before 4", "after 4"])
def test_killed_around_the_call(cloud: Cloud, death: str, tmp_path: Path) -> None:
    """The API has begun it: before its name is durable, and after."""
    expected, digest, known = cloud.designated, cloud.planned(), set(cloud.journals())
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", BOOK, "--apply", digest, "--confirm", "lab"]
    with cloud.writing(tmp_path) as writers:
        died = subprocess.run([sys.executable, *words], env=cloud.env(), cwd="/", capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
        (run,) = cloud.unfinished()
        assert kinds(cloud, known)[-1] == ("operation" if death.startswith("after") else "intended")
        done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]
    assert len([e for e in cloud.api.operations(expected) if e.type == "SWITCHOVER"]) <= 2
    assert cloud.lost(writers) == []


@pytest.mark.parametrize(
    "fault",
    [Fault("never-end", only="SWITCHOVER"), pytest.param(Fault("expire-credentials"), marks=pytest.mark.soak)],
    ids=lambda fault: fault.kind,
)
def test_an_api_that_accepts_and_never_says_how_it_ended(cloud: Cloud, fault: Fault, tmp_path: Path) -> None:
    """22, although the roles are being exchanged: `resume` finds the truth."""
    expected, digest, known = cloud.designated, cloud.planned(), set(cloud.journals())
    with cloud.writing(tmp_path) as writers:
        if fault.kind == "never-end":
            inject(cloud.url, fault)
        going = cloud.start("run", BOOK, "--apply", digest, "--confirm", "lab", "--config", str(impatient(cloud)))
        until(lambda: "operation" in kinds(cloud, known), "not begun")
        inject(cloud.url, fault)
        done = going.done()
        faults.clear(cloud.url)
        assert done.exit == 22, done.said
        assert "resume" in done.err, done.said
        (run,) = cloud.unfinished()
        done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]
    assert cloud.lost(writers) == []


def impatient(cloud: Cloud) -> Path:
    """A configuration that waits for no operation longer than three seconds."""
    promises = cloud.config.with_name("service.toml")
    promises.write_text('[backups]\nlongest = "3 s"\n')
    config = cloud.config.with_name("impatient.toml")
    config.write_text(f'service = "{promises}"\n{cloud.config.read_text()}')
    return config


def kinds(cloud: Cloud, known: set[Path]) -> list[str]:
    """Of the records of journals that are not known yet."""
    lines = [line for path in set(cloud.journals()) - known for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line)["kind"] for line in lines if line.endswith("\n")]


def test_an_answer_that_was_lost_is_found_and_the_run_taken_back(cloud: Cloud) -> None:
    before, expected, digest = cloud.primary, cloud.designated, cloud.planned()
    inject(cloud.url, Fault("drop", after_work=True, only="sql.instances.switchover"))
    done = cloud.applied(digest)
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]
    run = cloud.run("runs", "list", "-o", "json").json()[-1]["run"]
    refused = cloud.run("rollback", run)
    assert refused.exit == 12, refused.said
    back = refused.err.partition("--apply ")[2].split()[0]
    done = cloud.run("rollback", run, "--apply", back, "--confirm", "lab")
    assert done.exit == 0, done.said
    assert cloud.writes() == [before]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("fail", only="SWITCHOVER", message="No capacity."), "No capacity"),
        (Fault("answer", status=409, only="sql.instances.switchover"), "409 operationInProgress"),
    ],
    ids=["failed", "raced"],
)
def test_a_switchover_that_fails_changes_nothing(cloud: Cloud, fault: Fault, words: str) -> None:
    before, digest = cloud.primary, cloud.planned()
    inject(cloud.url, fault)
    done = cloud.applied(digest)
    assert done.exit == 20, done.said
    assert words in done.said
    assert cloud.writes() == [before]


@pytest.mark.parametrize("how", [pytest.param("by hand", marks=pytest.mark.soak), "backup"])
def test_somebody_else_is_at_it(cloud: Cloud, how: str) -> None:
    """The API takes one operation at a time: nothing is begun beside one, and never are there two primaries."""
    before, expected, digest = cloud.primary, cloud.designated, cloud.planned()
    if how == "by hand":
        inject(cloud.url, Fault("slow", only="SWITCHOVER", seconds=4))
        other = cloud.api.switchover(expected)
    else:
        inject(cloud.url, Fault("slow", only="BACKUP_VOLUME", seconds=4))
        other = cloud.api.take_backup(before)
    done = cloud.applied(digest)
    cloud.wait(other)
    if how == "by hand":
        assert done.exit in (0, 10, 11), done.said
        assert cloud.writes() == [expected]
    else:
        assert done.exit == 10, done.said
        assert f"BACKUP_VOLUME is under way on {before}: curl" in done.said
        assert cloud.writes() == [before]


def test_two_engineers_at_once(cloud: Cloud) -> None:
    expected, digest = cloud.designated, cloud.planned()
    pair = [cloud.start("run", BOOK, "--apply", digest, "--confirm", "lab") for _ in range(2)]
    codes = sorted(each.done().exit for each in pair)
    assert codes[0] == 0, codes
    assert codes[1] in (0, 10, 11), codes
    assert cloud.writes() == [expected]


def test_a_replica_that_is_not_designated_is_refused_with_what_helps(cloud: Cloud) -> None:
    cloud.in_order()
    before, designated = cloud.primary, cloud.designated
    (other,) = set(NAMES) - {before, designated}
    refused = cloud.run("plan", BOOK, "--to", other, "-o", "json")
    assert refused.exit == 10, refused.said
    checked = cloud.run("check", BOOK, "-o", "json").json()["checks"][0]["findings"]
    (note,) = [each["note"] for each in checked if each["id"] == f"against:{other}"]
    assert f"it is not the designated DR replica of {before} ({designated} is): curl" in note, note
    helps = note.partition("): ")[2].partition("; ")[0]
    subprocess.run(helps, shell=True, check=True, capture_output=True)
    until(lambda: cloud.designated == other and all(e.is_done for e in cloud.api.operations(before)), "not patched")
    made = cloud.run("plan", BOOK, "--to", other, "-o", "json")
    assert made.json()["plan"]["actions"], made.said
    cloud.wait(cloud.api.patch(before, Settings(), dr_replica=designated))


def test_a_replica_that_is_paused_or_behind_is_refused(cloud: Cloud) -> None:
    digest, name = cloud.planned("--lag", "1kB"), cloud.designated
    cloud.on(name, "SELECT pg_wal_replay_pause()")
    try:
        cloud.on(cloud.primary, f"INSERT INTO {TABLE} (writer) SELECT 9 FROM generate_series(1, 2000)")
        done = cloud.applied(digest)
        assert done.exit == 10, done.said
        assert "its replay is paused" in done.said
        assert "behind, more than 1" in done.said
    finally:
        cloud.on(name, "SELECT pg_wal_replay_resume()")


# Unplanned


def test_a_primary_that_lives_is_not_lost(cloud: Cloud) -> None:
    refused = cloud.run("plan", BOOK, "--mode", "unplanned", "-o", "json")
    assert refused.exit == 10, refused.said


def test_a_lost_primary_is_stopped_before_its_replica_is_promoted(cloud: Cloud, tmp_path: Path) -> None:
    cloud.in_order()
    before, expected = cloud.primary, cloud.designated
    with cloud.writing(tmp_path) as writers:
        lab_faults.kill_postmaster(cloud.server(before))
        digest = cloud.unplanned()
        inject(cloud.url, Fault("answer", status=403, only="sql.instances.patch"))
        refused = cloud.applied(digest)
        assert refused.exit == 20, refused.said
        assert "instances.patch" in refused.said
        assert f"only who knows that nothing can write to {before} any more does it by hand" in refused.said
        assert cloud.writes() == [], "it could not be fenced: nothing is promoted"
        done = cloud.applied(cloud.unplanned())
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]
    assert cloud.api.instance(before).activation == "ALWAYS"
    assert cloud.api.instance(before).primary == expected
    done_there = [each.type for each in reversed(cloud.api.operations()) if each.target in (before, expected)]
    assert done_there[-3:] == ["UPDATE", "PROMOTE_REPLICA", "UPDATE"]
    assert cloud.run("check", "replication").exit == 0
    assert writers.writes().moments


def test_a_replica_that_is_ahead_of_the_designated_one_is_brought_back(cloud: Cloud) -> None:
    """Only one may be promoted here: what another has more is lost, and that one has to follow all the same."""
    cloud.in_order()
    before, expected = cloud.primary, cloud.designated
    cloud.on(expected, "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    cloud.on(expected, "SELECT pg_reload_conf()")
    until(lambda: len(cloud.on(before, "SELECT 1 FROM pg_stat_replication")) == 1, "it streams")
    cloud.on(before, f"INSERT INTO {TABLE} (writer) SELECT 9 FROM generate_series(1, 2000)")
    lab_faults.kill_postmaster(cloud.server(before))
    done = cloud.applied(cloud.unplanned())
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]


@pytest.mark.parametrize("death", [pytest.param("after 4", marks=pytest.mark.soak), "before 6"])
def test_killed_while_a_lost_one_is_replaced(cloud: Cloud, death: str) -> None:
    """After it began to stop the old one; and when the promotion was begun, before its name was durable."""
    cloud.in_order()
    before, expected = cloud.primary, cloud.designated
    lab_faults.kill_postmaster(cloud.server(before))
    words = [
        "-m",
        "aiprod_ops.cli.crash",
        *death.split(),
        "run",
        BOOK,
        "--apply",
        cloud.unplanned(),
        "--confirm",
        "lab",
    ]
    died = subprocess.run([sys.executable, *words], env=cloud.env(), cwd="/", capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    (run,) = cloud.unfinished()
    done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert cloud.writes() == [expected]


def test_a_promotion_that_fails_gives_the_primary_back(cloud: Cloud) -> None:
    cloud.in_order()
    before = cloud.primary
    lab_faults.kill_postmaster(cloud.server(before))
    digest = cloud.unplanned()
    inject(cloud.url, Fault("fail", only="PROMOTE_REPLICA", message="No capacity."))
    done = cloud.applied(digest)
    assert done.exit == 21, f"the primary is not lost any more: {done.said}"
    assert cloud.writes() == [before]
    cloud.in_order()
    cloud.sound()
