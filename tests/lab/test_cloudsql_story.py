"""Google's client, unmodified, from an empty project to an empty project, on real servers."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudsql_bench import PASSWORD, Bench, Checked, google, here, until

from aiprod_ops.lab.cloudsql.emulator import PROJECT

pytestmark = pytest.mark.lab

MAIN = {
    "name": "main",
    "region": "us-central1",
    "databaseVersion": "POSTGRES_18",
    "rootPassword": PASSWORD,
    "settings": {
        "tier": "db-perf-optimized-N-2",
        "edition": "ENTERPRISE_PLUS",
        "availabilityType": "REGIONAL",
        "userLabels": {"owner": "tests"},
        "backupConfiguration": {"enabled": True, "pointInTimeRecoveryEnabled": True},
    },
}


class Client:
    """Google's client, and waiting as its samples do it."""

    def __init__(self, bench: Bench) -> None:
        self.http = Checked()
        self._google = google(bench.url, self.http)
        self.instances, self.backups = self._google.instances(), self._google.backupRuns()

    def done(self, request: Any) -> Any:
        operation = request.execute()
        assert operation["status"] in ("PENDING", "RUNNING", "DONE")
        while operation["status"] != "DONE":
            time.sleep(0.03)
            operation = self._google.operations().get(project=PROJECT, operation=operation["name"]).execute()
        assert "error" not in operation, operation
        return operation

    def get(self, name: str) -> Any:
        return self.instances.get(project=PROJECT, instance=name).execute()


def test_from_insert_to_delete(short_path: Path) -> None:
    folder = short_path / "story"
    with here(folder) as (_, bench):
        client = Client(bench)
        instances, backups = client.instances, client.backups

        # An instance, and rows before and after a backup, and after a point in time.
        made = client.done(instances.insert(project=PROJECT, body=MAIN))
        assert (made["operationType"], made["targetId"]) == ("CREATE", "main")
        bench.sql("main", "CREATE TABLE rows (n int PRIMARY KEY)")
        bench.sql("main", "INSERT INTO rows SELECT generate_series(1, 100)")
        taken = client.done(backups.insert(project=PROJECT, instance="main", body={"description": "by hand"}))
        backup_id = taken["backupContext"]["backupId"]
        run = backups.get(project=PROJECT, instance="main", id=backup_id).execute()
        assert (run["status"], run["type"], run["description"]) == ("SUCCESSFUL", "ON_DEMAND", "by hand")
        bench.sql("main", "INSERT INTO rows VALUES (101)")
        time.sleep(0.02)
        at = datetime.now(UTC)
        time.sleep(0.02)
        bench.sql("main", "INSERT INTO rows VALUES (102)")

        # Clones: as it was, and as it is. The second one costs no backup.
        point = {"destinationInstanceName": "past", "pointInTime": at.isoformat().replace("+00:00", "Z")}
        cloned = client.done(instances.clone(project=PROJECT, instance="main", body={"cloneContext": point}))
        assert (cloned["operationType"], cloned["targetId"]) == ("CLONE", "past")
        assert bench.rows("past") == list(range(1, 102))
        now = {"cloneContext": {"destinationInstanceName": "present"}}
        client.done(instances.clone(project=PROJECT, instance="main", body=now))
        assert bench.rows("present") == list(range(1, 103))
        bench.sql("present", "INSERT INTO rows VALUES (0)")
        assert client.get("present")["settings"]["userLabels"] == {"owner": "tests"}

        # A restore over another instance.
        context = {"restoreBackupContext": {"backupRunId": backup_id, "instanceId": "main", "project": PROJECT}}
        client.done(instances.restoreBackup(project=PROJECT, instance="present", body=context))
        assert bench.rows("present") == list(range(1, 101))

        # Replicas, a switchover there and back, a failover of the replica.
        for name, region in (("east", "us-east1"), ("west", "us-west1")):
            body = {"name": name, "region": region, "masterInstanceName": "main", "databaseVersion": "POSTGRES_18"}
            created = client.done(instances.insert(project=PROJECT, body=body))
            assert (created["operationType"], created["targetId"]) == ("CREATE_REPLICA", "main")
        assert client.get("main")["replicaNames"] == ["east", "west"]
        assert client.get("east")["masterInstanceName"] == f"{PROJECT}:main"
        cluster = {"replicationCluster": {"failoverDrReplicaName": f"{PROJECT}:east"}}
        client.done(instances.patch(project=PROJECT, instance="main", body=cluster))
        for primary, others, number in (("east", ("main", "west"), 200), ("main", ("east", "west"), 201)):
            client.done(instances.switchover(project=PROJECT, instance=primary, dbTimeout="60s"))
            assert client.get(primary)["replicaNames"] == sorted(others)
            bench.sql(primary, f"INSERT INTO rows VALUES ({number})")
            for other in others:
                assert client.get(other)["masterInstanceName"] == f"{PROJECT}:{primary}"
                until(lambda other=other, number=number: number in bench.rows(other))
        client.done(instances.promoteReplica(project=PROJECT, instance="east", failover=True))
        bench.sql("east", "INSERT INTO rows VALUES (202)")
        for other in ("main", "west"):
            until(lambda other=other: bench.rows(other)[-3:] == [200, 201, 202])

        # One that goes its own way, and a failover in its zone's stead.
        client.done(instances.promoteReplica(project=PROJECT, instance="west"))
        bench.sql("west", "INSERT INTO rows VALUES (300)")
        assert "masterInstanceName" not in client.get("west")
        assert client.get("east")["replicaNames"] == ["main"]
        zones = {"settings": {"availabilityType": "REGIONAL"}}
        client.done(instances.patch(project=PROJECT, instance="east", body=zones))
        before = client.get("east")
        version = {"failoverContext": {"settingsVersion": before["settings"]["settingsVersion"]}}
        client.done(instances.failover(project=PROJECT, instance="east", body=version))
        after = client.get("east")
        assert (after["gceZone"], after["secondaryGceZone"]) == (before["secondaryGceZone"], before["gceZone"])
        assert bench.rows("east")[-1] == 202

        # What was backed up before the roles changed cannot be recovered into the new history; a new backup can.
        client.done(backups.insert(project=PROJECT, instance="east", body={}))
        past = {"cloneContext": {"destinationInstanceName": "later", "pointInTime": datetime.now(UTC).isoformat()}}
        client.done(instances.clone(project=PROJECT, instance="east", body=past))
        assert bench.rows("later")[-1] == 202

        for name in ("main", "east", "west", "past", "present", "later"):
            client.done(instances.delete(project=PROJECT, instance=name))
        assert "items" not in instances.list(project=PROJECT).execute()
        assert {method for method, status in client.http.seen if status != 200} == set()
        assert len({method for method, _ in client.http.seen}) == 13
        assert list((folder / "instances").iterdir()) == []
        assert list((folder / "backups").iterdir()) == []
