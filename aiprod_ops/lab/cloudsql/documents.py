"""Records as Google's resources. Pure. Shapes as recorded from Google, see `refusals`."""

from datetime import UTC, datetime
from typing import Any

from aiprod_ops.lab.cloudsql.ledger import Backup, Instance, Operation, State, replicas

USER = "lab@aiprod-ops.invalid"  #: who does everything here: nobody is authenticated


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond, as Google writes it.

    >>> timestamp(datetime(2026, 11, 28, 3, 0, 0, 123456, tzinfo=UTC))
    '2026-11-28T03:00:00.123Z'
    """
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instance(found: Instance, state: State, url: str) -> dict[str, Any]:
    """The DatabaseInstance. The server's port is told as the flag `port`, which Google does not let anybody set."""
    link = f"{url}/v1/projects/{state.project}/instances/{found.name}"
    flags = [*found.settings.get("databaseFlags", []), {"name": "port", "value": str(found.port)}]
    is_replica = bool(found.primary)
    document: dict[str, Any] = {
        "kind": "sql#instance",
        "name": found.name,
        "project": state.project,
        "state": found.state,
        "backendType": "SECOND_GEN",
        "instanceType": "READ_REPLICA_INSTANCE" if is_replica else "CLOUD_SQL_INSTANCE",
        "connectionName": f"{state.project}:{found.region}:{found.name}",
        "databaseVersion": found.version,
        "region": found.region,
        "gceZone": found.zone,
        "createTime": found.created,
        "selfLink": link,
        "ipAddresses": [{"type": "PRIMARY", "ipAddress": "127.0.0.1"}],
        "settings": {"kind": "sql#settings", **found.settings, "databaseFlags": flags},
    }
    if found.secondary_zone:
        document["secondaryGceZone"] = found.secondary_zone
    if found.kms_key:
        document["diskEncryptionConfiguration"] = {"kmsKeyName": found.kms_key}
    if names := [each.name for each in replicas(state, found.name)]:
        document["replicaNames"] = names
    if is_replica:
        document["masterInstanceName"] = f"{state.project}:{found.primary}"
        primary = state.instances.get(found.primary)
        document["replicationCluster"] = {"drReplica": primary is not None and primary.dr_replica == found.name}
    elif found.dr_replica:
        document["replicationCluster"] = {"failoverDrReplicaName": f"{state.project}:{found.dr_replica}"}
    return document


def backup(found: Backup, state: State, url: str) -> dict[str, Any]:
    """The BackupRun."""
    link = f"{url}/v1/projects/{state.project}/instances/{found.instance}/backupRuns/{found.id}"
    times = {"enqueuedTime": found.enqueued, "startTime": found.started, "endTime": found.ended}
    document: dict[str, Any] = {
        "kind": "sql#backupRun",
        "id": found.id,
        "instance": found.instance,
        "status": found.status,
        "type": found.type,
        "backupKind": "PHYSICAL",
        "databaseVersion": found.version,
        "location": found.location,
        "selfLink": link,
        "windowStartTime": found.enqueued,
        **{name: time for name, time in times.items() if time},
    }
    if found.description:
        document["description"] = found.description
    if found.size is not None:
        document["maxChargeableBytes"] = str(found.size)
    if found.error:
        document["error"] = {"kind": "sql#operationError", "code": "INTERNAL_ERROR", "message": found.error}
    if found.kms_key:
        document["diskEncryptionConfiguration"] = {"kmsKeyName": found.kms_key}
    return document


def operation(found: Operation, state: State, url: str) -> dict[str, Any]:
    """The Operation."""
    base = f"{url}/v1/projects/{state.project}"
    times = {"insertTime": found.inserted, "startTime": found.started, "endTime": found.ended}
    document: dict[str, Any] = {
        "kind": "sql#operation",
        "name": found.name,
        "operationType": found.type,
        "status": found.status,
        "user": USER,
        "targetId": found.target,
        "targetProject": state.project,
        "targetLink": f"{base}/instances/{found.target}",
        "selfLink": f"{base}/operations/{found.name}",
        **{name: time for name, time in times.items() if time},
    }
    if found.error_code:
        error = {"kind": "sql#operationError", "code": found.error_code, "message": found.error}
        document["error"] = {"kind": "sql#operationErrors", "errors": [error]}
    if found.backup_id:
        document["backupContext"] = {"kind": "sql#backupContext", "backupId": found.backup_id}
    return document
