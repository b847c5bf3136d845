"""Settings of an instance: Google's defaults, and what a patch makes of them. Pure.

Defaults as recorded from Google (k8s-config-connector's fixtures): 7 backups, Enterprise Plus 15; logs kept 7 days,
Enterprise Plus 14.
"""

from collections.abc import Mapping
from typing import Any

from aiprod_ops.lab.cloudsql.refusals import Refusal, invalid

#: What PostgreSQL has to be told by the emulator; Google refuses these flags, too.
OURS = frozenset(
    {"port", "listen_addresses", "archive_command", "archive_mode", "primary_conninfo", "primary_slot_name",
     "restore_command", "unix_socket_directories", "data_directory", "hba_file", "ident_file", "config_file"}
)  # fmt: skip
ZONES = {"a": "b", "b": "c", "c": "f", "f": "a"}


def complete(given: Mapping[str, Any], region: str, zone: str) -> dict[str, Any]:
    """The settings of a new instance. Raises Refusal for those that do not fit together."""
    edition = given.get("edition", "ENTERPRISE")
    is_plus = edition == "ENTERPRISE_PLUS"
    defaults: dict[str, Any] = {
        "activationPolicy": "ALWAYS",
        "availabilityType": "ZONAL",
        "backupConfiguration": {
            "kind": "sql#backupConfiguration",
            "enabled": False,
            "startTime": "12:00",
            "location": "",
            "pointInTimeRecoveryEnabled": False,
            "transactionLogRetentionDays": 14 if is_plus else 7,
            "transactionalLogStorageState": "CLOUD_STORAGE",
            "backupRetentionSettings": {"retainedBackups": 15 if is_plus else 7, "retentionUnit": "COUNT"},
        },
        "connectorEnforcement": "NOT_REQUIRED",
        "dataDiskSizeGb": "10",
        "dataDiskType": "PD_SSD",
        "deletionProtectionEnabled": False,
        "edition": edition,
        "ipConfiguration": {"ipv4Enabled": True, "sslMode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED"},
        "locationPreference": {"kind": "sql#locationPreference", "zone": zone},
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "storageAutoResize": True,
        "storageAutoResizeLimit": "0",
        "tier": "",
    }
    made = merged(defaults, without_nulls(given))
    made["backupConfiguration"]["location"] = made["backupConfiguration"]["location"] or _multi_region(region)
    check(made)
    made["settingsVersion"] = "1"
    return made


def patched(current: Mapping[str, Any], patch: Mapping[str, Any], *, is_replica: bool) -> dict[str, Any]:
    """The settings after a patch, with the next version. Raises Refusal."""
    made = merged(current, {name: value for name, value in patch.items() if name != "settingsVersion"})
    check(made, is_replica=is_replica)
    return _next(made, current)


def exchanged(primary: Mapping[str, Any], replica: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the new and of the old primary after a change of roles: who is backed up changes with them."""
    field = "backupConfiguration"
    of_replica = {**replica[field], "enabled": False, "pointInTimeRecoveryEnabled": False}
    return (
        _next({**replica, field: {**replica[field], **primary[field]}}, replica),
        _next({**primary, field: of_replica}, primary),
    )


def _next(made: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {**made, "settingsVersion": str(int(before["settingsVersion"]) + 1)}


def check(settings: Mapping[str, Any], *, is_replica: bool = False) -> None:
    """Raises Refusal for settings that Google would not take."""
    backup = settings["backupConfiguration"]
    is_plus = settings.get("edition") == "ENTERPRISE_PLUS"
    most = 35 if is_plus else 7
    if not settings.get("tier"):
        raise Refusal(400, "required", "Missing parameter: tier.")
    if backup.get("pointInTimeRecoveryEnabled") and not backup.get("enabled"):
        raise invalid("point-in-time recovery needs backups to be enabled.")
    if not 1 <= int(backup.get("transactionLogRetentionDays", 7)) <= most:
        raise invalid(f"transactionLogRetentionDays must be from 1 to {most}.")
    if not 1 <= int(backup.get("backupRetentionSettings", {}).get("retainedBackups", 7)) <= 365:
        raise invalid("retainedBackups must be from 1 to 365.")
    is_regional = settings.get("availabilityType") == "REGIONAL"
    if is_regional and not is_replica and not backup.get("pointInTimeRecoveryEnabled"):
        raise invalid("a REGIONAL instance needs automated backups and point-in-time recovery.")
    for flag in settings.get("databaseFlags", []):
        if flag.get("name") in OURS or not flag.get("name"):
            raise invalid(f"the database flag {flag.get('name')!r} cannot be set.")


def merged(current: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396): objects are merged, a null takes away, everything else replaces.

    >>> merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2]})
    {'a': {'c': 2}, 'd': [2]}
    """
    made = dict(current)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            inside = made.get(name)
            made[name] = merged(inside if isinstance(inside, dict) else {}, value)
        else:
            made[name] = value
    return made


def without_nulls(value: Any) -> Any:
    """A request as Google reads it: null is absent."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


def is_stopped(settings: Mapping[str, Any]) -> bool:
    """Whether its owner has stopped an instance."""
    return settings.get("activationPolicy") == "NEVER"


def flags(settings: Mapping[str, Any]) -> dict[str, str]:
    """Database flags by name, as PostgreSQL's settings."""
    return {flag["name"]: flag.get("value", "") for flag in settings.get("databaseFlags", [])}


def zones(region: str, wanted: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The zone of an instance, and of its standby when it is REGIONAL."""
    zone = wanted or settings.get("locationPreference", {}).get("zone") or f"{region}-a"
    if settings.get("availabilityType") != "REGIONAL":
        return zone, ""
    second = settings.get("locationPreference", {}).get("secondaryZone")
    return zone, second or f"{zone[:-1]}{ZONES.get(zone[-1], 'b')}"


def _multi_region(region: str) -> str:
    """Where backups are kept when nobody says: the multi-region around."""
    return {"us": "us", "eu": "eu", "as": "asia"}.get(region[:2], region)
