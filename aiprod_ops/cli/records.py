"""Records of journals and evidence, told to people; `-o json` has them as they are kept."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import msgspec

from aiprod_ops.cli.render import figure
from aiprod_ops.cli.verdicts import line
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.runs import Record
from aiprod_ops.units import show

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  #: shown by its first 12 digits, as everywhere
_FINDING = {each.name for each in fields(Finding)}
_EMPTY: tuple[Any, ...] = ("", None, [], {}, ())


def lines(record: Record) -> Iterator[str]:
    """A record of a journal: what is plain in one line, what is nested below it."""
    deep = {name: part for name, part in record.data.items() if isinstance(part, list | dict)}
    flat = [_told(name, part, " ") for name, part in record.data.items() if name not in deep and part not in _EMPTY]
    told = _DIGEST.sub(r"\1", ", ".join(flat))
    yield f"{record.n:>3}  {record.at[:19].replace('T', ' ')}  {record.kind:<10} {told}".rstrip()
    yield from (f"{'':26}{each}" for each in outline(deep))


def outline(value: Mapping[str, Any]) -> Iterator[str]:
    """Lines of nested data: `name: value`, what is inside further right, nothing for what is empty. A finding is told
    as a check tells it, by its status first."""
    for name, part in value.items():
        if part in _EMPTY:
            continue
        if isinstance(part, Mapping):
            yield f"{name}:"
            yield from (f"  {each}" for each in outline(part))
        elif isinstance(part, list | tuple) and any(isinstance(each, Mapping) for each in part):
            yield f"{name}:"
            for each in part:
                yield from (f"  {told}" for told in _item(each))
        else:
            first, *rest = _told(name, part, ": ").splitlines()
            yield first
            yield from (f"  {each}" for each in rest)


def _item(part: Mapping[str, Any]) -> Iterator[str]:
    if {"metric", "value", "unit"} <= part.keys():
        known = {name: given for name, given in part.items() if name in _FINDING}
        yield line(msgspec.convert(known, Finding, strict=False))
        return
    first, *rest = list(outline(part)) or ["{}"]
    yield f"- {first}"
    yield from (f"  {each}" for each in rest)


def _told(name: str, part: Any, between: str) -> str:
    if name == "seconds":
        return f"took{between}{show(part, 's')}"
    text = ", ".join(map(str, part)) if isinstance(part, list | tuple) else str(part)
    return f"{name}{between}{figure(part) if isinstance(part, float) else text}"
