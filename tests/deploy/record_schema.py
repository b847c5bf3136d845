"""Records what hashicorp/google takes, of the resources in deploy/terraform, from a package that describes it all.

Run by hand when a resource is added: `pip download --no-deps cdktf-cdktf-provider-google`, then
`python tests/deploy/record_schema.py WHEEL`. The package is generated from the provider's own schema; it does not tell
sets from lists, and of attributes that may be given not which are computed as well.
"""

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TERRAFORM = HERE.parents[1] / "deploy/terraform"
Types = dict[str, Any]
Block = dict[str, Any]


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as outer:
        name = next(each for each in outer.namelist() if each.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
            described = inner.extractfile("package/.jsii")
            assert described is not None
            assembly = json.load(described)
    types: Types = assembly["types"]
    text = "".join(path.read_text() for path in sorted(TERRAFORM.glob("*.tf")))
    made: dict[str, Any] = {
        "provider": re.findall(r"hashicorp/google provider version ([0-9.]+)", assembly["readme"]["markdown"])[0]
    }
    for kind in ("resource", "data"):
        names = sorted(set(re.findall(rf'^{kind} "(google_\w+)"', text, re.MULTILINE)))
        made[kind] = {each: _block(types, *_place(each, kind)) for each in names}
    made["provider_block"] = _block(types, "@cdktf/provider-google.provider.GoogleProvider", "")
    (HERE / "google.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def _place(name: str, kind: str) -> tuple[str, str]:
    camel = "".join(part.title() for part in name.removeprefix("google_").split("_"))
    camel = f"DataGoogle{camel}" if kind == "data" else camel
    place = f"@cdktf/provider-google.{camel[0].lower()}{camel[1:]}.{camel}"
    return place, f"{place}Config"


def _block(types: Types, output: str, config: str) -> Block:
    """Attributes and nested blocks: what may be given, then what is told back only."""
    made: Block = {"attributes": {}, "blocks": {}}
    given = _given(types, config or f"{output}Config")
    for each in given:
        _add(types, made, each)
    known = {each["name"] for each in given}
    for each in types.get(output, {}).get("properties", []):
        is_own = not each.get("static") and not each["name"].endswith("Input") and each["name"] not in known
        if is_own and each["name"] not in {"fqn", "complexObject", "internalValue"} and not each.get("overrides"):
            kind = _told(types, each["type"])
            if kind is not None:
                made["attributes"][_snake(each)] = {"type": kind, "computed": True}
    return made


def _given(types: Types, config: str) -> list[Any]:
    """What may be given; the fields of cdktf's own interface are not the provider's."""
    return [each for each in types.get(config, {}).get("properties", []) if not each.get("overrides")]


def _add(types: Types, made: Block, each: Any) -> None:
    kind, element = _kind(each["type"])
    name, is_required = _snake(each), not each.get("optional")
    if element in types and types[element].get("kind") == "interface":
        nested = _block(types, f"{element}OutputReference", element)
        nesting = "single" if name == "timeouts" else "list"
        most = {"max": 1} if kind == "one" else {}
        made["blocks"][name] = {**nested, "nesting": nesting, "min": int(is_required), **most}
    else:
        made["attributes"][name] = {"type": _plain(kind, element), ("required" if is_required else "optional"): True}
        if name == "id":
            made["attributes"][name]["computed"] = True


def _kind(type_: Any) -> tuple[str, str]:
    if "union" in type_:
        return next(_kind(each) for each in type_["union"]["types"] if each.get("fqn") != "cdktf.IResolvable")
    if "collection" in type_:
        inner = _kind(type_["collection"]["elementtype"])[1]
        return ("map" if type_["collection"]["kind"] == "map" else "many"), inner
    return "one", type_.get("primitive") or type_.get("fqn", "")


def _plain(kind: str, element: str) -> Any:
    name = {"string": "string", "number": "number", "boolean": "bool"}.get(element, "dynamic")
    return {"one": name, "many": ["list", name], "map": ["map", name]}[kind]


def _told(types: Types, type_: Any) -> Any:
    """The type of something computed; None for what cdktf adds to each class."""
    kind, element = _kind(type_)
    if element.startswith("cdktf."):
        maps = {"cdktf.StringMap": "string", "cdktf.NumberMap": "number", "cdktf.BooleanMap": "bool"}
        return ["map", maps[element]] if element in maps else "bool" if element == "cdktf.IResolvable" else None
    if element.endswith("List") and element in types:
        inside = f"{element.removesuffix('List')}OutputReference"
        fields = {
            _snake(each): _told(types, each["type"])
            for each in types[inside].get("properties", [])
            if not each.get("overrides") and each["name"] != "internalValue" and not each["name"].endswith("Input")
        }
        return ["list", ["object", {name: each for name, each in fields.items() if each is not None}]]
    return None if element in types else _plain(kind, element)


def _snake(each: Any) -> str:
    """Its name in the provider's documents, else as cdktf would have made it."""
    told = re.search(
        r"#([a-z0-9_]+) ", each.get("docs", {}).get("remarks", "") + each.get("docs", {}).get("summary", "")
    )
    return told[1] if told else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", each["name"]).lower()


if __name__ == "__main__":
    main(sys.argv[1])
