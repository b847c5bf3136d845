"""What in a new OpenAPI document breaks a client of an old one."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")
#: What a request may be, by the schema's keyword: whether a smaller or a larger value refuses what was accepted.
_NARROWER = {
    "maximum": -1, "maxLength": -1, "maxItems": -1, "minimum": 1, "minLength": 1, "minItems": 1,
}  # fmt: skip


def changes(old: Schema, new: Schema) -> list[str]:
    """Every breaking change, in words."""
    return list(_Comparison(old, new).changes())


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._seen: set[tuple[str, str, bool]] = set()

    def changes(self) -> Iterator[str]:
        for path, item in self._old["paths"].items():
            for method in (name for name in _METHODS if name in item):
                where = f"{method.upper()} {path}"
                after = self._new["paths"].get(path, {}).get(method)
                if after is None:
                    yield f"{where}: removed"
                else:
                    yield from self._operation(where, item[method], after)

    def _operation(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"{where}: operationId was {old.get('operationId')}"
        if "security" not in old and "security" in new:
            yield f"{where}: needs a key"
        before, after = self._parameters(self._old, old), self._parameters(self._new, new)
        for name in before.keys() - after.keys():
            yield f"{where}: parameter {name[1]} removed"
        for name, parameter in after.items():
            was = before.get(name, {})
            if parameter.get("required") and not was.get("required"):
                yield f"{where}: parameter {name[1]} is required"
            if was:
                place = f"{where}: parameter {name[1]}"
                yield from self._schema(place, was["schema"], parameter["schema"], sent=True)
        yield from self._bodies(where, old.get("requestBody"), new.get("requestBody"))
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where}: response {status} removed"
                continue
            was, now = self._at(self._old, response), self._at(self._new, new["responses"][status])
            yield from self._content(f"{where}: response {status}", was, now, sent=False)

    def _parameters(self, document: Schema, operation: Schema) -> dict[tuple[str, str], Schema]:
        found = [self._at(document, each) for each in operation.get("parameters", ())]
        return {(each["in"], each["name"].lower()): each for each in found}

    def _bodies(self, where: str, old: Schema | None, new: Schema | None) -> Iterator[str]:
        if old is None and new is not None and new.get("required"):
            yield f"{where}: needs a body"
        if old is not None and new is None:
            yield f"{where}: takes no body"
        if old is not None and new is not None:
            if new.get("required") and not old.get("required"):
                yield f"{where}: needs a body"
            yield from self._content(f"{where}: body", old, new, sent=True)

    def _content(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[str]:
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield f"{where}: {kind} removed"
            else:
                after = new["content"][kind].get("schema", {})
                yield from self._schema(where, content.get("schema", {}), after, sent=sent)

    def _schema(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[str]:
        """`sent`: whether a client sends it, or gets it."""
        if "$ref" in old and "$ref" in new:
            if (old["$ref"], new["$ref"], sent) in self._seen:
                return
            self._seen.add((old["$ref"], new["$ref"], sent))
        old, new = self._at(self._old, old), self._at(self._new, new)
        if old.get("type") != new.get("type"):
            yield f"{where}: type was {old.get('type')}, is {new.get('type')}"
        values, now = _values(old), _values(new)
        if values is not None and now is not None and (gone := [each for each in values if each not in now]):
            yield f"{where}: values removed: {gone}"
        if sent and values is None and now is not None:
            yield f"{where}: only {now}"
        if sent:
            yield from _narrowed(where, old, new)
        yield from self._fields(where, old, new, sent=sent)
        if "items" in old:
            yield from self._schema(f"{where}[]", old["items"], new.get("items", {}), sent=sent)
        for word in ("anyOf", "oneOf"):
            variants = {self._name(self._new, each): each for each in new.get(word, ())}
            for each in old.get(word, ()):
                name = self._name(self._old, each)
                if name not in variants:
                    yield f"{where}: variant {name} removed"
                else:
                    yield from self._schema(f"{where}/{name}", each, variants[name], sent=sent)

    def _fields(self, where: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in before.keys() - after.keys():
            yield f"{where}: field {name} removed"
        was, now = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(now - was if sent else was - now):
            yield f"{where}: field {name} is {'required' if sent else 'not always there'}"
        for name in before.keys() & after.keys():
            yield from self._schema(f"{where}.{name}", before[name], after[name], sent=sent)

    @staticmethod
    def _at(document: Schema, value: Schema) -> Schema:
        while "$ref" in value:
            found: Any = document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value

    def _name(self, document: Schema, schema: Schema) -> str:
        return str(schema.get("$ref") or schema.get("const") or schema.get("type"))


def _values(schema: Schema) -> list[Any] | None:
    found: list[Any] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    return found


def _narrowed(where: str, old: Schema, new: Schema) -> Iterator[str]:
    for word, sign in _NARROWER.items():
        if word in new and (word not in old or (new[word] - old[word]) * sign > 0):
            yield f"{where}: {word} was {old.get(word)}, is {new[word]}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{where}: another pattern"
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield f"{where}: no further fields"
