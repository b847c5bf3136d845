"""Intervals as the calendars of schedulers can say them: minutes of an hour, hours of a day, days, weeks, months.

A calendar starts again at each hour, day or month: what does not divide that stretch cannot be said in it.
"""

from dataclasses import dataclass
from enum import Enum

from aiprod_ops.units import Seconds

MINUTE, HOUR, DAY = 60, 3600, 86400
_MONTHS = {1: (28, 31), 3: (89, 92), 6: (181, 184), 12: (365, 366)}  #: months: (shortest, longest) in days
_FEW_DAYS = range(2, 7)
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


class Every(Enum):
    """What a calendar counts."""

    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    WEEKS = "weeks"
    MONTHS = "months"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Every `step` of `every`, at a minute, hour, weekday (0 is Sunday), day and month of its own; UTC.

    `longest` is the longest time between two of its moments; `note` says where it is not the interval asked for.
    """

    every: Every
    step: int
    minute: int
    hour: int = 0
    weekday: int = 0
    day: int = 1
    month: int = 1
    longest: Seconds = Seconds(0)
    note: str = ""

    @property
    def cron(self) -> str:
        """The five fields of crontab(5).

        >>> calendar(Seconds(6 * HOUR), Seconds(4 * HOUR + 17 * MINUTE)).cron
        '17 4-23/6 * * *'
        """
        minute, hour = str(self.minute), str(self.hour)
        match self.every:
            case Every.MINUTES:
                return f"{self.minute}-59/{self.step} * * * *"
            case Every.HOURS:
                return f"{minute} * * * *" if self.step == 1 else f"{minute} {hour}-23/{self.step} * * *"
            case Every.DAYS:
                return f"{minute} {hour} * * *" if self.step == 1 else f"{minute} {hour} 1-31/{self.step} * *"
            case Every.WEEKS:
                return f"{minute} {hour} * * {self.weekday}"
            case Every.MONTHS:
                months = "*" if self.step == 1 else ",".join(map(str, self._months))
                return f"{minute} {hour} {self.day} {months} *"

    @property
    def systemd(self) -> str:
        """A calendar event of systemd.time(7).

        >>> calendar(Seconds(DAY), Seconds(4 * HOUR + 17 * MINUTE)).systemd
        '*-*-* 04:17:00 UTC'
        """
        at = f"{self.hour:02}:{self.minute:02}:00 UTC"
        match self.every:
            case Every.MINUTES:
                return f"*-*-* *:{self.minute:02}/{self.step}:00 UTC"
            case Every.HOURS:
                hours = "*" if self.step == 1 else f"{self.hour:02}/{self.step}"
                return f"*-*-* {hours}:{self.minute:02}:00 UTC"
            case Every.DAYS:
                return f"*-*-* {at}" if self.step == 1 else f"*-*-01/{self.step} {at}"
            case Every.WEEKS:
                return f"{WEEKDAYS[self.weekday]} *-*-* {at}"
            case Every.MONTHS:
                months = "*" if self.step == 1 else ",".join(f"{month:02}" for month in self._months)
                return f"*-{months}-{self.day:02} {at}"

    @property
    def _months(self) -> list[int]:
        return list(range(self.month, 13, self.step))


def calendar(interval: Seconds, offset: Seconds) -> Calendar | None:
    """The calendar of an interval, `offset` seconds after its beginning; None where no calendar can say it.

    >>> calendar(Seconds(36 * HOUR), Seconds(0)) is None
    True
    >>> monthly = calendar(Seconds(30 * DAY), Seconds(0))
    >>> monthly.cron, monthly.longest / DAY
    ('0 0 1 * *', 31.0)
    """
    minutes = int(offset // MINUTE)
    minute, hour, days = minutes % 60, minutes // 60 % 24, minutes // (24 * 60)
    for unit, whole, every in ((MINUTE, HOUR, Every.MINUTES), (HOUR, DAY, Every.HOURS)):
        if unit <= interval < whole and interval % unit == 0 and whole % interval == 0:
            return Calendar(every, int(interval // unit), minute, hour, longest=interval)
    if interval / DAY == 1:
        return Calendar(Every.DAYS, 1, minute, hour, longest=interval)
    if interval / DAY == 7:
        return Calendar(Every.WEEKS, 1, minute, hour, weekday=days % 7, longest=interval)
    if interval % DAY == 0 and interval // DAY in _FEW_DAYS:
        step = int(interval // DAY)
        note = f"counted from the first of each month: at its end the {step} days are fewer"
        return Calendar(Every.DAYS, step, minute, hour, longest=interval, note=note)
    for months, (shortest, longest) in _MONTHS.items():
        if shortest <= interval / DAY <= longest:
            note = f"a calendar counts months: {shortest} to {longest} days"
            return Calendar(
                Every.MONTHS, months, minute, hour, day=1 + days % 28, month=1 + days // 28 % months,
                longest=Seconds(longest * DAY), note=note,
            )  # fmt: skip
    return None
