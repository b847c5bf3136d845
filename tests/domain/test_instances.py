"""What was promised of an instance against what is told: a finding each, and nothing is OK that was not told."""

from dataclasses import fields, replace
from typing import Any

import pytest

from aiprod_ops.adapters.cloudsql.values import Instance
from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.instances import SETTINGS, Setup, Setups, drift, flags

FLAGS = {"log_lock_waits": "on"}
MAIN = Setup(
    version="POSTGRES_18", edition="ENTERPRISE_PLUS", tier="db-perf-optimized-N-2", availability="REGIONAL",
    region="us-central1", disk_grows=True, backups=True, retained=30, point_in_time=True, log_days=14, insights=True,
    maintenance=(7, 4), protected=True, public_address=False, ssl_mode="ENCRYPTED_ONLY", flags=FLAGS, primary="",
)  # fmt: skip
OF_REPLICA = dict.fromkeys(("backups", "retained", "point_in_time", "log_days", "maintenance"))
DR = replace(MAIN, availability="ZONAL", region="us-east1", primary="aiprod", **OF_REPLICA)
WANTED = Setups("aiprod", MAIN, {"aiprod-dr": DR}, "aiprod-dr")


def bad(told: Setups) -> dict[str, Status]:
    return {each.id: each.status for each in drift(WANTED, told) if each.status is not Status.OK}


def by_id(told: Setups) -> dict[str, Finding]:
    return {each.id: each for each in drift(WANTED, told)}


def test_what_is_as_promised_is_ok_and_each_setting_is_a_finding() -> None:
    found = by_id(WANTED)
    assert {each.status for each in found.values()} == {Status.OK}
    assert set(found) >= {*SETTINGS, "flag:log_lock_waits", "missing", "extra", "dr-replica", "role"}
    assert {"region:aiprod-dr", "flag:log_lock_waits:aiprod-dr"} <= set(found)
    assert "retained:aiprod-dr" not in found, "replicas are not backed up: nothing is promised of it"


OTHER: dict[str, Any] = {
    "version": "POSTGRES_17", "edition": "ENTERPRISE", "tier": "db-custom-1-3840", "availability": "ZONAL",
    "region": "europe-west1", "disk_grows": False, "backups": False, "retained": 7, "point_in_time": False,
    "log_days": 7, "insights": False, "maintenance": (1, 4), "protected": False, "public_address": True,
    "ssl_mode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED",
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_one_that_differs_is_told_and_one_that_is_not_told_is_unknown(name: str) -> None:
    status = Status.CRITICAL if SETTINGS[name][1] else Status.WARNING
    assert bad(replace(WANTED, main=replace(MAIN, **{name: OTHER[name]}))) == {name: status}
    assert bad(replace(WANTED, main=replace(MAIN, **{name: None}))) == {name: Status.UNKNOWN}


def test_every_setting_is_compared() -> None:
    assert set(SETTINGS) | {"flags", "primary"} == {each.name for each in fields(Setup)}
    assert set(SETTINGS) == set(OTHER)


def test_the_words_say_both() -> None:
    found = by_id(replace(WANTED, main=replace(MAIN, maintenance=(1, 23), availability="ZONAL")))
    assert found["maintenance"].note == "Monday 23:00 UTC there, Sunday 04:00 UTC in service.toml"
    assert found["availability"].note == "ZONAL there, REGIONAL in service.toml"
    assert found["availability"].metric == "availability of aiprod differs"


def test_flags() -> None:
    def told(flags: dict[str, str] | None) -> dict[str, Status]:
        return bad(replace(WANTED, main=replace(MAIN, flags=flags)))

    assert told({}) == {"flag:log_lock_waits": Status.WARNING}
    assert told({"log_lock_waits": "off"}) == {"flag:log_lock_waits": Status.WARNING}
    assert told({**FLAGS, "work_mem": "1"}) == {"flag:work_mem": Status.WARNING}
    assert told(None) == {"flags": Status.UNKNOWN}
    (found,) = flags("a", FLAGS, {}, all_told=False)
    assert found.status is Status.UNKNOWN, "a server that does not know a flag has not told it"


def test_replicas() -> None:
    assert bad(replace(WANTED, replicas={})) == {"missing": Status.CRITICAL}
    assert bad(replace(WANTED, replicas={"aiprod-dr": DR, "b": DR})) == {"extra": Status.WARNING}
    moved = replace(DR, region="us-central1")
    assert bad(replace(WANTED, replicas={"aiprod-dr": moved})) == {"region:aiprod-dr": Status.CRITICAL}
    assert bad(replace(WANTED, dr_replica="")) == {"dr-replica": Status.CRITICAL}
    assert bad(replace(WANTED, dr_replica=None)) == {"dr-replica": Status.UNKNOWN}
    untold = bad(replace(WANTED, replicas={"aiprod-dr": Setup()}))
    assert set(untold.values()) == {Status.UNKNOWN}
    assert len(untold) == len([each for each in SETTINGS if getattr(DR, each) is not None]) + 1


def test_after_a_switchover_the_instance_is_no_primary() -> None:
    found = by_id(replace(WANTED, main=replace(MAIN, primary="aiprod-dr")))["role"]
    assert (found.status, found.note.partition(":")[0]) == (Status.CRITICAL, "it is a replica of aiprod-dr")
    assert bad(replace(WANTED, main=replace(MAIN, primary=None))) == {"role": Status.UNKNOWN}


def test_what_google_leaves_out_is_not_told() -> None:
    told = Instance.of({"name": "aiprod"}).setup
    assert {name for name in SETTINGS if getattr(told, name) is not None} == set()
    assert told.flags is None
    given = Instance.of(
        {"name": "aiprod", "settings": {"insightsConfig": {}, "ipConfiguration": {"ipv4Enabled": False}}}
    )
    assert (given.setup.insights, given.setup.public_address, given.setup.flags) == (None, False, {})
