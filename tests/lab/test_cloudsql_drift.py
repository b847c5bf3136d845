"""An instance made as service.toml says does not drift; what Google's client changes is found, each by its own id."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloudsql_bench import PASSWORD, Checked, google, here
from cloudsql_bench import Bench as Emulated
from command_line import Bench, lab

from aiprod_ops import cli
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.lab.cloudsql import faults
from aiprod_ops.lab.cloudsql.emulator import PROJECT
from aiprod_ops.lab.cloudsql.faults import Fault

pytestmark = pytest.mark.lab

PROMISED = """
[backups]
daily = "20 d"
[cloudsql]
flags = {log_lock_waits = true, log_min_duration_statement = 500}
"""


class Drifting(Bench):
    """Instances of an emulator, changed by Google's own client."""

    def __init__(self, config: Path, emulated: Emulated) -> None:
        super().__init__(config, "")
        self.emulated = emulated
        self.client = google(emulated.url, Checked())

    def done(self, request: Any) -> None:
        operation = self.emulated.wait(Operation.of(request.execute()))
        assert operation.problems == ()

    def patch(self, name: str, body: dict[str, Any]) -> None:
        self.done(self.client.instances().patch(project=PROJECT, instance=name, body=body))

    def settings(self, name: str = "aiprod", **settings: Any) -> None:
        self.patch(name, {"settings": settings})

    def bad(self) -> dict[str, str]:
        """Findings that are not OK."""
        done = self.run("check", "drift", "-o", "json")
        (check,) = done.json()["checks"]
        assert len(check["findings"]) > 20, done.said
        return {each["id"]: each["status"] for each in check["findings"] if each["status"] != "OK"}


