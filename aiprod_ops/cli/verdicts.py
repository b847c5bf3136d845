"""What checks found: as text, as JSON, as a monitoring plugin's line, and in Prometheus' text format."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import click
import msgspec

from aiprod_ops.cli.render import as_json, cut, say, table
from aiprod_ops.domain.findings import Finding, Status, Waiver, worst
from aiprod_ops.domain.results import Result
from aiprod_ops.engine.planning import Checked

_COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.CRITICAL: "red", Status.UNKNOWN: "magenta"}


def tell(
    results: Sequence[Checked], target: str, output: str, *, ids: bool = False, idle: Sequence[Waiver] = ()
) -> int:
    """Print the results; answers the exit code. With `ids` ids stand beside findings; `idle` waivers cover none."""
    status = worst(result.status for result in results)
    if output == "json":
        told = {"status": status.name, "target": target, "checks": [_data(result) for result in results]}
        as_json({**told, "idle_waivers": idle} if idle else told)
    elif output == "nagios":
        say(_nagios(results, status))
    elif output == "text":
        for result in results:
            _text(result, target, ids=ids)
        for waiver in idle:
            say(f"  the waiver of {waiver.finding} until {waiver.until} ({waiver.reason}) covers nothing now")
    return int(status)


def prometheus(results: Iterable[Result]) -> None:
    """Print the results in Prometheus' text format."""
    from aiprod_ops.adapters.prometheus import text

    say(text(results).rstrip())


def _data(result: Checked) -> dict[str, Any]:
    findings = [
        {**msgspec.to_builtins(f), "status": f.status.name, "judged": f.judged.name, "shown": f.shown}
        for f in result.findings
    ]
    told = {"runbook": result.runbook, "status": result.status.name, "findings": findings}
    since = result.since.isoformat() if result.since else None
    return {**told, "since": since, "new": list(result.new), "gone": list(result.gone)}


def _text(result: Checked, target: str, *, ids: bool) -> None:
    say(f"{_colored(result.status)}  {result.runbook} on {target}")
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in result.findings:
        groups.setdefault(tuple(finding.columns), []).append(finding)
    for columns, findings in groups.items():
        if columns:
            say()
            rows = [{"status": f.status.name, **f.columns, **({"id": f.id} if ids else {})} for f in findings]
            for row in table(rows, widest=54):
                say("  " + row)
            say()
            for finding in findings:
                if said := _said(finding):
                    say(f"  {finding.id}: {said}")
        else:
            for finding in findings:
                say(f"  {line(finding)}" + (f" [{finding.id}]" if ids else ""))
    if told := _compared(result):
        say(f"  {told}")


def line(finding: Finding) -> str:
    """Status, metric, value and note."""
    note = f" ({said})" if (said := _said(finding)) else ""
    value = f": {finding.shown}" if finding.shown else ""
    return f"{_colored(finding.status)}  {finding.metric}{value}{note}"


def _said(finding: Finding) -> str:
    """The note; until when the finding is accepted, why, and what it would be: `waived until …; WARNING underneath`."""
    waiver = f"waived {finding.waived}; {finding.judged.name} underneath" if finding.waived else ""
    return "; ".join(part for part in (finding.note, waiver) if part)


_COMPARED = 3  #: findings that are named as new, and as gone


def _compared(result: Checked) -> str:
    """What is new or gone since the last check; nothing where there is nothing to tell."""
    if result.since is None or (result.status is Status.OK and not result.new and not result.gone):
        return ""
    about = {**result.were, **{finding.id: _about(finding) or finding.metric for finding in result.findings}}
    for finding in result.findings:  # what is still measured went only as a trouble
        if finding.id in result.gone and finding.status is Status.OK:
            about[finding.id] += " (OK now)"
    parts = [
        f"{word}: {', '.join([about.get(name) or name for name in names[:_COMPARED]])}"
        + (f" and {len(names) - _COMPARED} more" if len(names) > _COMPARED else "")
        for word, names in (("new", result.new), ("gone", result.gone))
        if names
    ]
    return f"since {result.since:%Y-%m-%d %H:%M} UTC: {'; '.join(parts) or 'nothing new, nothing gone'}"


def _colored(status: Status) -> str:
    return click.style(status.name, fg=_COLORS[status], bold=True)


def _nagios(results: Sequence[Checked], status: Status) -> str:
    """One line and performance data. Source: Monitoring Plugins Development Guidelines, "Performance data"."""
    many = len(results) > 1
    data = " ".join(
        f"'{_flat(f'{result.runbook} {f.id}' if many else f.id)}'={f.value:g}"
        f"{f.unit if f.unit in ('s', 'ms', 'B') else ''};{_edge(f.warn)};{_edge(f.crit)}"
        for result in results
        for f in result.findings
        if f.value is not None
    )
    bad = [result for result in results if result.status is not Status.OK] or list(results[:1])
    text = "; ".join(f"{f'{result.runbook}: ' if many else ''}{_leading(result)}" for result in bad)
    line = plugin_line(status, text)
    return f"{line} | {data}" if data else line


def plugin_line(status: Status, text: str) -> str:
    """What a monitoring plugin prints first; the rest of a line after a `|` would be read as figures."""
    return f"{status.name} - {' '.join(text.replace('|', '/').split())}"


_NAMED = 2  #: findings of each state; the line goes to a pager


def _leading(result: Checked) -> str:
    """The first findings of each bad state, the worst state first; of a check that is OK its first."""
    states = sorted({f.status for f in result.findings} - {Status.OK}, key=lambda state: -state.severity)
    parts = [_of_state(result, state) for state in states]
    return "; ".join(parts) or next(map(_brief, result.findings), "nothing was checked")


def _of_state(result: Checked, state: Status) -> str:
    found = [finding for finding in result.findings if finding.status is state]
    told = [_brief(each, before.metric if before else "") for before, each in pairwise([None, *found[:_NAMED]]) if each]
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return f"{'' if state is result.status else f'{state.name} '}{'; '.join(told + more)}"


def _brief(finding: Finding, before: str = "") -> str:
    """A finding as a person would name it: by the statement it is about, not by an id. What was measured is said once
    of several one after the other."""
    about = _about(finding)
    shown = "" if finding.value is None else finding.shown
    told = ", ".join(part for part in (shown, about, finding.note) if part)
    return told if finding.metric == before else f"{finding.metric}: {told}"


def _about(finding: Finding) -> str:
    """The statement, the session, … that a finding of a table is about: its first cell."""
    return next((cut(" ".join(cell.split()), 60) for cell in finding.columns.values()), "")


def _flat(text: str) -> str:
    return " ".join(text.replace("|", "/").replace("'", "").replace("=", " ").split())


def _edge(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
