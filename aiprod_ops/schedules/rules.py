"""Alert rules for scheduled work, and promtool's tests of them: how it ended, how old its last success is, absence.

Source: Prometheus, "Alerting rules" and "Unit testing for rules".
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from aiprod_ops.domain.calendars import DAY, HOUR, MINUTE
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.schedules import PROGRAM, Job
from aiprod_ops.schedules.installation import HEAD, Installation
from aiprod_ops.units import show

RULES, TESTS = f"{PROGRAM}.rules.yml", f"{PROGRAM}.rules.test.yml"
_SEVERITY = {Status.WARNING: "warning", Status.CRITICAL: "critical", Status.UNKNOWN: "warning"}
_STEP = 5 * MINUTE
_LONGEST_ABSENCE = DAY + 2 * HOUR  #: a new job has a day to report for the first time


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert. `series` with the value `quiet` must not raise it, with `loud` it has to; where `loud` is None it is
    the absence of the series that does."""

    alert: str
    expr: str
    lasts: int
    labels: dict[str, str]
    annotations: dict[str, str]
    series: str
    quiet: int
    loud: int | None


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """The rules, one group for each job, and their tests. A run has none: what it was to bring about, a check tells."""
    found = {job.name: list(rules(job, where)) for job in jobs if job.wish.work != "run"}
    groups = [{"name": name, "rules": [_rule(each) for each in made]} for name, made in found.items()]
    tests = _tests([rule for made in found.values() for rule in made])
    told = {"rule_files": [RULES], "evaluation_interval": f"{_STEP}s", "tests": tests}
    return {RULES: HEAD + _yaml({"groups": groups}), TESTS: HEAD + _yaml(told)}


def rules(job: Job, where: Installation) -> Iterator[Rule]:
    """For each state that is not OK, for age, and for absence."""
    camel = "".join(word.title() for word in job.wish.runbook.split("-"))
    status, good = f"aiprod_ops_{job.noun}_status", f"aiprod_ops_{job.noun}_last_success_timestamp_seconds"
    for state, alert in _alerts(job, camel).items():
        yield Rule(
            alert, f"{_series(status, job)} == {int(state)}", 0, _labels(job, _SEVERITY[state]),
            _annotations(job, where, f"{job.title} is {state.name}"), _reported(status, job), 0, int(state),
        )  # fmt: skip
    late = int(job.late_after)
    # One for each job, however many machines report it. In the tests a negative value is a success before they begin.
    yield Rule(
        f"{camel}{job.noun.title()}Overdue",
        f"time() - max by (runbook, target, environment) ({_series(good, job)}) > {late}", 0, _labels(job, "warning"),
        _annotations(job, where, f"{job.title} has not succeeded for {show(late, 's')}"),
        _reported(good, job), 2 * _STEP - late, -late,
    )  # fmt: skip
    lasts = min(late, _LONGEST_ABSENCE)
    yield Rule(
        f"{camel}{job.noun.title()}NotReporting", f"absent({_series(good, job)})", lasts,
        _labels(job, "warning"),
        _annotations(job, where, f"{job.title} reports no success for {show(lasts, 's')}, or nobody reads its metrics"),
        _reported(good, job), 0, None,
    )  # fmt: skip


def _named(job: Job, camel: str) -> str:
    """The beginning of an alert's name: a check's is that of its runbook."""
    return camel if job.wish.work == "check" else f"{camel}{job.noun.title()}"


def _alerts(job: Job, camel: str) -> dict[Status, str]:
    """The alert of each state that there is: the one that the runbook's page names, where it tells what was found."""
    name = _named(job, camel)
    if job.wish.work == "drill":
        return {Status.CRITICAL: f"{name}Failed"}
    if job.wish.work == "prove":
        return {Status.WARNING: f"{name}Doubtful", Status.CRITICAL: f"{name}Failed", Status.UNKNOWN: f"{name}Unknown"}
    found = job.wish.alert or camel
    return {Status.WARNING: found, Status.CRITICAL: found, Status.UNKNOWN: f"{camel}Unknown"}


def _series(name: str, job: Job) -> str:
    return f"{name}{{runbook={_quoted(job.wish.runbook)}, target={_quoted(job.place.target)}}}"


def _reported(name: str, job: Job) -> str:
    """The series as a check reports it."""
    return f"{_series(name, job)[:-1]}, environment={_quoted(job.place.environment)}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _labels(job: Job, severity: str) -> dict[str, str]:
    place = {"runbook": job.wish.runbook, "target": job.place.target, "environment": job.place.environment}
    return {"severity": severity, **place, "work": job.wish.work}


def _annotations(job: Job, where: Installation, summary: str) -> dict[str, str]:
    """What to read and what to type: the same command by hand, without its metrics."""
    page = {"runbook_url": where.page(job)} if where.pages else {}
    return {"summary": _plain(summary), "command": _plain(shlex.join((PROGRAM, *job.words))), **page}


def _plain(text: str) -> str:
    """Text that Prometheus would otherwise take for a template."""
    return text.replace("{{", '{{ "{{" }}')


def _rule(rule: Rule) -> dict[str, Any]:
    lasts = {"for": f"{rule.lasts}s"} if rule.lasts else {}
    return {"alert": rule.alert, "expr": rule.expr, **lasts, "labels": rule.labels, "annotations": rule.annotations}


def _tests(made: list[Rule]) -> list[dict[str, Any]]:
    """Each rule is seen to fire, and seen not to: with a series that is in order, and before its time."""
    tests = []
    for rule in made:
        if rule.loud is not None:
            tests.append(_test({rule.series: rule.quiet}, 10, [(_STEP, rule.alert, [])]))
            tests.append(_test({rule.series: rule.loud}, 10, [(_STEP, rule.alert, [rule])]))
    absences = [rule for rule in made if rule.loud is None]
    alerts = {rule.alert: [each for each in absences if each.alert == rule.alert] for rule in absences}
    end = max((rule.lasts for rule in absences), default=0) + _STEP
    nothing: list[Rule] = []
    tests.append(_test({each.series: 0 for each in absences}, end // MINUTE, [(end, name, nothing) for name in alerts]))
    early = [(max(0, min(each.lasts for each in missing) - _STEP), name, nothing) for name, missing in alerts.items()]
    tests.append(_test({}, 0, [*early, *((end, name, missing) for name, missing in alerts.items())]))
    return tests


def _test(series: dict[str, int], minutes: int, expected: list[tuple[int, str, list[Rule]]]) -> dict[str, Any]:
    """Constant series, and which alerts fire when."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}x{minutes}"} for name, value in series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{when}s",
                "alertname": alert,
                "exp_alerts": [{"exp_labels": rule.labels, "exp_annotations": rule.annotations} for rule in fired],
            }
            for when, alert, fired in sorted(expected, key=lambda each: each[:2])
        ],
    }


def _yaml(body: dict[str, Any]) -> str:
    return str(yaml.safe_dump(body, sort_keys=False, width=120, allow_unicode=True))
