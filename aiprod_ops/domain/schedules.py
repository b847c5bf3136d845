"""What runs when: the jobs that follow from the runbooks' intervals, whoever starts them."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from aiprod_ops.domain.calendars import MINUTE, Calendar, calendar
from aiprod_ops.errors import UsageError
from aiprod_ops.units import Seconds, show

PROGRAM = "aiprod-ops"
NOUNS = {"prove": "proof"}
_LONGEST_NAME = 52  #: of a Kubernetes CronJob: eleven more are added for its jobs, and 63 is the most


@dataclass(frozen=True, slots=True)
class Interval:
    """A runbook's wish: `work` (check, prove, run or drill) every so many seconds. `alert` is the alert that leads to
    its page. `on_evidence` says that it leaves evidence, or judges what others left, `on_backups` that it
    reads or writes stored backups."""

    runbook: str
    work: str
    every: Seconds
    alert: str = ""
    on_evidence: bool = False
    on_backups: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The instance that is worked on. `variables` are the environment variables that hold its DSNs."""

    target: str
    environment: str
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What `service.toml` says of scheduled work: how late it may be, and how long it may take."""

    slack: Seconds
    longest: Seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of scheduled work. `words` follow the program's name; they hold no secret.

    It starts `offset` seconds after the beginning of each interval, on each machine up to `spread` seconds later, and
    is stopped after `deadline` seconds, before the next one begins. `calendar` is None where no calendar can say the
    interval. `late_after` is how old its last success may be.
    """

    name: str
    wish: Interval
    place: Place
    words: tuple[str, ...]
    offset: Seconds
    spread: Seconds
    deadline: Seconds
    calendar: Calendar | None
    late_after: Seconds

    @property
    def noun(self) -> str:
        """Its work as a thing: what its metrics are named after."""
        return NOUNS.get(self.wish.work, self.wish.work)

    @property
    def title(self) -> str:
        return f"{self.wish.work} {self.wish.runbook} on {self.place.target}"

    def counted_by(self, scheduler: str) -> Calendar:
        """Its calendar, for a scheduler that knows nothing else; raises UsageError where there is none."""
        if self.calendar is None:
            raise UsageError(
                f"{self.wish.runbook} wants its {self.wish.work} every {show(self.wish.every, 's')}, which {scheduler} "
                "cannot say: it counts minutes that divide an hour, hours that divide a day, 1 to 7 days, and months",
                hint="choose such an interval in the runbook, or --format systemd",
            )
        return self.calendar


def jobs(wishes: Iterable[Interval], places: Iterable[Place], terms: Terms, options: tuple[str, ...] = ()) -> list[Job]:
    """A job for each wish on each place, in the order of their names. `options` end each command line."""
    made = [_job(wish, place, terms, options) for place in places for wish in wishes]
    return sorted(made, key=lambda job: job.name)


def _job(wish: Interval, place: Place, terms: Terms, options: tuple[str, ...]) -> Job:
    approval = ("--standing",) if wish.work == "run" else ()
    name = name_of(f"{PROGRAM}-{wish.work}-{wish.runbook}-{place.target}", _LONGEST_NAME)
    offset = offset_of(name, wish.every)
    when = calendar(wish.every, offset)
    return Job(
        name=name,
        wish=wish,
        place=place,
        words=(wish.work, wish.runbook, *approval, "--target", place.target, *options),
        offset=offset,
        spread=Seconds(min(wish.every // 20, 10 * MINUTE)),
        deadline=Seconds(min(wish.every * 3 // 4, terms.longest)),
        calendar=when,
        late_after=late_after(when.longest if when else wish.every, terms.slack),
    )


def late_after(gap: Seconds, slack: Seconds) -> Seconds:
    """How old the last success may be: the longest time between two runs, and a slack of at most as much again.

    >>> late_after(Seconds(DAY), Seconds(2 * HOUR)) / HOUR, late_after(Seconds(300), Seconds(2 * HOUR)) / MINUTE
    (26.0, 10.0)
    """
    return Seconds(gap + min(slack, gap))


def offset_of(name: str, interval: Seconds) -> Seconds:
    """Whole minutes from the name alone: the same on every machine and in every version, another for each job."""
    minutes = max(1, int(interval // MINUTE))
    return Seconds(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % minutes * MINUTE)


def name_of(text: str, longest: int) -> str:
    """A name that systemd, Kubernetes and Google accept: lower case, digits, hyphens; what was changed gets a digest.

    >>> name_of("aiprod-ops-check-a-lab", 52), name_of("aiprod@db:5432", 52)
    ('aiprod-ops-check-a-lab', 'aiprod-db-5432-348ec0')
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text and len(plain) <= longest:
        return plain
    return f"{plain[: longest - 7].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
