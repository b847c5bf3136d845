"""Approvals that stand: a runbook may act on a target by itself, until a day, because somebody said so, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from aiprod_ops.errors import NotApproved

LONGEST = timedelta(days=366)  #: from the day it is used: what stands longer is looked at by nobody


@dataclass(frozen=True, slots=True)
class StandingApproval:
    """Of one runbook on one target: there is no pattern, and none for severe ones. It counts until the end of a day
    (UTC)."""

    runbook: str
    target: str
    until: date
    by: str
    reason: str

    def __str__(self) -> str:
        return f"standing approval of {self.by} until {self.until}: {self.reason}"


def standing(
    approvals: Iterable[StandingApproval], runbook: str, risk: str, target: str, today: date
) -> StandingApproval:
    """The approval that covers this runbook on this target today. Raises NotApproved where there is none."""
    if risk == "severe":
        raise NotApproved(
            f"{runbook} is severe: nothing but a person approves it, each time",
            hint=f"aiprod-ops plan {runbook}",
        )
    named = [each for each in approvals if (each.runbook, each.target) == (runbook, target)]
    if not named:
        raise NotApproved(
            f"no standing approval names {runbook} on {target}",
            hint=f"add [[standing_approvals]] to the configuration, or: aiprod-ops plan {runbook}",
        )
    last = max(named, key=lambda each: each.until)
    if last.until < today:
        raise NotApproved(f"the {last} has expired", hint="look whether it is still right, then give it another day")
    if last.until > today + LONGEST:
        raise NotApproved(f"the {last} stands for more than {LONGEST.days} days", hint="name a day within a year")
    return last
