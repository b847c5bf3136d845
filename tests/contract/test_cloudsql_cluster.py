"""Members of a cluster, what fences them and what is missing to move them: without an API and without a server."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.cluster import CloudSqlCluster
from aiprod_ops.adapters.cloudsql.values import Instance, Operation
from aiprod_ops.errors import Failed, Held, Missing, OpsError, Refused, Unreachable
from aiprod_ops.units import Seconds

PLAIN: dict[str, Any] = {
    "project": "acme",
    "state": "RUNNABLE",
    "region": "us-central1",
    "settings": {
        "edition": "ENTERPRISE_PLUS",
        "activationPolicy": "ALWAYS",
        "backupConfiguration": {"pointInTimeRecoveryEnabled": True},
    },
}


def instance(name: str, host: str, **fields: Any) -> Instance:
    return Instance.of({**PLAIN, "name": name, "ipAddresses": [{"type": "PRIVATE", "ipAddress": host}], **fields})


MAIN = instance(
    "main", "10.0.0.1", replicaNames=["acme:east", "acme:near"],
    replicationCluster={"failoverDrReplicaName": "acme:east"},
)  # fmt: skip
EAST = instance("east", "10.1.0.1", region="us-east1", masterInstanceName="acme:main")
NEAR = instance("near", "10.0.0.2", masterInstanceName="acme:main")
OTHER = instance("other", "10.0.0.9")


@dataclass
class Answering:
    """The API and the servers, in memory. `servers` are roles by host: None is one that does not answer."""

    known: dict[str, Instance] = field(default_factory=lambda: {e.name: e for e in (OTHER, NEAR, EAST, MAIN)})
    servers: dict[str, bool | None] = field(
        default_factory=lambda: {"10.0.0.1": False, "10.1.0.1": True, "10.0.0.2": True}
    )
    timelines: dict[str, int | None] = field(default_factory=lambda: {"10.0.0.1": 4, "10.1.0.1": 4, "10.0.0.2": None})
    going: list[Operation] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    time: float = 0.0
    project: str = "acme"

    # The API

    def instances(self) -> tuple[Instance, ...]:
        return tuple(self.known.values())

    def find(self, name: str) -> Instance | None:
        return self.known.get(name)

    def operations(self, name: str) -> tuple[Operation, ...]:
        return tuple(each for each in self.going if each.target == name)

    designation = CloudSqlAdmin.designation
    look = CloudSqlAdmin.look
    endpoint = "https://sqladmin.googleapis.com/"

    def promote(self, name: str, *, failover: bool) -> None:
        assert failover
        self.servers[self.known[name].host] = False

    def patch(self, name: str, settings: Any) -> None:
        self.known[name] = replace(self.known[name], activation=settings.activation)

    # Calls

    longest: Seconds = Seconds(60)

    @property
    def admin(self) -> "Answering":
        return self

    def done(self, begin: Any, kind: str, target: str, report: Any) -> None:
        self.did.append(f"{kind} {target}")
        begin()

    # The clock

    def monotonic(self) -> float:
        return self.time

    def sleep(self, duration: Seconds) -> None:
        self.time += duration

    # A server

    def reach(self, place: str) -> "Server":
        self.reached.append(place)
        return Server(self, place.split()[0].removeprefix("host="))


@dataclass
class Server:
    world: Answering
    host: str

    def query(self, sql: str) -> list[dict[str, Any]]:
        role = self.world.servers[self.host]
        if role is None:
            raise Unreachable("no contact")
        return [{"timeline": self.world.timelines[self.host]}] if "timeline" in sql else [{"is_standby": role}]

    def close(self) -> None:
        pass


@pytest.fixture
def world() -> Answering:
    return Answering()


def cluster(world: Any, instance: str = "main", **ways: str) -> CloudSqlCluster:
    return CloudSqlCluster(instance, world, lambda: world, world, world.reach, ways, Seconds(60))


def changed(world: Answering, name: str, **fields: Any) -> None:
    world.known[name] = replace(world.known[name], **fields)


@pytest.mark.parametrize("named", ["main", "east", "near"])
def test_members_belong_together_whichever_is_named(world: Answering, named: str) -> None:
    assert cluster(world, named).names == ("main", "east", "near")
    assert cluster(world, named).places()["east"] == "host=10.1.0.1 port=5432"


def test_an_old_primary_that_nobody_has_made_a_replica_yet_belongs_to_them(world: Answering) -> None:
    changed(world, "main", replicas=(), dr_replica="")
    changed(world, "east", primary="", dr_replica="main", replicas=("near",))
    changed(world, "near", primary="east")
    assert set(cluster(world).names) == {"main", "east", "near"}


def test_an_instance_that_is_not_there(world: Answering) -> None:
    with pytest.raises(Missing, match="no instance nothing in the project acme"):
        _ = cluster(world, "nothing").names


def test_one_behind_a_proxy_is_reached_there(world: Answering) -> None:
    world.servers["127.0.0.1"] = True
    assert cluster(world, east="host=127.0.0.1 port=5434").is_standby("east") is True
    assert world.reached == ["host=127.0.0.1 port=5434"]


@pytest.mark.parametrize(
    ("answers", "fields", "expected"),
    [
        (False, {}, False),
        (True, {}, True),
        (None, {}, False),
        (False, {"activation": "NEVER"}, False),
        (None, {"activation": "NEVER"}, True),
        (None, {"state": "SUSPENDED"}, True),
        (None, {"state": "FAILED"}, True),
        (None, {"state": "MAINTENANCE"}, False),
        (None, {"state": "MAINTENANCE", "activation": "NEVER"}, False),
        (None, {"primary": "east"}, True),
    ],
)
def test_what_fences_a_primary(world: Answering, answers: bool | None, fields: Any, expected: bool) -> None:
    world.servers["10.0.0.1"] = answers
    changed(world, "main", **fields)
    assert cluster(world).is_fenced("main") is expected
    world.going = [Operation("o", "UPDATE", "RUNNING", "main")]
    assert cluster(world).is_fenced("main") is (answers is True), "while it is changed it may be on its way up"


def test_one_that_is_gone_is_fenced(world: Answering) -> None:
    del world.known["main"]
    assert cluster(world, "east").is_fenced("main")


def test_the_api_tells_which_one_is_lost(world: Answering) -> None:
    assert cluster(world).lost(["near", "main"]) == "main"
    assert cluster(world).lost(["near"]) == ""
    changed(world, "near", primary="")
    assert cluster(world).lost(["near", "main"]) == "", "two that are none's replicas"


def test_it_streams_the_history_of_another(world: Answering) -> None:
    assert cluster(world).streams("east", "main")
    assert not cluster(world).streams("near", "main"), "it is sent nothing"
    world.timelines["10.1.0.1"] = 3
    assert not cluster(world).streams("east", "main"), "it is sent another history"
    world.timelines["10.1.0.1"] = 4
    changed(world, "east", primary="near")
    assert not cluster(world).streams("east", "main"), "the API says it is another's"


def test_nobody_can_tell_while_it_is_moved(world: Answering) -> None:
    world.going = [Operation("op-1", "SWITCHOVER", "RUNNING", "east")]
    with pytest.raises(Held, match="SWITCHOVER is under way on east: operation op-1") as held:
        cluster(world).is_standby("east")
    assert held.value.hint == "wait for its end: gcloud sql operations describe op-1 --project=acme"
    assert 30 <= world.time < 35


@pytest.mark.parametrize(
    ("whose", "fields", "words"),
    [
        ("main", {"dr_replica": ""}, "designated DR replica of main (none is): gcloud sql instances patch main "
                                     "--failover-dr-replica-name=east --project=acme"),
        ("main", {"dr_replica": "near"}, "(near is)"),
        ("main", {"edition": "ENTERPRISE"}, "main is ENTERPRISE, a primary and its DR replica have to be "
                                            "ENTERPRISE_PLUS: gcloud sql instances patch main --edition"),
        ("east", {"edition": ""}, "east is ENTERPRISE"),
        ("east", {"region": "us-central1"}, "in the region of main, us-central1"),
        ("main", {"backups": replace(MAIN.backups, point_in_time=False)}, "--enable-point-in-time-recovery"),
        ("east", {"state": "MAINTENANCE"}, "it is MAINTENANCE"),
        ("east", {"primary": ""}, "the API knows no replica east"),
        ("east", {"primary": "gone"}, "does not tell its primary gone"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_what_mends_it(world: Answering, whose: str, fields: Any, words: str) -> None:
    assert cluster(world).against("east") == ()
    changed(world, whose, **fields)
    assert words in "; ".join(cluster(world).against("east"))


def test_what_is_under_way_is_told(world: Answering) -> None:
    world.going = [Operation("op-1", "BACKUP_VOLUME", "RUNNING", "main"), Operation("op-2", "UPDATE", "DONE", "east")]
    (told,) = cluster(world).against("east")
    assert told == "BACKUP_VOLUME is under way on main: gcloud sql operations describe op-1 --project=acme"


def test_a_primary_that_answers_is_not_replaced(world: Answering) -> None:
    with pytest.raises(Refused, match="main answers, and takes writes"):
        cluster(world).fail_over("main", "east", Seconds(5), print)
    assert world.did == []


def test_one_that_is_stopped_is_not_stopped_again(world: Answering) -> None:
    world.servers["10.0.0.1"] = None
    changed(world, "main", activation="NEVER")
    cluster(world).fail_over("main", "east", Seconds(5), print)
    assert world.did == ["PROMOTE_REPLICA east"]


def test_one_that_is_silent_is_stopped_first(world: Answering) -> None:
    world.servers["10.0.0.1"] = None
    cluster(world).fail_over("main", "east", Seconds(5), print)
    assert world.did == ["UPDATE main", "PROMOTE_REPLICA east"]
    assert world.known["main"].activation == "NEVER"


def test_one_that_does_not_stop_is_not_replaced(world: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    world.servers["10.0.0.1"] = None
    monkeypatch.setattr(Answering, "patch", lambda *_: None)
    with pytest.raises(Refused, match="main may take writes: the API says that it is stopped, and it is not"):
        cluster(world).fail_over("main", "east", Seconds(5), print)
    assert world.did == ["UPDATE main"]


@pytest.mark.parametrize("starts", [True, False])
def test_where_the_promotion_fails_the_old_one_is_started_again(
    world: Answering, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    said: list[str] = []
    world.servers["10.0.0.1"] = None

    def refuse(*_: Any, **__: Any) -> None:
        if not starts:
            monkeypatch.setattr(Answering, "patch", refuse)
        raise Failed("no capacity")

    monkeypatch.setattr(Answering, "promote", refuse)
    with pytest.raises(Failed, match="no capacity"):
        cluster(world).fail_over("main", "east", Seconds(5), said.append)
    assert world.known["main"].activation == ("ALWAYS" if starts else "NEVER")
    assert ("main stays stopped: no capacity" in said) is not starts


def test_a_stopped_one_is_never_started_as_a_primary(world: Answering) -> None:
    """Google has not made it a replica yet: started, it would take writes beside the new one."""
    world.servers |= {"10.0.0.1": None, "10.1.0.1": False}
    changed(world, "main", activation="NEVER")
    changed(world, "east", primary="")
    with pytest.raises(Failed, match="has not made main a replica of east yet; it stays stopped") as failed:
        cluster(world).rejoin("main", "east", Seconds(5), print)
    assert "gcloud sql operations list --instance=main" in failed.value.hint
    assert world.did == []


def test_one_that_is_gone_is_made_anew_by_hand(world: Answering) -> None:
    del world.known["main"]
    with pytest.raises(OpsError, match="main is not there any more") as failed:
        cluster(world, "east").rejoin("main", "east", Seconds(5), print)
    assert "--master-instance-name=east" in failed.value.hint
