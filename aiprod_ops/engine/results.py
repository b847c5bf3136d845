"""Results, kept from one to the next: when each last ran, how it ended, when it last succeeded. Of checks and runs the
history keeps them; of proofs and drills there is sealed evidence."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from aiprod_ops.config import Target
from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.domain.findings import Finding, Status, worst
from aiprod_ops.domain.plans import canonical, digest
from aiprod_ops.domain.results import Result, Subject, counts, exported, metric_name, succeeded
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.history import History
from aiprod_ops.engine.planning import Checked
from aiprod_ops.engine.runbook import Context
from aiprod_ops.engine.world import World
from aiprod_ops.errors import Exit
from aiprod_ops.ports import Store
from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a check that ended."""

    status: str
    ended: datetime
    took: Seconds
    succeeded: datetime | None


def last(history: History, target: Target, runbook: str, given: Mapping[str, str]) -> Kept | None:
    """How the last check with these options ended; None before the first one."""
    snapshot = history.last(_name(target, runbook, given))
    if snapshot is None:
        return None
    with suppress(msgspec.ValidationError):
        return msgspec.convert(snapshot.value, Kept)
    return None


def of_check(
    context: Context, checked: Checked, given: Mapping[str, str], exports: tuple[str, ...], took: Seconds
) -> Result:
    """The result of a check that just ended. It is kept; where it cannot be (a full disk) that is said."""
    target, now = context.target, context.clock.now()
    before = last(context.history, target, checked.runbook, given)
    good = succeeded(checked.status, now, before.succeeded if before else None)
    kept = Kept(checked.status.name, now, took, good)
    try:
        context.history.keep(_name(target, checked.runbook, given), now, kept)
    except OSError as error:
        context.report(f"the result is not kept for the next check: {error.strerror}")
    return Result(
        Subject(checked.runbook, target.name, target.environment), "check", checked.status, now, took, good,
        counts(checked.findings), exported(checked.findings, exports),
    )  # fmt: skip


def last_check(history: History, target: Target, runbook: str) -> Result | None:
    """How the last scheduled check ended, one without options of its own; None before the first one."""
    kept = last(history, target, runbook, {})
    if kept is None:
        return None
    subject = Subject(runbook, target.name, target.environment)
    return Result(subject, "check", Status[kept.status], kept.ended, kept.took, kept.succeeded)


def keep_run(context: Context, runbook: str, exit_code: Exit, took: Seconds) -> None:
    """Keep how a run by a standing approval ended; one that found nothing to do is a success, too."""
    status, now = Status.OK if exit_code is Exit.DONE else Status.CRITICAL, context.clock.now()
    before = last_run(context.history, context.target, runbook)
    good = succeeded(status, now, before.succeeded if before else None)
    try:
        context.history.keep(f"run.{runbook}", now, Kept(status.name, now, took, good))
    except OSError as error:
        context.report(f"the result is not kept for the list of schedules: {error.strerror}")


def last_run(history: History, target: Target, runbook: str) -> Result | None:
    """How the last run by a standing approval ended; None before the first one."""
    snapshot = history.last(f"run.{runbook}")
    if snapshot is None:
        return None
    kept = msgspec.convert(snapshot.value, Kept)
    subject = Subject(runbook, target.name, target.environment)
    return Result(subject, "run", Status[kept.status], kept.ended, kept.took, kept.succeeded)


def last_proof(
    store: Store, target: Target, runbook: str, parameters: Mapping[str, Any], exports: tuple[str, ...] = ()
) -> Result | None:
    """How the last proof on a target with these parameters ended, and when one last held, by sealed evidence; None
    before the first. Who tries an older backup by hand does not renew the success of the scheduled proof."""
    found = Archive(store).bodies(kind="prove", runbook=runbook)
    plain = json.loads(canonical(dict(parameters)))
    sealed = [r for r in found if r.body["target"]["target"] == target.name and r.body["parameters"] == plain]
    if not sealed:
        return None
    newest = sealed[0]
    good = next((_time(each, "ended") for each in sealed if each.body["exit"] == Exit.DONE), None)
    took = Seconds((_time(newest, "ended") - _time(newest, "started")).total_seconds())
    findings = [_finding(each) for each in newest.body["findings"]]
    subject = Subject(runbook, target.name, target.environment)
    return Result(
        subject, "proof", _status(newest, findings), _time(newest, "ended"), took, good, counts(findings),
        exported(findings, exports),
    )  # fmt: skip


def failed_proof(world: World, runbook: str, parameters: Mapping[str, Any], took: Seconds) -> Result:
    """The result of a proof that could not be made: nothing is known of the copy."""
    target = world.context.target
    before = last_proof(world.store, target, runbook, parameters)
    subject = Subject(runbook, target.name, target.environment)
    good = before.succeeded if before else None
    return Result(subject, "proof", Status.UNKNOWN, world.context.clock.now(), took, good)


def _status(proof: Sealed, findings: list[Finding]) -> Status:
    """One that held may have a WARNING: nearly too slow, say."""
    if proof.body["refused"]:
        return Status.CRITICAL
    return worst(each.status for each in findings) if findings else Status.OK


def _finding(plain: Mapping[str, Any]) -> Finding:
    return msgspec.convert({name: value for name, value in plain.items() if name != "status"}, Finding)


def last_drill(store: Store, target: Target, runbook: str) -> Result | None:
    """How the last drill on a target ended, and when one last succeeded, by sealed evidence; None before the first."""
    found = Archive(store).bodies(kind="drill", runbook=runbook)
    sealed = [each for each in found if each.body["target"]["target"] == target.name]
    if not sealed:
        return None
    newest = sealed[0]
    good = next((_time(each, "ended") for each in sealed if each.body["exit"] == Exit.DONE), None)
    took = Seconds((_time(newest, "ended") - _time(newest, "started")).total_seconds())
    status = Status.OK if newest.body["exit"] == Exit.DONE else Status.CRITICAL
    subject = Subject(runbook, target.name, target.environment)
    return Result(subject, "drill", status, _time(newest, "ended"), took, good, {}, _figures(newest.body["drill"]))


def failed_drill(world: World, runbook: str, took: Seconds) -> Result:
    """The result of a drill that ended before there was evidence of it."""
    target = world.context.target
    before = last_drill(world.store, target, runbook)
    subject = Subject(runbook, target.name, target.environment)
    good = before.succeeded if before else None
    return Result(subject, "drill", Status.CRITICAL, world.context.clock.now(), took, good)


def _figures(drilled: Mapping[str, float | None]) -> dict[str, float]:
    """`rto_s`, `write_stop_ms`, … in base units."""
    told = {}
    for name, value in drilled.items():
        words, _, unit = name.rpartition("_")
        if value is not None and unit in ("s", "ms"):
            metric, factor = metric_name(f"drill {words}", unit)
            told[metric] = value * factor
    return told


def alone(store: Store, target: str, runbook: str, holder: str) -> AbstractContextManager[int]:
    """Hold a check of a target alone; raises Held, naming the holder, where the same check is running."""
    return store.lock(f"check-{runbook}-{quote(target, safe='@')}", holder)


def _name(target: Target, runbook: str, given: Mapping[str, str]) -> str:
    """Only checks of the same options by the same identity are one series; known before any file is loaded."""
    return f"result.{runbook}.{digest([target.probe, dict(given)])[:8]}"


def _time(record: Sealed, name: str) -> datetime:
    return datetime.fromisoformat(record.body[name])
