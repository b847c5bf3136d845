"""What is asked of the Admin API, as frozen values; each writes the body that Google reads.

None means "leave it as it is", for Google's own default on a new instance.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an instance, of those that the toolkit uses."""

    tier: str | None = None
    edition: str | None = None
    availability: str | None = None
    disk_gb: int | None = None
    deletion_protected: bool | None = None
    labels: dict[str, str | None] | None = None  #: a label whose value is None is taken away by a patch
    flags: dict[str, str] | None = None  #: replaces all flags
    backups_enabled: bool | None = None
    backup_start: str | None = None
    retained_backups: int | None = None
    point_in_time: bool | None = None
    log_days: int | None = None
    backup_location: str | None = None
    maintenance: tuple[int, int] | None = None
    private_network: str | None = None
    public_address: bool | None = None
    activation: str | None = None  #: NEVER stops it, ALWAYS starts it
    zone: str | None = None

    def body(self) -> dict[str, Any]:
        """The Settings resource, without what was not named."""
        flags = None if self.flags is None else [{"name": name, "value": to} for name, to in self.flags.items()]
        retained = self.retained_backups
        window = None if self.maintenance is None else {"day": self.maintenance[0], "hour": self.maintenance[1]}
        return _without_nothing(
            activationPolicy=self.activation,
            tier=self.tier,
            edition=self.edition,
            availabilityType=self.availability,
            dataDiskSizeGb=None if self.disk_gb is None else str(self.disk_gb),
            deletionProtectionEnabled=self.deletion_protected,
            userLabels=self.labels,
            databaseFlags=flags,
            backupConfiguration=_without_nothing(
                enabled=self.backups_enabled,
                startTime=self.backup_start,
                pointInTimeRecoveryEnabled=self.point_in_time,
                transactionLogRetentionDays=self.log_days,
                location=self.backup_location,
                backupRetentionSettings=retained and {"retainedBackups": retained, "retentionUnit": "COUNT"},
            )
            or None,
            maintenanceWindow=window,
            locationPreference=None if self.zone is None else {"zone": self.zone},
            ipConfiguration=_without_nothing(privateNetwork=self.private_network, ipv4Enabled=self.public_address)
            or None,
        )


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance to be made: a primary, or with `primary` a replica of that one."""

    name: str
    version: str = "POSTGRES_18"
    region: str = ""
    primary: str = ""
    root_password: str = field(default="", repr=False)
    kms_key: str = ""
    settings: Settings = field(default_factory=Settings)

    def body(self) -> dict[str, Any]:
        """The DatabaseInstance to insert."""
        return _without_nothing(
            name=self.name,
            databaseVersion=self.version,
            region=self.region or None,
            masterInstanceName=self.primary or None,
            instanceType="READ_REPLICA_INSTANCE" if self.primary else "CLOUD_SQL_INSTANCE",
            rootPassword=self.root_password or None,
            diskEncryptionConfiguration={"kmsKeyName": self.kms_key} if self.kms_key else None,
            settings=self.settings.body(),
        )


def _without_nothing(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
