"""What `service.toml` promises of the instance, its replicas and its cache: [cloudsql], [memorystore], [backups]."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_ops.config import Promises
from aiprod_ops.domain.calendars import DAY
from aiprod_ops.domain.instances import Setup, Setups
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import seconds, size

_DAYS = {"Monday": 1, "Tuesday": 2, "Wednesday": 3, "Thursday": 4, "Friday": 5, "Saturday": 6, "Sunday": 7}
_MOST_RETAINED = 365
_MOST_LOG_DAYS = {"ENTERPRISE": 7, "ENTERPRISE_PLUS": 35}
_REGION = r"[a-z]+-[a-z]+[0-9]+"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_NAME = r"[a-z](?:[a-z0-9-]*[a-z0-9])?"


@dataclass(frozen=True, slots=True)
class Cache:
    """Memorystore for Redis."""

    version: str
    tier: str
    memory_gb: int


@dataclass(frozen=True, slots=True)
class Installed:
    """What is promised beside the settings that can drift: disk to begin with, when backups begin, networks, cache."""

    setups: Setups
    disk_gb: int
    backup_start: str
    network: str
    subnetwork: str
    cache: Cache


def instance_promise(promises: Promises, name: str) -> Setups:
    """What is promised of an instance of this name and its replicas. Raises ConfigurationError."""
    return _Reader(promises).setups(name)


def flag_promise(promises: Promises) -> dict[str, str]:
    """Database flags by name. Raises ConfigurationError."""
    return _Reader(promises).flags()


def installed(promises: Promises, name: str) -> Installed:
    """All that has to be known to make an instance. Raises ConfigurationError."""
    read = _Reader(promises)
    return Installed(
        setups=read.setups(name),
        disk_gb=read.whole("cloudsql.disk", lambda text: round(size(text) / 1000**3), 10, 65536, "10 GB to 65536 GB"),
        backup_start=read.word("cloudsql.backup_start", _TIME, "a time such as 03:00, UTC"),
        network=read.word("cloudsql.network", _NAME, "the name of a VPC network"),
        subnetwork=read.word("cloudsql.subnetwork", _NAME, "the name of a subnetwork"),
        cache=Cache(
            version=read.word("memorystore.version", r"REDIS_[0-9]+_[0-9X]+", "a version such as REDIS_7_2"),
            tier=read.word("memorystore.tier", "BASIC|STANDARD_HA", "BASIC or STANDARD_HA"),
            memory_gb=read.whole(
                "memorystore.memory", lambda text: round(size(text) / 1000**3), 1, 300, "1 GB to 300 GB"
            ),
        ),
    )


class _Reader:
    """Values of `service.toml`, each with one clear error where it makes no sense."""

    def __init__(self, promises: Promises) -> None:
        self._promises = promises

    def setups(self, name: str) -> Setups:
        edition = self.word("cloudsql.edition", "ENTERPRISE|ENTERPRISE_PLUS", "ENTERPRISE or ENTERPRISE_PLUS")
        region = self.word("cloudsql.region", _REGION, "a region such as europe-west1")
        most = _MOST_LOG_DAYS[edition]
        common: dict[str, Any] = {
            "version": self.word("cloudsql.version", r"POSTGRES_(?:9_6|[0-9]+)", "a version such as POSTGRES_18"),
            "edition": edition,
            "tier": self.word("cloudsql.tier", r"db-[a-z0-9-]+[A-Za-z0-9-]*", "a tier such as db-custom-2-8192"),
            "disk_grows": self.truth("cloudsql.disk_grows"),
            "insights": self.truth("cloudsql.insights"),
            "protected": self.truth("cloudsql.deletion_protection"),
            "public_address": self.truth("cloudsql.public_address"),
            "ssl_mode": self.word("cloudsql.ssl_mode", "|".join(_SSL_MODES), ", ".join(_SSL_MODES)),
            "flags": self.flags(),
        }
        main = Setup(
            **common,
            availability=self.word("cloudsql.availability", "REGIONAL|ZONAL", "REGIONAL or ZONAL"),
            region=region,
            backups=True,
            retained=self._retained(),
            point_in_time=True,
            log_days=self.whole(
                "cloudsql.recovery", lambda text: math.ceil(seconds(text) / DAY), 1, most,
                f"1 d to {most} d for the edition {edition}",
            ),
            maintenance=self._maintenance(),
            primary="",
        )  # fmt: skip
        made = {
            f"{name}-{end}": Setup(**common, availability="ZONAL", region=each or region, primary=name)
            for end, each in self._replicas().items()
        }
        return Setups(name, main, made, self._dr_replica(name, made, main))

    def flags(self) -> dict[str, str]:
        """As PostgreSQL writes them: a TOML truth is on or off."""
        found = self._table("cloudsql.flags", "flags by name")
        for flag, value in found.items():
            if not isinstance(value, str | int | float) or not re.fullmatch(r"[a-z_][a-z0-9_.]*", flag):
                raise self._wrong(f"cloudsql.flags.{flag}", value, "a flag of PostgreSQL, with a text, number or truth")
        return {flag: _flag(value) for flag, value in found.items()}

    def word(self, path: str, pattern: str, expected: str) -> str:
        value = self._promises.get(path)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self._wrong(path, value, expected)
        return value

    def truth(self, path: str) -> bool:
        value = self._promises.get(path)
        if not isinstance(value, bool):
            raise self._wrong(path, value, "true or false")
        return value

    def whole(self, path: str, read: Callable[[Any], int], least: int, most: int, expected: str) -> int:
        value = self._promises.get(path)
        try:
            found = read(value)
        except (TypeError, ValueError):
            raise self._wrong(path, value, expected) from None
        if isinstance(value, bool) or not least <= found <= most:
            raise self._wrong(path, value, expected)
        return found

    def _retained(self) -> int:
        """So many that the oldest is as old as the daily retention; Google counts, and keeps 365 at the most."""
        every = self.whole("backups.every", lambda text: int(seconds(text)), 1, 365 * int(DAY), "a duration")
        least = self.whole("backups.least", int, 1, _MOST_RETAINED, "a whole number from 1 to 365")
        return self.whole(
            "backups.daily", lambda text: max(least, math.ceil(seconds(text) / max(every, DAY))), 1, _MOST_RETAINED,
            "at most 365 backups, one a day",
        )  # fmt: skip

    def _maintenance(self) -> tuple[int, int]:
        expected = "a day and an hour such as 'Sunday 04:00', UTC"
        value = self.word("cloudsql.maintenance", rf"(?:{'|'.join(_DAYS)}) (?:[01][0-9]|2[0-3]):00", expected)
        day, time = value.split()
        return _DAYS[day], int(time[:2])

    def _replicas(self) -> dict[str, str]:
        found = self._table("cloudsql.replicas", "regions by the end of the replicas' names")
        for end, region in found.items():
            if not re.fullmatch(_NAME, end) or not (
                isinstance(region, str) and re.fullmatch(f"(?:{_REGION})?", region)
            ):
                expected = 'a region such as europe-west4, or "" for the primary\'s'
                raise self._wrong(f"cloudsql.replicas.{end}", region, expected)
        return found

    def _dr_replica(self, name: str, made: Mapping[str, Setup], main: Setup) -> str:
        """Google takes one of another region, of an Enterprise Plus instance."""
        path = "cloudsql.dr_replica"
        end = self.word(path, f"(?:{_NAME})?", 'the end of a replica\'s name, or "" for none')
        if not end:
            return ""
        replica = made.get(f"{name}-{end}")
        if replica is None or replica.region == main.region:
            raise self._wrong(path, end, f"one of [cloudsql.replicas] in another region than {main.region}")
        if main.edition != "ENTERPRISE_PLUS":
            raise self._wrong(path, end, '"" for the edition ENTERPRISE: only ENTERPRISE_PLUS designates one')
        return f"{name}-{end}"

    def _table(self, path: str, expected: str) -> dict[str, Any]:
        value = self._promises.get(path)
        if not isinstance(value, Mapping):
            raise self._wrong(path, value, f"a table of {expected}")
        return dict(value)

    def _wrong(self, path: str, value: object, expected: str) -> ConfigurationError:
        return ConfigurationError(f"{self._promises.origin}: {path} is {value!r}, expected {expected}")


_SSL_MODES = ("ALLOW_UNENCRYPTED_AND_ENCRYPTED", "ENCRYPTED_ONLY", "TRUSTED_CLIENT_CERTIFICATE_REQUIRED")


def _flag(value: str | float) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
