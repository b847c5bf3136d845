"""Judge each lamp by itself, remember what was seen, and plan an answer to each finding: for the tests of checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import Action, Context, Finding, Kind, Plan


@dataclass(frozen=True)
class Params:
    bright: bool = False  #: a flag


@dataclass(frozen=True)
class Lamp:
    name: str


@dataclass(frozen=True)
class Facts:
    off: tuple[str, ...]
    before: tuple[str, ...]


on = Kind("on", Lamp)


@on.does
def switch_on(ctx: Context, lamp: Lamp) -> None:
    ctx.db.execute(f"on {lamp.name}")


@on.is_done
def is_on(ctx: Context, lamp: Lamp) -> bool:
    return any(row["on"] for row in ctx.db.query("lamps") if row["lamp"] == lamp.name)


book = api.Runbook(params=Params, symptom="Some lamps are dark", owner="nobody", risk="low", actions=(on,))


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    off = tuple(row["lamp"] for row in ctx.db.query("lamps") if not row["on"])
    last = ctx.history.last("lamps")
    return Facts(off, tuple(last.value["off"]) if last else ())


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    yield Finding("dark before", len(facts.before))
    for lamp in facts.off:
        yield Finding("dark", 1, warn=1, columns={"lamp": lamp}, id=f"lamp:{lamp}")


@book.keep
def keep(facts: Facts, params: Params) -> Mapping[str, Any]:
    return {"lamps": {"off": facts.off}}


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    for name in facts.off:
        yield Action("on", Lamp(name), name=name, irreversible="light is light", answers=f"lamp:{name}")


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    yield Finding("seen", 1)
