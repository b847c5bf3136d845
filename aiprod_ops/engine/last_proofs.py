"""What the last proofs from stored backups said: kept for a runbook's own checks, and for the day when the target is
lost."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Exit

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


def verified_backups(context: Context, runbook: str = "test-backup") -> tuple[str, ...]:
    """Ids of the stored backups of this target whose last proof found them in order, the oldest proof first."""
    return tuple(name for name, is_good in _said_of_each(context, runbook).items() if is_good)


def disproved_backups(context: Context, runbook: str = "test-backup") -> tuple[str, ...]:
    """Ids of the stored backups of this target whose last proof failed, the oldest proof first."""
    return tuple(name for name, is_good in _said_of_each(context, runbook).items() if name and not is_good)


def _said_of_each(context: Context, runbook: str) -> dict[str, bool]:
    """Whether the last proof of each backup held. From sealed evidence alone, which is neither thinned nor ends: what
    was altered counts for nothing."""
    found = Archive(context.history.store).bodies(kind="prove", runbook=runbook)
    ours = [each.body for each in reversed(found) if each.body["target"]["target"] == context.target.name]
    last: dict[str, bool] = {}
    for each in ours:
        name = str(each["copy"]["backup"])
        last.pop(name, None)
        last[name] = each["exit"] == Exit.DONE
    return last


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