def bodies(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What Google is sent for the values that Terraform gets: the primary, then its replicas."""
    database = values["database"]
    common = {
        "tier": database["tier"], "edition": database["edition"], "storageAutoResize": database["disk_grows"],
        "deletionProtectionEnabled": database["deletion_protection"],
        "databaseFlags": [{"name": name, "value": value} for name, value in database["flags"].items()],
        "insightsConfig": {"queryInsightsEnabled": database["insights"]},
        "ipConfiguration": {"ipv4Enabled": database["public_address"], "sslMode": database["ssl_mode"]},
    }  # fmt: skip
    backups = {
        "enabled": True, "pointInTimeRecoveryEnabled": True, "startTime": database["backup_start"],
        "transactionLogRetentionDays": database["log_days"],
        "backupRetentionSettings": {"retainedBackups": database["retained_backups"], "retentionUnit": "COUNT"},
    }  # fmt: skip
    main = {"availabilityType": database["availability"], "backupConfiguration": backups}
    version = {"databaseVersion": database["version"], "rootPassword": PASSWORD}
    own = {**common, **main, "maintenanceWindow": database["maintenance"]}
    yield {"name": database["name"], "region": database["region"], **version, "settings": own}
    for name, region in values["replicas"].items():
        place = {"name": name, "region": region, "masterInstanceName": database["name"]}
        yield {**place, "settings": {**common, "availabilityType": "ZONAL"}}


@pytest.fixture(scope="module")
def drifting(short_path: Path) -> Iterator[Drifting]:
    folder = short_path / "drift"
    with here(folder / "emulator") as (_, emulated):
        config = folder / "config.toml"
        (folder / "service.toml").write_text(PROMISED)
        config.write_text(
            'service = "service.toml"\nstate = "state"\n[targets.production]\nplatform = "cloudsql"\n'
            f'project = "{PROJECT}"\ninstance = "aiprod"\nendpoint = "{emulated.url}"\nprobe = "host=/nowhere"\n'
        )
        words = ["schedule", "render", "--format", "terraform", "--image", "ops:1", "--config", str(config)]
        assert cli.call([*words, "--output", str(folder / "made")]) == 0
        made = Drifting(config, emulated)
        for body in bodies(json.loads((folder / "made/production.auto.tfvars.json").read_text())):
            made.done(made.client.instances().insert(project=PROJECT, body=body))
        assert made.bad() == {"dr-replica": "CRITICAL"}, "it is designated once it is there"
        made.patch("aiprod", {"replicationCluster": {"failoverDrReplicaName": "aiprod-dr"}})
        yield made


@pytest.fixture
def bench(drifting: Drifting) -> Drifting:
    """All as promised, without the database: no session is needed."""
    done = drifting.run("check", "drift")
    assert done.exit == 0, done.said
    return drifting


BACKUPS = {
    "enabled": True, "pointInTimeRecoveryEnabled": True, "transactionLogRetentionDays": 14,
    "backupRetentionSettings": {"retainedBackups": 20, "retentionUnit": "COUNT"},
}  # fmt: skip
FLAGS = [{"name": "log_lock_waits", "value": "on"}, {"name": "log_min_duration_statement", "value": "500"}]


@pytest.mark.parametrize(
    ("change", "back", "found"),
    [
        ({"tier": "db-perf-optimized-N-8"}, {"tier": "db-perf-optimized-N-2"}, {"tier": "WARNING"}),
        ({"availabilityType": "ZONAL"}, {"availabilityType": "REGIONAL"}, {"availability": "CRITICAL"}),
        ({"storageAutoResize": False}, {"storageAutoResize": True}, {"disk_grows": "CRITICAL"}),
        ({"deletionProtectionEnabled": False}, {"deletionProtectionEnabled": True}, {"protected": "CRITICAL"}),
        (
            {"insightsConfig": {"queryInsightsEnabled": False}},
            {"insightsConfig": {"queryInsightsEnabled": True}},
            {"insights": "WARNING"},
        ),
        (
            {"maintenanceWindow": {"day": 1, "hour": 12}},
            {"maintenanceWindow": {"day": 7, "hour": 4}},
            {"maintenance": "WARNING"},
        ),
        (
            {"backupConfiguration": {"backupRetentionSettings": {"retainedBackups": 7}}},
            {"backupConfiguration": BACKUPS},
            {"retained": "WARNING"},
        ),
        (
            {
                "availabilityType": "ZONAL",
                "backupConfiguration": {"enabled": False, "pointInTimeRecoveryEnabled": False},
            },
            {"availabilityType": "REGIONAL", "backupConfiguration": BACKUPS},
            {"availability": "CRITICAL", "backups": "CRITICAL", "point_in_time": "CRITICAL"},
        ),
        (
            {"ipConfiguration": {"ipv4Enabled": True, "sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED"}},
            {"ipConfiguration": {"ipv4Enabled": False, "sslMode": "ENCRYPTED_ONLY"}},
            {"public_address": "CRITICAL", "ssl_mode": "CRITICAL"},
        ),
        (
            {"databaseFlags": [FLAGS[0], {"name": "work_mem", "value": "8192"}]},
            {"databaseFlags": FLAGS},
            {"flag:log_min_duration_statement": "WARNING", "flag:work_mem": "WARNING"},
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_was_changed_by_hand_is_found(
    change: dict[str, Any], back: dict[str, Any], found: dict[str, str], bench: Drifting
) -> None:
    bench.settings(**change)
    try:
        assert bench.bad() == found
    finally:
        bench.settings(**back)


def test_of_a_replica_as_well(bench: Drifting) -> None:
    bench.settings("aiprod-replica1", tier="db-perf-optimized-N-8")
    try:
        assert bench.bad() == {"tier:aiprod-replica1": "WARNING"}
    finally:
        bench.settings("aiprod-replica1", tier="db-perf-optimized-N-2")


def test_what_is_not_told_is_unknown(bench: Drifting) -> None:
    """A null takes a setting away: then the API is silent about it."""
    bench.settings(insightsConfig=None, maintenanceWindow=None)
    try:
        assert bench.bad() == {"insights": "UNKNOWN", "maintenance": "UNKNOWN"}
    finally:
        back = {"insightsConfig": {"queryInsightsEnabled": True}, "maintenanceWindow": {"day": 7, "hour": 4}}
        bench.settings(**back)


def test_an_api_that_does_not_answer_is_unknown(bench: Drifting) -> None:
    faults.inject(bench.emulated.url, Fault("answer", status=403, count=1, only="sql.instances.list"))
    done = bench.run("check", "drift")
    assert done.exit == 3, done.said


def test_an_instance_that_is_not_there_is_unknown(bench: Drifting) -> None:
    config = bench.config.with_name("other.toml")
    config.write_text(bench.config.read_text().replace('instance = "aiprod"', 'instance = "nowhere"'))
    done = bench.run("check", "drift", "--config", str(config))
    assert done.exit == 3, done.said
    assert "nowhere" in done.said


def test_a_switchover_and_a_replica_of_nobody(bench: Drifting) -> None:
    """Last: the roles are exchanged."""
    bench.settings("aiprod-replica1", deletionProtectionEnabled=False)
    bench.done(bench.client.instances().delete(project=PROJECT, instance="aiprod-replica1"))
    assert bench.bad() == {"missing": "CRITICAL"}
    bench.done(bench.client.instances().switchover(project=PROJECT, instance="aiprod-dr"))
    found = bench.bad()
    assert found["role"] == "CRITICAL"
    assert found["missing"] == "CRITICAL"


def test_elsewhere_flags_and_replicas_are_compared_and_the_rest_is_named(tmp_path: Path) -> None:
    with lab(2_000) as bench:
        promises = bench.config.with_name("service.toml")
        promises.write_text(
            "[cloudsql]\nflags = {log_lock_waits = true, log_min_duration_statement = 20, no_such = 1}\n"
        )
        config = bench.config.with_name("promised.toml")
        config.write_text(f'service = "{promises}"\n' + bench.config.read_text())

        def seen() -> dict[str, Any]:
            (check,) = bench.run("check", "drift", "-o", "json", "--config", str(config)).json()["checks"]
            return {each["id"]: each for each in check["findings"]}

        found = seen()
        assert {name: each["status"] for name, each in found.items()} == {
            "flag:log_lock_waits": "OK", "flag:log_min_duration_statement": "OK", "flag:no_such": "UNKNOWN",
            "missing": "OK", "extra": "OK", "compared": "OK",
        }  # fmt: skip
        assert "nobody tells version, edition, tier, availability" in found["compared"]["note"]
        bench.sql("ALTER SYSTEM SET log_lock_waits = off")
        bench.sql("SELECT pg_reload_conf()")
        bench.fleet.replicas[0].stop()
        found = seen()
        assert found["flag:log_lock_waits"]["status"] == "WARNING"
        assert found["missing"]["status"] == "CRITICAL"
        bench.fleet.primary.stop()
