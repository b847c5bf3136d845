"""Routes, parameters and schemas, from the discovery document that ships inside Google's client. Pure, once it is read.

A request is refused as Google's front end refuses it: an unknown field or parameter, a value of the wrong type, an
unknown member of an enumeration. Sources: Google API Discovery document format; proto3's JSON mapping.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiprod_ops.errors import ConfigurationError

Json = Mapping[str, Any]
INT_RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1)}
DURATION = re.compile(r"-?\d{1,12}(\.\d{1,9})?s")
DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the API: `sql.instances.get`, its query parameters, and the schemas of request and response."""

    id: str
    query: Mapping[str, Json]
    request: str
    response: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a value: where, and in the words of Google's front end."""

    field: str
    message: str


class Discovery:
    """The API as its document describes it."""

    def __init__(self, document: Json) -> None:
        self._schemas: Json = document["schemas"]
        self._common: Json = document["parameters"]
        self._routes = list(_routes(document))

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """The method behind a path (without its query), and its path parameters."""
        for pattern, http_method, method in self._routes:
            if http_method == verb and (match := pattern.fullmatch(path)):
                return method, match.groupdict()
        return None

    def query_flaws(self, method: Method, query: Mapping[str, str]) -> list[Flaw]:
        """What is wrong with the parameters after the question mark."""
        known = {**self._common, **method.query}
        flaws = []
        for name, text in query.items():
            if name not in known:
                unknown = f"Cannot bind query parameter. Field '{name}' could not be found in request message."
                flaws.append(Flaw(name, f'Invalid JSON payload received. Unknown name "{name}": {unknown}'))
            else:
                flaws += self._flaws(known[name], _parameter(known[name], text), name, is_request=True)
        return flaws

    def body_flaws(self, method: Method, body: Any) -> list[Flaw]:
        """What is wrong with a request's body."""
        if not method.request:
            return [Flaw("", "Request body must be empty.")] if body else []
        return list(self._flaws({"$ref": method.request}, body, "body", is_request=True))

    def canonical(self, method: Method, body: Any) -> Any:
        """A body without flaws as Google keeps it: int64 as digits, int32 as a number, whatever was sent."""
        return self._canonical({"$ref": method.request}, body) if method.request else body

    def _canonical(self, schema: Json, value: Any) -> Any:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"]]
        if isinstance(value, dict):
            inner, further = schema.get("properties", {}), schema.get("additionalProperties", {})
            return {name: self._canonical(inner.get(name, further), each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._canonical(schema.get("items", {}), each) for each in value]
        if value is not None and schema.get("format") in INT_RANGES:
            return str(int(value)) if schema["type"] == "string" else int(value)
        return value

    def response_flaws(self, method: Method, body: Any) -> list[Flaw]:
        """What a response holds that the document does not describe."""
        return list(self._flaws({"$ref": method.response}, body, "response", is_request=False))

    def _flaws(self, schema: Json, value: Any, where: str, *, is_request: bool) -> Iterator[Flaw]:
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"]]
        if value is None and is_request:  # proto3: null is the same as absent
            return
        match schema.get("type"):
            case "object":
                yield from self._object_flaws(schema, value, where, is_request=is_request)
            case "array":
                if not isinstance(value, list):
                    yield _invalid(where, "TYPE_MESSAGE", value)
                    return
                for number, item in enumerate(value):
                    yield from self._flaws(schema["items"], item, f"{where}[{number}]", is_request=is_request)
            case "any":
                return
            case _:
                if wanted := _scalar_flaw(schema, value, is_request=is_request):
                    yield _invalid(where, wanted, value)

    def _object_flaws(self, schema: Json, value: Any, where: str, *, is_request: bool) -> Iterator[Flaw]:
        if not isinstance(value, dict):
            yield _invalid(where, "TYPE_MESSAGE", value)
            return
        properties, further = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            inner = properties.get(name, further)
            if inner is None:
                text = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
                yield Flaw(where, text)
            else:
                yield from self._flaws(inner, each, f"{where}.{name}", is_request=is_request)


@cache
def load() -> Discovery:
    """The document of the installed client. Raises ConfigurationError where that is missing."""
    spec = find_spec("googleapiclient")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the package google-api-python-client is not installed", hint="pip install google-api-python-client"
        )
    # Importing the client takes 0.4 s; the document is all we want.
    path = Path(spec.origin).parent / "discovery_cache" / "documents" / "sqladmin.v1.json"
    return Discovery(json.loads(path.read_text(encoding="utf-8")))


def _routes(document: Json) -> Iterator[tuple[re.Pattern[str], str, Method]]:
    for resource in _resources(document["resources"]):
        for method in resource.get("methods", {}).values():
            parameters: Mapping[str, Json] = method.get("parameters", {})
            path = "/" + method["flatPath"]
            # A name may hold a project in front (`project:name`); a custom verb begins at the last colon.
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+?)", re.escape(path))
            yield (
                re.compile(pattern),
                method["httpMethod"],
                Method(
                    method["id"],
                    {name: each for name, each in parameters.items() if each["location"] == "query"},
                    method.get("request", {}).get("$ref", ""),
                    method.get("response", {}).get("$ref", ""),
                ),
            )


def _resources(found: Json) -> Iterator[Json]:
    for resource in found.values():
        yield resource
        yield from _resources(resource.get("resources", {}))


def _parameter(schema: Json, text: str) -> Any:
    """A query parameter as the value that its text stands for; what is no such value stays text."""
    if schema["type"] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _scalar_flaw(schema: Json, value: Any, *, is_request: bool) -> str:
    """The type that was wanted, in Google's words; empty when the value fits."""
    kind, form = schema.get("type"), str(schema.get("format", ""))
    if kind == "boolean":
        return "" if isinstance(value, bool) else "TYPE_BOOL"
    if kind == "number":
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "TYPE_FLOAT"
    if form in INT_RANGES:
        return "" if _is_integer(value, form, kind == "string", is_request=is_request) else f"TYPE_{form.upper()}"
    if not isinstance(value, str):
        return "TYPE_STRING"
    if "enum" in schema and value not in schema["enum"]:
        return "TYPE_ENUM"
    if form == "google-datetime" and not _is_time(value):
        return "type.googleapis.com/google.protobuf.Timestamp"
    if form == "google-duration" and not DURATION.fullmatch(value):
        return "type.googleapis.com/google.protobuf.Duration"
    return ""


def _is_integer(value: Any, form: str, is_text: bool, *, is_request: bool) -> bool:
    """Google takes a number or its digits, and answers int64 as digits and int32 as a number."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    if not is_request and isinstance(value, str) is not is_text:
        return False
    if isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
        return False
    low, high = INT_RANGES[form]
    return low <= int(value) <= high


def _is_time(text: str) -> bool:
    if not DATETIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    except ValueError:
        return False
    return True


def _invalid(where: str, wanted: str, value: Any) -> Flaw:
    return Flaw(where, f"Invalid value at '{where}' ({wanted}), {_shown(value)}")


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def said(flaws: Sequence[Flaw]) -> str:
    """All flaws as one message, a line each."""
    return "\n".join(flaw.message for flaw in flaws)
