"""What a user's tier allows, and what a job costs. Pure; the values are those of `service.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from aiprod_ops.domain.quotas import Quota
from aiprod_ops.units import Seconds

MINUTE, DAY = Seconds(60), Seconds(86_400)
#: Shares of the month's cost units at which a user is told. Source: the seeds, "quota warnings".
WARNINGS_PERCENT = (80, 100)


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of one tier. Cost units are whole, so that sums of them are exact."""

    name: str
    requests_per_minute: int
    requests_per_day: int
    concurrent_jobs: int
    batch_size: int  #: jobs in one submission
    monthly_cost_units: int

    @property
    def quotas(self) -> tuple[Quota, Quota]:
        """Of requests. Each of them holds for itself, in any window."""
        return (
            Quota("minute", self.requests_per_minute, MINUTE),
            Quota("day", self.requests_per_day, DAY),
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost units of one second of video, by preset."""

    per_second: Mapping[str, int]

    def cost_units(self, preset: str, seconds: int) -> int:
        """Of a job. Raises ValueError for a preset that has no price, and for a negative duration.

        >>> Prices({"quick_social": 2}).cost_units("quick_social", 15)
        30
        """
        if preset not in self.per_second or seconds < 0:
            known = ", ".join(self.per_second)
            raise ValueError(f"{seconds} s of {preset!r} have no price, expected 0 s or more of one of: {known}")
        return self.per_second[preset] * seconds


def month_of(moment: datetime) -> date:
    """First day of the UTC month. Raises ValueError where the moment has no time zone.

    >>> month_of(datetime.fromisoformat("2026-12-01T00:30:00+01:00"))
    datetime.date(2026, 11, 1)
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone: its month is not known")
    return moment.astimezone(UTC).date().replace(day=1)


def month_after(month: date) -> date:
    """First day of the next month.

    >>> month_after(date(2026, 12, 1))
    datetime.date(2027, 1, 1)
    """
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def crossed(before: int, after: int, monthly_cost_units: int) -> tuple[int, ...]:
    """Percentages of the month's cost units that were reached between two sums, lowest first.

    >>> crossed(79, 80, 100), crossed(80, 81, 100), crossed(0, 250, 100)
    ((80,), (), (80, 100))
    """
    return tuple(percent for percent in WARNINGS_PERCENT if before * 100 < percent * monthly_cost_units <= after * 100)
