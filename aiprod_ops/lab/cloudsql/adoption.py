"""A lab's fleet as instances: `aiprod`, `aiprod-replica1`, `aiprod-replica2`, Enterprise Plus in three regions."""

from pathlib import Path

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import postgres
from aiprod_ops.lab.cloudsql import settings
from aiprod_ops.lab.cloudsql.background import FOLDER
from aiprod_ops.lab.cloudsql.context import now
from aiprod_ops.lab.cloudsql.ledger import Instance
from aiprod_ops.lab.fleet import Fleet

NAME = "aiprod"
REGIONS = ("us-central1", "us-east1", "us-west1")
GIVEN = {"tier": "db-perf-optimized-N-2", "edition": "ENTERPRISE_PLUS"}
BACKED_UP = {
    "availabilityType": "REGIONAL",
    "deletionProtectionEnabled": True,
    "backupConfiguration": {"enabled": True, "pointInTimeRecoveryEnabled": True},
}


def folder_of(lab: Path) -> Path:
    """Where a lab's emulator lives."""
    return lab / FOLDER


def instances(fleet: Fleet) -> dict[str, Instance]:
    """The fleet's servers, as it made them: the first replica is the designated one."""
    names = [NAME, *(f"{NAME}-{replica}" for replica in postgres.REPLICAS)]
    homes = folder_of(fleet.folder) / "instances"
    archives = [fleet.folder / "archive", *(homes / name / "archive-0" for name in names[1:])]
    servers = [fleet.primary, *fleet.replicas]
    slots = ["primary", *postgres.REPLICAS]
    password = _password(fleet.passfile)
    return {
        name: _instance(fleet, server, name, region, archive, slot, password)
        for name, server, region, archive, slot in zip(names, servers, REGIONS, archives, slots, strict=True)
    }


def _instance(
    fleet: Fleet, server: PostgresServer, name: str, region: str, archive: Path, slot: str, password: str
) -> Instance:
    is_primary = name == NAME
    made = settings.complete({**GIVEN, **(BACKED_UP if is_primary else {})}, region, f"{region}-a")
    zone, second = settings.zones(region, f"{region}-a", made)
    return Instance(
        name=name,
        version=f"POSTGRES_{fleet.programs.major}",
        region=region,
        zone=zone,
        secondary_zone=second,
        settings=made,
        data=str(server.data),
        log=str(server.log),
        sockets=str(server.sockets),
        port=server.port,
        archive=str(archive),
        password=password,
        created=now(),
        slot=slot,
        state="RUNNABLE",
        primary="" if is_primary else NAME,
        dr_replica=f"{NAME}-{postgres.REPLICAS[0]}" if is_primary else "",
        adopted=True,
        passfile=str(fleet.folder / "replication.pgpass"),
    )


def _password(passfile: Path) -> str:
    """The administrator's."""
    lines = passfile.read_text(encoding="utf-8").splitlines()
    return next(line.split(":", 4)[4] for line in lines if line.split(":")[3] == "postgres")
