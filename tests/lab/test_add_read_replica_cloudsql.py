"""One more replica through Google's Admin API: begun once, found again by whoever goes on, deleted by its run alone."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from command_line import Bench, short_folder, until
from moving import deaths

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.cloudsql import background, faults
from aiprod_ops.lab.cloudsql.faults import Fault, inject
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
BOOK, NAME = "add-read-replica", "aiprod-reads"
LABEL = "aiprod-ops-replica"


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

    def planned(self, *options: str) -> str:
        made = self.run("plan", BOOK, "--name", NAME, "-o", "json", *options)
        assert made.exit == 0, made.said
        assert made.json()["plan"]["actions"], self.run("check", BOOK, "--name", NAME, *options).said
        return str(made.json()["digest"])

    @property
    def last(self) -> str:
        return str(self.run("runs", "list", "-o", "json").json()[-1]["run"])

    def created(self) -> int:
        return len([each for each in self.api.operations("aiprod") if each.type == "CREATE_REPLICA"])

    def take_back(self) -> None:
        asked = self.run("rollback", self.last)
        done = self.run("rollback", self.last, "--apply", asked.err.partition("--apply ")[2].split()[0])
        assert done.exit == 0, done.said
        assert self.api.find(NAME) is None


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    with short_folder() as folder:
        fleet = fleets.up(folder / "lab", 5_000, workload=False, cloudsql=True)
        try:
            yield Cloud(fleet.cloudsql_config, fleet.dsn("postgres"), fleet)
        finally:
            fleets.down(folder / "lab")


@pytest.fixture
def cloud(running: Cloud) -> Iterator[Cloud]:
    yield running
    faults.clear(running.url)


def test_it_is_made_as_it_was_asked_for_and_taken_back(cloud: Cloud) -> None:
    primary = cloud.api.instance("aiprod")
    digest = cloud.planned("--tier", "db-perf-optimized-N-4", "--region", "europe-west4", "--zone", "europe-west4-c")
    done = cloud.run("run", BOOK, "--apply", digest)
    assert done.exit == 0, done.said
    found = cloud.api.instance(NAME)
    assert (found.primary, found.region, found.zone) == ("aiprod", "europe-west4", "europe-west4-c")
    assert (found.tier, found.edition) == ("db-perf-optimized-N-4", primary.edition)
    assert found.labels == {LABEL: cloud.last}
    assert cloud.run("check", "replication").exit == 0
    cloud.take_back()
    cloud.sound()


@pytest.mark.parametrize(
    "death", deaths(["after 3", "before 4", "after 4", "before 5", "after 5", "after 6"], {"after 4", "before 5"})
)
def test_killed_at_a_record_there_is_one_in_the_end(cloud: Cloud, death: str) -> None:
    """The records: opened, leased, intended, operation, its end, outcome."""
    digest, before = cloud.planned(), cloud.created()
    words = ["-m", "aiprod_ops.cli.crash", *death.split(), "run", BOOK, "--apply", digest]
    died = subprocess.run([sys.executable, *words], env=cloud.env(), cwd="/", capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    (run,) = cloud.unfinished()
    done = cloud.run("resume", run)
    assert done.exit == 0, done.said
    assert cloud.created() == before + 1
    assert cloud.api.instance(NAME).labels == {LABEL: run}
    cloud.take_back()


def test_an_answer_that_was_lost_is_found(cloud: Cloud) -> None:
    digest, before = cloud.planned(), cloud.created()
    inject(cloud.url, Fault("drop", after_work=True, only="sql.instances.insert"))
    done = cloud.run("run", BOOK, "--apply", digest)
    assert done.exit == 0, done.said
    assert cloud.created() == before + 1
    cloud.take_back()


def test_one_that_fails_is_deleted(cloud: Cloud) -> None:
    digest = cloud.planned()
    inject(cloud.url, Fault("fail", only="CREATE_REPLICA", message="No capacity."))
    done = cloud.run("run", BOOK, "--apply", digest)
    assert done.exit == 20, done.said
    assert "No capacity" in done.said
    assert cloud.api.find(NAME) is None


def test_somebody_elses_is_not_touched(cloud: Cloud) -> None:
    """Neither taken for ours, nor deleted: also where it came up between the plan and the run."""
    digest = cloud.planned()
    cloud.api.insert(NewInstance(NAME, primary="aiprod", settings=Settings(deletion_protected=False)))
    until(lambda: (found := cloud.api.find(NAME)) and found.state == "RUNNABLE", "it is not made")
    done = cloud.run("run", BOOK, "--apply", digest)
    assert done.exit in (0, 10), done.said
    assert cloud.api.instance(NAME).labels == {}
    made = cloud.run("plan", BOOK, "--name", NAME, "-o", "json")
    assert not made.json()["plan"]["actions"], made.said
    cloud.api.delete(NAME)
    until(lambda: cloud.api.find(NAME) is None, "it is not deleted")


def test_one_that_was_protected_since_is_not_removed(cloud: Cloud) -> None:
    done = cloud.run("run", BOOK, "--apply", cloud.planned())
    assert done.exit == 0, done.said
    made = cloud.last
    cloud.api.patch(NAME, Settings(deletion_protected=True))
    until(lambda: all(each.is_done for each in cloud.api.operations(NAME)), "not patched")
    asked = cloud.run("rollback", made)
    done = cloud.run("rollback", made, "--apply", asked.err.partition("--apply ")[2].split()[0])
    assert done.exit == 10, done.said
    assert "somebody has protected it from deletion" in done.said
    cloud.api.patch(NAME, Settings(deletion_protected=False))
    until(lambda: all(each.is_done for each in cloud.api.operations(NAME)), "not patched")
    asked = cloud.run("rollback", made)
    done = cloud.run("rollback", made, "--apply", asked.err.partition("--apply ")[2].split()[0])
    assert done.exit == 0, done.said
    assert cloud.api.find(NAME) is None


def test_what_the_api_would_refuse_is_named_before(cloud: Cloud) -> None:
    for options, words in (
        (("--name", "Aiprod_Reads"), "cannot name an instance"),
        (("--name", NAME, "--zone", "us-east1-b"), "is not in the region"),
    ):
        checked = cloud.run("check", BOOK, *options)
        assert checked.exit == 2, checked.said
        assert words in checked.out
    assert "none is named: --name NAME" in cloud.run("check", BOOK).out
    inject(cloud.url, Fault("slow", only="BACKUP_VOLUME", seconds=4))
    cloud.api.take_backup("aiprod")
    assert "BACKUP_VOLUME is under way on aiprod: curl" in cloud.run("check", BOOK, "--name", NAME).out
