"""Results as text and JSON: tables, plans, measurements."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from aiprod_ops.cli.options import NOWHERE, Where, pasteable
from aiprod_ops.cli.redaction import redact
from aiprod_ops.domain.plans import Action, Draft
from aiprod_ops.domain.proofs import Comparison, Sampled
from aiprod_ops.engine.registry import Entry
from aiprod_ops.units import show


def say(text: str = "") -> None:
    """Print to stdout: the result. A reader that goes away (head, less) changes no exit code."""
    try:
        click.echo(redact(text))
    except BrokenPipeError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 it stays open as long as we live


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))


_INDENT = 2  #: what callers put before each line
_LEAST = 32  #: no column is cut to less


def table(rows: Sequence[dict[str, str]], widest: int = 72) -> list[str]:
    """Lines of a table; figures stand right. Cells are cut to what fits the terminal, as $COLUMNS or itself tells it;
    where neither does (a file, a pipe), to `widest`."""
    if not rows:
        return []
    heads = list(rows[0])
    whole = [[" ".join(str(row.get(head, "")).split()) for head in heads] for row in rows]
    right = [all(re.match(r"[-–0-9≥<]", line[i]) for line in whole if line[i]) for i in range(len(heads))]
    natural = [max(len(head), *(len(line[i]) for line in whole)) for i, head in enumerate(heads)]
    room = shutil.get_terminal_size((0, 0)).columns
    most = fitting(natural, right, room - _INDENT - 2 * (len(heads) - 1)) if room else [widest] * len(heads)
    cells = [[cut(cell, most[i]) for i, cell in enumerate(line)] for line in whole]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    lines = [[head.upper() for head in heads], *cells]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    ]


def fitting(natural: Sequence[int], rigid: Sequence[bool], room: int) -> list[int]:
    """Widths of columns that fit together: the widest one gives way first, to 32 at the least; figures never do.

    >>> [fitting([8, 120, 60, 19], [False, False, False, True], room) for room in (210, 150, 60)]
    [[8, 120, 60, 19], [8, 63, 60, 19], [8, 32, 32, 19]]
    """
    widths = list(natural)
    while sum(widths) > room:
        soft = [width for width, is_rigid in zip(widths, rigid, strict=True) if not is_rigid]
        if max(soft, default=0) <= _LEAST:
            break
        widths[next(i for i, width in enumerate(widths) if width == max(soft) and not rigid[i])] -= 1
    return widths


def cut(text: str, width: int) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= width else text[: width - 1] + "…"


def plan(entry: Entry, draft: Draft, output: str, following: str = "", where: Where = NOWHERE) -> None:
    """Print a plan: what would be done, the SQL, the lock, the size, the estimate, the undo, the digest.

    `following` is the next command, that the last line names; none where the question that comes next names it.
    """
    if output == "json":
        as_json({**msgspec.to_builtins(draft), "moving": None, "next": following})
        return
    instance = f"{draft.plan.identity.target}/{draft.plan.identity.database}"
    if not draft.plan.actions:
        say(f"Nothing to do: {entry.id} plans no change for {instance}.")
        left_out(draft, where)
        return
    say(f"Plan of {entry.id} for {instance}: {counted(len(draft.plan.actions), 'action')}, risk {entry.book.risk}")
    for number, action in enumerate(draft.plan.actions, start=1):
        say()
        say(f"  {number}. {action.kind} {action.name}")
        for line in _action_lines(entry, action):
            say(f"     {line}")
    say()
    left_out(draft, where)
    say(f"  digest    {draft.digest}")
    say(f"  good      until {draft.expires:%Y-%m-%d %H:%M} UTC")
    if following:
        say(f"next: {following}")


def left_out(draft: Draft, where: Where = NOWHERE) -> None:
    """Print what is not in a plan though something speaks for it, and why."""
    names = [f"{name} (waived)" if name in draft.accepted else name for name in draft.plan.without]
    if names:
        say(f"  left out  {', '.join(names)}")
    for name, reason in sorted(draft.omitted.items()):
        say(f"  left out  {name}: {pasteable(reason, where)}")


def _action_lines(entry: Entry, action: Action) -> Iterable[str]:
    kind = entry.book.kinds[action.kind]
    yield from kind.text(kind.subject(action)).splitlines()
    if action.lock:
        yield f"lock      {action.lock}"
    if action.estimate:
        size = f", {show(action.estimate.size, 'B')}" if action.estimate.size else ""
        yield f"takes     about {show(action.estimate.duration, 's')}{size}"
    if action.undo:
        undo = entry.book.kinds[action.undo.kind]
        yield f"undo      {undo.text(undo.subject(action.undo))}"
        if action.irreversible:
            yield f"          but {action.irreversible}"
    else:
        yield f"undo      none: {action.irreversible}"


def counted(number: int, noun: str) -> str:
    """`1 action`, `2 actions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def comparisons(found: Sequence[Comparison], *, every: bool) -> None:
    """Print what a copy measured, a row a case: of each statement and plan the one that gained least, or all."""
    cases: dict[tuple[str, ...], list[Comparison]] = {}
    for comparison in found:
        cases.setdefault((comparison.what, *comparison.columns.values()), []).append(comparison)
    groups: dict[tuple[str, str], list[list[Comparison]]] = {}
    for case in cases.values():
        groups.setdefault((case[0].what, case[0].columns.get("plan", "")), []).append(case)
    shown = list(cases.values()) if every else [min(group, key=lambda case: case[0].gain) for group in groups.values()]
    for line in table([_case(case) for case in shown], widest=46):
        say("  " + line)
    if len(shown) < len(cases):
        say(f"  Shown are the values that gained least, median (range) of n runs; all {len(cases)} cases: --every")
        say("  Where the generic plan is the custom one, it is run once and stands in both rows")


def _case(units: Sequence[Comparison]) -> dict[str, str]:
    row = {"statement": units[0].what, **units[0].columns}
    for comparison in units:
        row[comparison.unit] = _sampled(comparison.before)
        row[f"{comparison.unit} after"] = _sampled(comparison.after)
    return {**row, "n": f"{units[0].before.n}/{units[0].after.n}", "gain": show(units[0].gain, "×")}


def _sampled(value: Sampled) -> str:
    spread = "" if value.low == value.high else f" ({figure(value.low)}–{figure(value.high)})"
    return figure(value.median) + spread


def figure(value: float) -> str:
    """A number without a unit: three digits that matter."""
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"
