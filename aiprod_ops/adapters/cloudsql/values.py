"""What the Admin API tells, as frozen values: instances, backup runs, operations, the window of recovery.

int64 comes as a string and times as RFC 3339 with up to nine digits; both are read here, once. What Google leaves out
is the empty value of its type, and None where absence says something.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from aiprod_ops.domain.instances import Setup
from aiprod_ops.units import Bytes

Json = Mapping[str, Any]
PORT = 5432  #: Cloud SQL listens nowhere else; an emulator tells its own in the flag `port`


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an operation failed: Google's code and words."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that Google does. `name` finds it again from any process; `target` is an instance.

    The target of CREATE_REPLICA is the primary, that of CLONE the new instance. A failed operation is DONE with
    problems.
    """

    name: str
    type: str
    status: str
    target: str
    inserted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    problems: tuple[Problem, ...] = ()
    backup_id: str = ""

    @property
    def is_done(self) -> bool:
        return self.status == "DONE"

    @classmethod
    def of(cls, found: Json) -> Self:
        """Read an Operation resource."""
        errors = found.get("error", {}).get("errors", [])
        return cls(
            name=found["name"],
            type=found.get("operationType", ""),
            status=found.get("status", ""),
            target=bare(found.get("targetId", "")),
            inserted=moment(found.get("insertTime")),
            started=moment(found.get("startTime")),
            ended=moment(found.get("endTime")),
            problems=tuple(Problem(error.get("code", ""), error.get("message", "")) for error in errors),
            backup_id=str(found.get("backupContext", {}).get("backupId", "")),
        )


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """How an instance is backed up. Google keeps 7 backups (Enterprise Plus: 15) where nobody says otherwise."""

    enabled: bool = False
    start: str = ""  #: HH:MM, UTC
    retained: int | None = None
    point_in_time: bool = False
    log_days: int | None = None
    location: str = ""

    @classmethod
    def of(cls, found: Json) -> Self:
        """Read a BackupConfiguration."""
        return cls(
            enabled=found.get("enabled", False),
            start=found.get("startTime", ""),
            retained=found.get("backupRetentionSettings", {}).get("retainedBackups"),
            point_in_time=found.get("pointInTimeRecoveryEnabled", False),
            log_days=found.get("transactionLogRetentionDays"),
            location=found.get("location", ""),
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance. `primary` is empty for a primary; `settings_version` is what a change has to name."""

    name: str
    project: str
    state: str
    region: str
    zone: str
    secondary_zone: str
    version: str  #: POSTGRES_18
    host: str
    port: int
    primary: str
    replicas: tuple[str, ...]
    dr_replica: str  #: of a primary: the replica that a switchover may go to
    availability: str
    edition: str
    tier: str
    disk_gb: int
    settings_version: int
    deletion_protected: bool
    backups: BackupSettings
    labels: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    maintenance: tuple[int, int] | None = None  #: day (1 is Monday) and hour, UTC
    kms_key: str = ""
    created: datetime | None = None
    network: str = ""  #: private; empty where it has a public address only
    setup: Setup = field(default_factory=Setup)  #: with None for what was left out
    activation: str = ""  #: NEVER where its owner has stopped it, which its state does not tell

    @property
    def is_replica(self) -> bool:
        return bool(self.primary)

    @property
    def is_down(self) -> bool:
        """Whether it serves nobody, and does not begin to by itself."""
        return self.state in ("SUSPENDED", "FAILED") or (self.state == "RUNNABLE" and self.activation == "NEVER")

    @property
    def is_regional(self) -> bool:
        return self.availability == "REGIONAL"

    @classmethod
    def of(cls, found: Json) -> Self:
        """Read a DatabaseInstance."""
        settings: Json = found.get("settings", {})
        flags = {flag["name"]: flag.get("value", "") for flag in settings.get("databaseFlags", [])}
        port = int(flags.pop("port", PORT))
        window = settings.get("maintenanceWindow")
        return cls(
            name=found["name"],
            project=found.get("project", ""),
            state=found.get("state", ""),
            region=found.get("region", ""),
            zone=found.get("gceZone", ""),
            secondary_zone=found.get("secondaryGceZone", ""),
            version=found.get("databaseVersion", ""),
            host=_host(found.get("ipAddresses", [])),
            port=port,
            primary=bare(found.get("masterInstanceName", "")),
            replicas=tuple(bare(name) for name in found.get("replicaNames", [])),
            dr_replica=bare(found.get("replicationCluster", {}).get("failoverDrReplicaName", "")),
            availability=settings.get("availabilityType", ""),
            edition=settings.get("edition", ""),
            tier=settings.get("tier", ""),
            disk_gb=int(settings.get("dataDiskSizeGb", 0)),
            settings_version=int(settings.get("settingsVersion", 0)),
            deletion_protected=settings.get("deletionProtectionEnabled", False),
            backups=BackupSettings.of(settings.get("backupConfiguration", {})),
            labels=dict(settings.get("userLabels", {})),
            flags=flags,
            maintenance=(window.get("day", 0), window.get("hour", 0)) if window else None,
            kms_key=found.get("diskEncryptionConfiguration", {}).get("kmsKeyName", ""),
            created=moment(found.get("createTime")),
            network=settings.get("ipConfiguration", {}).get("privateNetwork", ""),
            setup=_setup(found, settings, flags),
            activation=settings.get("activationPolicy", ""),
        )


@dataclass(frozen=True, slots=True)
class BackupRun:
    """A backup. Its id is unique within its instance only; `ended` is the time whose data it surely holds."""

    id: str
    instance: str
    status: str
    type: str
    description: str = ""
    location: str = ""
    version: str = ""
    size: Bytes | None = None
    enqueued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    problem: Problem | None = None
    kms_key: str = ""

    @property
    def is_usable(self) -> bool:
        return self.status == "SUCCESSFUL"

    @classmethod
    def of(cls, found: Json) -> Self:
        """Read a BackupRun."""
        size, error = found.get("maxChargeableBytes"), found.get("error")
        return cls(
            id=str(found["id"]),
            instance=found.get("instance", ""),
            status=found.get("status", ""),
            type=found.get("type", ""),
            description=found.get("description", ""),
            location=found.get("location", ""),
            version=found.get("databaseVersion", ""),
            size=None if size is None else Bytes(int(size)),
            enqueued=moment(found.get("enqueuedTime")),
            started=moment(found.get("startTime")),
            ended=moment(found.get("endTime")),
            problem=Problem(error.get("code", ""), error.get("message", "")) if error else None,
            kms_key=found.get("diskEncryptionConfiguration", {}).get("kmsKeyName", ""),
        )


@dataclass(frozen=True, slots=True)
class RecoveryWindow:
    """The times that a point-in-time clone can reach; None where Google names none."""

    earliest: datetime | None
    latest: datetime | None


def bare(name: str) -> str:
    """An instance's name without its project: Google writes `project:name` in some fields, and not always.

    >>> bare("acme:aiprod"), bare("example.com:acme:aiprod"), bare("aiprod")
    ('aiprod', 'aiprod', 'aiprod')
    """
    return name.rpartition(":")[2]


def moment(text: str | None) -> datetime | None:
    """A time as Google writes it; digits beyond microseconds are dropped.

    >>> moment("2026-11-28T03:00:00.123456789Z").isoformat()
    '2026-11-28T03:00:00.123456+00:00'
    """
    if not text:
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6].ljust(6, '0')}").replace(tzinfo=UTC)


def timestamp(time: datetime) -> str:
    """A time as Google reads it. It must be aware.

    >>> timestamp(datetime(2026, 11, 28, 3, tzinfo=UTC))
    '2026-11-28T03:00:00.000000Z'
    """
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _setup(found: Json, settings: Json, flags: dict[str, str]) -> Setup:
    """What is told, and nothing else: no field has a default but the lists, which are left out where they are empty."""
    backups, addresses = settings.get("backupConfiguration", {}), settings.get("ipConfiguration", {})
    window, insights = settings.get("maintenanceWindow"), settings.get("insightsConfig", {})
    return Setup(
        version=found.get("databaseVersion"),
        edition=settings.get("edition"),
        tier=settings.get("tier"),
        availability=settings.get("availabilityType"),
        region=found.get("region"),
        disk_grows=settings.get("storageAutoResize"),
        backups=backups.get("enabled"),
        retained=backups.get("backupRetentionSettings", {}).get("retainedBackups"),
        point_in_time=backups.get("pointInTimeRecoveryEnabled"),
        log_days=backups.get("transactionLogRetentionDays"),
        insights=insights.get("queryInsightsEnabled"),
        maintenance=None if window is None else (window.get("day", 0), window.get("hour", 0)),
        protected=settings.get("deletionProtectionEnabled"),
        public_address=addresses.get("ipv4Enabled"),
        ssl_mode=addresses.get("sslMode"),
        flags=flags if settings else None,
        primary=bare(found.get("masterInstanceName", "")),
    )


def _host(addresses: list[Json]) -> str:
    """The private address if there is one, else the public one; an outgoing one accepts nothing."""
    by_type = {address.get("type"): address.get("ipAddress", "") for address in addresses}
    return str(by_type.get("PRIVATE") or by_type.get("PRIMARY") or "")
