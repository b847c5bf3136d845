"""Results as text, JSON, a monitoring plugin's line, and Prometheus' text format."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from aiprod_ops.cli.redaction import redact
from aiprod_ops.domain.findings import Finding, Status, worst
from aiprod_ops.domain.plans import Action, Draft
from aiprod_ops.domain.proofs import Comparison, Sampled
from aiprod_ops.engine.planning import Checked
from aiprod_ops.engine.registry import Entry
from aiprod_ops.units import show

_COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.CRITICAL: "red", Status.UNKNOWN: "magenta"}


def say(text: str = "") -> None:
    """Print to stdout: the result. A reader that goes away (head, less) changes no exit code."""
    try:
        click.echo(redact(text))
    except BrokenPipeError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 it stays open as long as we live


def as_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))


def table(rows: Sequence[dict[str, str]], widest: int = 72) -> list[str]:
    """Lines of a table; figures stand right, the widest column is cut to fit."""
    if not rows:
        return []
    heads = list(rows[0])
    cells = [[_cut(" ".join(str(row.get(head, "")).split()), widest) for head in heads] for row in rows]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    right = [all(re.match(r"[-–0-9≥<]", line[i]) for line in cells if line[i]) for i in range(len(heads))]
    lines = [[head.upper() for head in heads], *cells]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def checks(results: Sequence[Checked], target: str, output: str) -> int:
    """Print checks; answers the exit code."""
    status = worst(result.status for result in results)
    if output == "json":
        as_json({"status": status.name, "target": target, "checks": [_check_data(result) for result in results]})
    elif output == "nagios":
        say(_nagios(results, status))
    elif output == "prom":
        say("\n".join(_prom(results, target)))
    else:
        for result in results:
            _check_text(result, target)
    return int(status)


def _check_data(result: Checked) -> dict[str, Any]:
    findings = [{**msgspec.to_builtins(f), "status": f.status.name, "shown": f.shown} for f in result.findings]
    return {"runbook": result.runbook, "status": result.status.name, "findings": findings}


def _check_text(result: Checked, target: str) -> None:
    say(f"{_colored(result.status)}  {result.runbook} on {target}")
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in result.findings:
        groups.setdefault(tuple(finding.columns), []).append(finding)
    for columns, findings in groups.items():
        if columns:
            rows = [{"status": f.status.name, **f.columns} for f in findings]
            say()
            for line in table(rows, widest=54):
                say("  " + line)
            say()
        else:
            for finding in findings:
                note = f" ({finding.note})" if finding.note else ""
                say(f"  {_colored(finding.status)}  {finding.metric}: {finding.shown}{note}")


def _colored(status: Status) -> str:
    return click.style(status.name, fg=_COLORS[status], bold=True)


def _nagios(results: Sequence[Checked], status: Status) -> str:
    """One line and performance data. Source: Monitoring Plugins Development Guidelines, "Performance data"."""
    findings = [finding for result in results for finding in result.findings]
    leading = max(findings, key=lambda f: f.status.severity, default=None)
    text = f"{leading.metric}: {leading.note or leading.shown}" if leading else "nothing was checked"
    data = " ".join(
        f"'{_flat(f.metric)}'={f.value:g}{f.unit if f.unit in ('s', 'ms', 'B') else ''};{_edge(f.warn)};{_edge(f.crit)}"
        for f in findings
        if f.value is not None
    )
    return f"{status.name} - {_flat(text)} | {data}"


def _flat(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("'", "").replace("=", " ").split())


def _edge(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _prom(results: Sequence[Checked], target: str) -> Iterable[str]:
    yield "# HELP aiprod_ops_check_status Result of a check: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
    yield "# TYPE aiprod_ops_check_status gauge"
    for result in results:
        yield f'aiprod_ops_check_status{{runbook="{result.runbook}",target="{_label(target)}"}} {int(result.status)}'
    yield "# HELP aiprod_ops_check_findings Findings of a check by state."
    yield "# TYPE aiprod_ops_check_findings gauge"
    for result in results:
        for state in Status:
            labels = f'runbook="{result.runbook}",target="{_label(target)}",state="{state.name.lower()}"'
            yield f"aiprod_ops_check_findings{{{labels}}} {sum(f.status is state for f in result.findings)}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def plan(entry: Entry, draft: Draft, output: str, following: str) -> None:
    """Print a plan: what would be done, the SQL, the lock, the size, the estimate, the undo, the digest.

    `following` is the next command, that the last line names.
    """
    if output == "json":
        as_json({**msgspec.to_builtins(draft), "moving": None, "next": following})
        return
    where = f"{draft.plan.identity.target}/{draft.plan.identity.database}"
    if not draft.plan.actions:
        say(f"Nothing to do: {entry.id} plans no change for {where}.")
        return
    say(f"Plan of {entry.id} for {where}: {counted(len(draft.plan.actions), 'action')}, risk {entry.book.risk}")
    for number, action in enumerate(draft.plan.actions, start=1):
        say()
        say(f"  {number}. {action.kind} {action.name}")
        for line in _action_lines(entry, action):
            say(f"     {line}")
    say()
    if draft.plan.without:
        say(f"  left out  {', '.join(draft.plan.without)}")
    say(f"  digest    {draft.digest}")
    say(f"  good      until {draft.expires:%Y-%m-%d %H:%M} UTC")
    say(f"next: {following}")


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


def _case(units: Sequence[Comparison]) -> dict[str, str]:
    row = {"statement": units[0].what, **units[0].columns}
    for comparison in units:
        row[comparison.unit] = _sampled(comparison.before)
        row[f"{comparison.unit} after"] = _sampled(comparison.after)
    return {**row, "n": f"{units[0].before.n}/{units[0].after.n}", "gain": show(units[0].gain, "×")}


def _sampled(value: Sampled) -> str:
    spread = "" if value.low == value.high else f" ({_figure(value.low)}–{_figure(value.high)})"
    return _figure(value.median) + spread


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"
