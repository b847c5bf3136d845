"""What the last proofs from stored backups said: kept for a runbook's own checks, and for the day when the target is
lost."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.domain.findings import Status
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Exit

_TIMES = {"rto", "rpo"}  #: findings that tell nothing of the backup itself
_SECOND = timedelta(seconds=1)  #: what a repository tells of a time may be cut to the second


@dataclass(frozen=True)
class LastProof:
    """What the last proof said that was of the newest backup, or that failed; `refused` is empty where it holds. `copy`
    is how it was restored, `findings` what was seen in it, `target` whose backup it was, all as the evidence has them.
    """

    n: int
    run: str
    exit: int
    ended: datetime
    refused: dict[str, str]
    findings: list[dict[str, Any]]
    copy: dict[str, Any]
    target: dict[str, str] = field(default_factory=dict)


def keep_last(context: Context, sealed: Sealed) -> None:
    """Keep what a proof said that tells something of the newest backup, or that failed."""
    names = ("run", "exit", "ended", "refused", "findings", "copy", "target")
    summary = {name: sealed.body[name] for name in names} | {"n": sealed.n}
    context.history.keep(_name(sealed.body["runbook"]), context.clock.now(), summary)


def said_last(context: Context, runbook: str) -> LastProof | None:
    """The last proof by a runbook of this target's newest backup, or a later one that failed; None where there is
    none."""
    kept = context.history.last(_name(runbook))
    return msgspec.convert(kept.value, LastProof) if kept else None


def is_sealed(context: Context, last: LastProof, runbook: str) -> bool:
    """Whether the evidence of a proof is still there, as it was sealed."""
    found = Archive(context.history.store).bodies(kind="prove", runbook=runbook)
    return any((each.n, each.body["run"]) == (last.n, last.run) for each in found)


def verified_backups(context: Context, runbook: str = "test-backup") -> tuple[str, ...]:
    """Ids of the stored backups of this target whose last proof found them in order, the oldest proof first."""
    return tuple(name for name, is_good in _said_of_each(context, runbook).items() if is_good)


def restored_backups(context: Context, runbook: str = "test-backup") -> tuple[str, ...]:
    """Ids of the stored backups of this target that any proof found in order, whatever a later one said."""
    good = (name for name, is_good in _said(context, runbook) if is_good)
    return tuple(dict.fromkeys(good))


def disproved_backups(context: Context, runbook: str = "test-backup") -> tuple[str, ...]:
    """Ids of the stored backups of this target whose last proof failed, the oldest proof first."""
    return tuple(name for name, is_good in _said_of_each(context, runbook).items() if name and not is_good)


def last_refusal(context: Context, backup: str, runbook: str = "test-backup") -> tuple[int, str] | None:
    """The number of the evidence by which the last proof of a stored backup of this target failed, and what it says;
    None where it held, or there is none. Raises OSError where the evidence cannot be read."""
    for each in Archive(context.history.store).bodies(kind="prove", runbook=runbook):
        is_of_it = (each.body["target"]["target"], each.body["copy"]["backup"]) == (context.target.name, backup)
        if is_of_it and (is_good := _holds(each.body)) is not None:
            said = "; ".join(f"{what}: {why}" for what, why in each.body.get("refused", {}).items())
            return None if is_good else (each.n, said)
    return None


def _said_of_each(context: Context, runbook: str) -> dict[str, bool]:
    """Whether the last proof of each backup held."""
    last: dict[str, bool] = {}
    for name, is_good in _said(context, runbook):
        last.pop(name, None)
        last[name] = is_good
    return last


def _said(context: Context, runbook: str) -> Iterator[tuple[str, bool]]:
    """Of each proof, the oldest first, the backup and whether it is in order. From sealed evidence alone, which is
    neither thinned nor ends: what was altered counts for nothing."""
    for each in reversed(Archive(context.history.store).bodies(kind="prove", runbook=runbook)):
        if each.body["target"]["target"] == context.target.name and (is_good := _holds(each.body)) is not None:
            yield str(each.body["copy"]["backup"]), is_good


def _holds(body: dict[str, Any]) -> bool | None:
    """Whether a proof found the backup in order; None where it could not tell. That it took longer, or is older, than
    is promised speaks against the promise."""
    if body["exit"] == Exit.DONE:
        return True
    found = {each["id"]: each["status"] for each in body.get("findings", ())}
    bad = {name for name, status in found.items() if status == Status.CRITICAL.name}
    if not found or bad - _TIMES:
        return False
    return None if Status.UNKNOWN.name in found.values() else True


def maker(context: Context, kind: str, name: str, at: datetime) -> str:
    """The run that has sealed an action of this kind and name as done, and was at work at a time; '' where none was. Of
    several the last that began: one that was killed and resumed finds done what another did meanwhile."""
    found = [each.body for each in Archive(context.history.store).bodies(kind="run")]
    mine = [
        body
        for body in found
        if body["target"]["target"] == context.target.name
        and any((a["kind"], a["name"], a["state"]) == (kind, name, "changed") for a in body["actions"])
        and datetime.fromisoformat(body["started"]) - _SECOND <= at <= datetime.fromisoformat(body["ended"])
    ]
    return str(max(mine, key=lambda body: str(body["started"]))["run"]) if mine else ""


def _name(runbook: str) -> str:
    return f"proof.{runbook}"
