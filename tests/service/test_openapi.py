"""The OpenAPI document: complete, its examples right, the published one equal to it, and nothing taken away."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from breaking import changes
from jsonschema import Draft202012Validator

from aiprod_ops.domain.presets import BY_NAME, LANGUAGES
from aiprod_ops.domain.problems import BY_CODE, OF_REQUESTS
from aiprod_ops.domain.webhooks import EVENTS
from aiprod_ops.service.app import create_app
from aiprod_ops.service.document import openapi, sections
from aiprod_ops.service.settings import Settings

ROOT = Path(__file__).parents[2]
RELEASED = Path(__file__).with_name("released_openapi.json")
HOW = "aiprod-ops serve --openapi > site/openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(create_app(Settings(dsn="")).openapi()))
    return made


def contents(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything that has a schema and examples."""
    if isinstance(value, dict):
        if "schema" in value and ("examples" in value or "example" in value):
            yield where, value
        for name, each in value.items():
            yield from contents(each, f"{where}/{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from contents(each, f"{where}/{number}")


def valid(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def test_every_example_follows_its_schema(document: dict[str, Any]) -> None:
    tried = 0
    for where, content in contents(document):
        given = [each["value"] for each in content.get("examples", {}).values()]
        for value in given + ([content["example"]] if "example" in content else []):
            try:
                valid(document, content["schema"], value)
            except Exception as error:
                raise AssertionError(f"an example in {where} does not follow its schema") from error
            tried += 1
    for name, schema in document["components"]["schemas"].items():
        for value in schema.get("examples", ()):
            valid(document, {"$ref": f"#/components/schemas/{name}"}, value)
            tried += 1
    assert tried > 30


def test_what_the_seeds_promise_is_there(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    submit = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert set(submit["examples"]) == set(BY_NAME)
    assert len(sections.SECTIONS) == 5
    assert [f"## {title}" in document["info"]["description"] for title, _ in sections.SECTIONS.values()] == [True] * 5
    assert set(document["webhooks"]) == set(EVENTS)
    assert list(EVENTS)[:7] == [
        "job.created", "job.started", "job.progress", "job.completed", "job.failed", "batch.created", "batch.completed",
    ]  # fmt: skip
    schema = document["components"]["schemas"]["QuickSocialSubmission"]["properties"]
    assert schema["language"]["enum"] == list(LANGUAGES)
    assert schema["priority"]["enum"] == ["low", "medium", "high", "urgent"]
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == [kind.code for kind in OF_REQUESTS]
    assert {"INVALID_CONTENT", "VOICE_SYNTHESIS_ERROR"} <= BY_CODE.keys()


def test_every_operation_is_complete(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in openapi.operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in openapi.operations(document):
        where = f"{method} {path}"
        assert operation["description"], where
        assert operation["tags"][0] in openapi.TAGS, where
        assert any(status.startswith(("2", "3")) for status in operation["responses"]), where
        parameters = [each.get("$ref", each.get("name")) for each in operation.get("parameters", ())]
        if "security" in operation:
            assert {"401", "403", "500", "503"} <= operation["responses"].keys(), where
            has_key = "#/components/parameters/IdempotencyKey" in parameters
            assert has_key is (method == "post"), where


def test_the_published_document_is_this_one(document: dict[str, Any]) -> None:
    published = json.loads((ROOT / "site/openapi.json").read_text(encoding="utf-8"))
    # Not byte by byte: another version of FastAPI writes the same in other words.
    assert (changes(published, document), changes(document, published)) == ([], []), f"write it anew: {HOW}"
    assert published["info"] == document["info"], f"write it anew: {HOW}"
    told = [
        {each["operationId"]: each["description"] for *_, each in openapi.operations(of)}
        for of in (published, document)
    ]
    assert told[0] == told[1], f"write it anew: {HOW}"


def test_nothing_breaks_a_client_of_the_last_release(document: dict[str, Any]) -> None:
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert changes(released, document) == [], "a client of the last release would break: add, do not change"


def at(document: dict[str, Any], path: str) -> Any:
    for part in path.split(" "):
        document = document[part]
    return document


JOBS = "paths /api/v1/jobs post"
SENT = "components schemas QuickSocialSubmission"
GOT = "components schemas JobView"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["paths"].pop("/api/v1/results"), "GET /api/v1/results: removed"),
        (lambda d: at(d, "paths /api/v1/jobs").pop("get"), "GET /api/v1/jobs: removed"),
        (lambda d: at(d, f"{JOBS} responses").pop("201"), "response 201 removed"),
        (lambda d: at(d, f"{JOBS} responses").pop("409"), "response 409 removed"),
        (lambda d: at(d, JOBS).update(operationId="x"), "operationId was submit_job"),
        (lambda d: at(d, "paths /api/v1/docs get").update(security=[]), "needs a key"),
        (lambda d: at(d, "paths /api/v1/jobs get parameters").pop(0), "parameter limit removed"),
        (lambda d: at(d, "paths /api/v1/jobs get parameters")[0].update(required=True), "limit is required"),
        (lambda d: at(d, f"{SENT} required").append("title"), "field title is required"),
        (lambda d: at(d, f"{SENT} properties").pop("title"), "field title removed"),
        (lambda d: at(d, f"{SENT} properties language enum").remove("ko"), "values removed: ['ko']"),
        (lambda d: at(d, f"{SENT} properties duration_seconds").update(maximum=30), "maximum was 60"),
        (lambda d: at(d, f"{SENT} properties prompt").update(minLength=5), "minLength was 1"),
        (lambda d: at(d, f"{SENT} properties prompt").update(pattern="^a$"), "another pattern"),
        (lambda d: at(d, f"{SENT} properties duration_seconds").update(type="string"), "type was integer"),
        (lambda d: at(d, f"{GOT} required").remove("progress"), "field progress is not always there"),
        (lambda d: at(d, f"{GOT} properties").pop("progress"), "field progress removed"),
        (lambda d: at(d, f"{GOT} properties status enum").remove("failed"), "values removed: ['failed']"),
        (lambda d: at(d, "components schemas Problem properties code enum").remove("NOT_FOUND"), "['NOT_FOUND']"),
        (lambda d: at(d, f"{JOBS} requestBody content application/json schema oneOf").pop(), "variant"),
    ],
)
def test_what_would_break_is_found(document: dict[str, Any], change: Callable[[Any], Any], says: str) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    assert any(says in each for each in changes(document, changed)), changes(document, changed)


def test_what_is_added_breaks_nothing(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    changed["paths"]["/api/v1/new"] = copy.deepcopy(changed["paths"]["/api/v1/results"])
    at(changed, f"{SENT} properties")["colour"] = {"type": "string"}
    at(changed, f"{SENT} properties language enum").append("nl")
    at(changed, f"{SENT} properties duration_seconds").update(maximum=90)
    at(changed, f"{GOT} properties")["colour"] = {"type": "string"}
    at(changed, f"{GOT} required").append("colour")
    assert changes(document, changed) == []
