"""Approvals that stand: for whom, on what, until when."""

from datetime import date

import pytest

from aiprod_ops.domain.approvals import StandingApproval, standing
from aiprod_ops.errors import NotApproved

TODAY = date(2026, 11, 28)


def until(day: date, target: str = "production", runbook: str = "take-backup") -> StandingApproval:
    return StandingApproval(runbook, target, day, "ana", "OPS-7")


def test_it_counts_until_the_end_of_its_day() -> None:
    assert standing([until(TODAY)], "take-backup", "low", "production", TODAY) == until(TODAY)


def test_of_several_the_longest_counts() -> None:
    longest = until(date(2027, 3, 1))
    assert standing([longest, until(TODAY)], "take-backup", "moderate", "production", TODAY) == longest


@pytest.mark.parametrize(
    ("approval", "risk", "says"),
    [
        (until(date(2026, 11, 27)), "low", "has expired"),
        (until(date(2027, 11, 30)), "low", "stands for more than 366 days"),
        (until(TODAY, target="lab"), "low", "no standing approval names take-backup on production"),
        (until(TODAY, target="*"), "low", "no standing approval names take-backup on production"),
        (until(TODAY, runbook="prune-backups"), "low", "no standing approval names"),
        (until(TODAY), "severe", "nothing but a person approves it"),
    ],
)
def test_everything_else_is_not_approved(approval: StandingApproval, risk: str, says: str) -> None:
    with pytest.raises(NotApproved, match=says):
        standing([approval], "take-backup", risk, "production", TODAY)
