"""Switch on the lamps that are wanted: the smallest runbook with every phase."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Action, Context, Copy, Finding, Kind, Moving, Plan, Proof


@dataclass(frozen=True)
class Params:
    limit: float = 10.0  #: watch limit
    refuse: str = ""  #: a lamp that the copy refuses
    guard: float = 0.0  #: what the guard reads; 1 refuses
    watch: float = 0.0  #: what the watch reads; 1 is a breach
    broken: bool = False  #: whether the verification fails
    bears: bool = False  #: whether lamps that somebody switched on make the plan stale


@dataclass(frozen=True)
class Lamp:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Facts:
    on: tuple[str, ...]
    off: tuple[str, ...]
    brightness: Moving[float]


on, off = Kind("on", Lamp), Kind("off", Lamp)


@on.does
def switch_on(ctx: Context, lamp: Lamp) -> None:
    ctx.db.execute(f"on {lamp}")


@on.is_done
def is_on(ctx: Context, lamp: Lamp) -> bool:
    return any(row["on"] for row in ctx.db.query("lamps") if row["lamp"] == lamp.name)


@off.does
def switch_off(ctx: Context, lamp: Lamp) -> None:
    ctx.db.execute(f"off {lamp}")


@off.is_done
def is_off(ctx: Context, lamp: Lamp) -> bool:
    return not is_on(ctx, lamp)


book = api.Runbook(params=Params, symptom="It is dark", owner="nobody", risk="low", actions=(on, off))


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    rows = ctx.db.query("lamps")
    lit = tuple(row["lamp"] for row in rows if row["on"])
    return Facts(lit, tuple(row["lamp"] for row in rows if not row["on"]), ctx.clock.monotonic())


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    yield Finding("dark lamps", len(facts.off), "", warn=1, crit=2)


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    for name in facts.off:
        yield Action("on", Lamp(name), basis=name, undo=Action("off", Lamp(name)))


@book.bears
def bears(plan: Plan, now: Plan, params: Params) -> bool:
    planned, left = ({action.name for action in one.actions} for one in (plan, now))
    return params.bears and bool(planned & left)


@book.prove
def prove(copy: Copy, plan: Plan, params: Params) -> Proof:
    copy.apply(plan.actions)
    return Proof((), {params.refuse: "too bright"} if params.refuse else {})


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    yield Finding("guard", params.guard, "", crit=1)


@book.watch
def watch(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    yield Finding("watch", params.watch, "", crit=1)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    dark = [a.name for a in plan.actions if not is_on(ctx, on.subject(a))]
    yield Finding("dark after all", float(len(dark)) + params.broken, "", crit=1)


@book.files
def files(plan: Plan, params: Params) -> Mapping[str, str]:
    return {"lamps.txt": "\n".join(action.name for action in plan.actions)}
