"""The discovery document as a validator: what Google would refuse is refused, and in its words."""

import doctest
from typing import Any

import pytest

from aiprod_ops.lab.cloudsql import context, discovery, documents, settings
from aiprod_ops.lab.cloudsql.discovery import Method
from aiprod_ops.lab.cloudsql.refusals import Refusal, malformed

API = discovery.load()


def method(verb: str, path: str) -> Method:
    found = API.find(verb, path)
    assert found is not None
    return found[0]


INSERT = method("POST", "/v1/projects/p/instances")
GET = method("GET", "/v1/projects/p/instances/a")
LIST = method("GET", "/v1/projects/p/instances/a/backupRuns")


@pytest.mark.parametrize(
    ("verb", "path", "wanted", "parameters"),
    [
        ("GET", "/v1/projects/p/instances/a", "sql.instances.get", {"project": "p", "instance": "a"}),
        ("GET", "/v1/projects/p/instances", "sql.instances.list", {"project": "p"}),
        ("POST", "/v1/projects/p/instances/p:a/switchover", "sql.instances.switchover", {"instance": "p:a"}),
        ("DELETE", "/v1/projects/p/instances/a/backupRuns/7", "sql.backupRuns.delete", {"id": "7"}),
        ("GET", "/v1/projects/p/operations/o", "sql.operations.get", {"operation": "o"}),
        (
            "GET",
            "/v1/projects/p/instances/a/getLatestRecoveryTime",
            "sql.projects.instances.getLatestRecoveryTime",
            {"instance": "a"},
        ),
    ],
)
def test_routes(verb: str, path: str, wanted: str, parameters: dict[str, str]) -> None:
    found = API.find(verb, path)
    assert found is not None
    assert found[0].id == wanted
    assert found[1].items() >= parameters.items()


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/projects/p/instances", "/v1/projects/p/instances/a/nothing"])
def test_no_route(path: str) -> None:
    assert API.find("GET", path) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"nmae": "a"}, "Unknown name \"nmae\" at 'body': Cannot find field."),
        ({"settings": {"tierr": "x"}}, "Unknown name \"tierr\" at 'body.settings'"),
        ({"settings": {"databaseFlags": [{"nam": "x"}]}}, "at 'body.settings.databaseFlags[0]'"),
        ({"name": 7}, "Invalid value at 'body.name' (TYPE_STRING), 7"),
        ({"settings": {"dataDiskSizeGb": "ten"}}, "(TYPE_INT64)"),
        ({"settings": {"dataDiskSizeGb": 2**63}}, "(TYPE_INT64)"),
        ({"settings": {"storageAutoResize": "yes"}}, "(TYPE_BOOL)"),
        ({"settings": {"availabilityType": "MANY"}}, "(TYPE_ENUM)"),
        ({"settings": {"databaseFlags": {}}}, "'body.settings.databaseFlags'"),
        ({"settings": {"userLabels": {"a": 1}}}, "'body.settings.userLabels.a' (TYPE_STRING)"),
        ({"settings": {"maintenanceWindow": {"day": True}}}, "(TYPE_INT32)"),
        ([], "'body' (TYPE_MESSAGE)"),
    ],
)
def test_requests_that_do_not_fit(body: Any, message: str) -> None:
    flaws = API.body_flaws(INSERT, body)
    assert len(flaws) == 1
    assert message in flaws[0].message


def test_requests_that_fit() -> None:
    body = {"name": "a", "settings": {"dataDiskSizeGb": 10, "userLabels": {"x": None}, "maintenanceWindow": None}}
    assert API.body_flaws(INSERT, body) == []
    assert API.canonical(INSERT, body)["settings"]["dataDiskSizeGb"] == "10"


def test_times_and_durations() -> None:
    clone, switchover = method("POST", "/v1/projects/p/instances/a/clone"), "/v1/projects/p/instances/a/switchover"
    good = {"cloneContext": {"pointInTime": "2026-11-28T03:00:00.123456789Z"}}
    assert API.body_flaws(clone, good) == []
    for bad in ("2026-11-28", "2026-13-28T03:00:00Z", "2026-11-28T03:00:00", "now"):
        assert "Timestamp" in API.body_flaws(clone, {"cloneContext": {"pointInTime": bad}})[0].message
    assert API.query_flaws(method("POST", switchover), {"dbTimeout": "30s"}) == []
    assert "Duration" in API.query_flaws(method("POST", switchover), {"dbTimeout": "30"})[0].message


def test_query_parameters() -> None:
    assert API.query_flaws(GET, {"alt": "json", "prettyPrint": "false"}) == []
    assert "Cannot bind query parameter" in API.query_flaws(GET, {"pretty": "1"})[0].message
    assert API.query_flaws(GET, {"prettyPrint": "maybe"})
    assert API.query_flaws(LIST, {"maxResults": "5"}) == []
    assert API.query_flaws(LIST, {"maxResults": "many"})


def test_a_body_where_none_belongs() -> None:
    promote = method("POST", "/v1/projects/p/instances/a/promoteReplica")
    assert API.body_flaws(promote, {}) == []
    assert API.body_flaws(promote, {"failover": True})


@pytest.mark.parametrize(
    "response",
    [
        {"settings": {"settingsVersion": 1}},  # int64 is digits in an answer
        {"settings": {"maintenanceWindow": {"day": "7"}}},  # int32 is a number
        {"name": None},
        {"state": "RUNNING"},
        {"unknown": 1},
    ],
)
def test_answers_that_google_would_not_give(response: Any) -> None:
    assert API.response_flaws(GET, response)


def test_a_malformed_request_has_googles_body() -> None:
    flaws = API.body_flaws(INSERT, {"nmae": "a"})
    error = malformed(flaws).body()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["errors"][0] == {"message": error["message"], "domain": "global", "reason": "invalid"}
    assert error["details"][0]["fieldViolations"][0]["field"] == "body"


def test_defaults_are_those_of_the_edition() -> None:
    small = settings.complete({"tier": "db-custom-1-3840"}, "us-central1", "us-central1-a")
    large = settings.complete({"tier": "x", "edition": "ENTERPRISE_PLUS"}, "europe-west1", "europe-west1-b")
    kept = [each["backupConfiguration"]["backupRetentionSettings"]["retainedBackups"] for each in (small, large)]
    assert kept == [7, 15]
    assert [each["backupConfiguration"]["location"] for each in (small, large)] == ["us", "eu"]
    for made in (small, large):
        assert API.response_flaws(GET, {"name": "a", "settings": made}) == []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"tier": "x", "availabilityType": "REGIONAL"},
        {"tier": "x", "backupConfiguration": {"pointInTimeRecoveryEnabled": True}},
        {"tier": "x", "backupConfiguration": {"transactionLogRetentionDays": 8}},
        {"tier": "x", "databaseFlags": [{"name": "port", "value": "1"}]},
    ],
)
def test_settings_that_do_not_fit_together(given: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        settings.complete(given, "us-central1", "us-central1-a")
    assert refused.value.status == 400


@pytest.mark.parametrize("module", [settings, documents, context], ids=lambda module: module.__name__)
def test_the_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
