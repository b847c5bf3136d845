"""Which deliveries of webhooks are sent again, in which order and in which waves; what became of them. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from aiprod_ops.units import Ratio, Seconds, show

TENTH = Ratio(0.1)  #: of each endpoint's deliveries, before all of them
#: Fewer say nothing of an endpoint while a wave is under way; and it is disabled itself after so many in a row.
LEAST_SENT = 10
AGES = (Seconds(3600), Seconds(6 * 3600), Seconds(86_400))  #: where one age of failures ends and the next begins
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """A delivery that has ended. `host` is all that is shown of the endpoint's URL: its path may be a secret. `why` is
    what the last attempt met: `HTTP 503`, `timeout`; '' of one that was delivered."""

    id: str
    endpoint: str
    host: str
    event: str  #: its type
    state: str  #: delivered or failed
    created_at: datetime
    ended_at: datetime
    why: str = ""
    disabled: str = ""  #: why its endpoint is: failing, gone or owner; nothing is sent to it

    @property
    def is_enabled(self) -> bool:
        return not self.disabled

    @property
    def counts(self) -> bool:
        """Whether its owner wants it: the endpoint is enabled, or disabled only because it failed."""
        return self.disabled in ("", "failing")

    def __str__(self) -> str:
        return f"{self.event} of {self.created_at:%Y-%m-%d %H:%M} UTC to {self.host}, {self.why or self.state}"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be sent to endpoints that are enabled; the oldest that nobody has taken goes to `host`, and is due
    for `oldest`. `held` wait for endpoints that are disabled. Of all that came into being within a time for endpoints
    that are enabled or failed, how many have failed, how many were delivered, and how long ago the last of them ended.
    """

    waiting: int
    due: int
    taken: int
    oldest: Seconds
    host: str
    failed: int
    delivered: int
    last: Seconds | None
    held: int = 0

    def is_still(self, patience: Seconds) -> bool:
        """Whether nobody sends: something is due for longer than that, nothing is being sent, and nothing was lately. A
        single endpoint that is slow, or wants few a second, has old ones that are due, too."""
        return self.oldest > patience and not self.taken and (self.last is None or self.last > patience)

    @property
    def failing(self) -> Ratio:
        """Share of what has ended."""
        ended = self.failed + self.delivered
        return Ratio(self.failed / ended) if ended else Ratio(0.0)


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that nothing is sent to."""

    id: str
    host: str
    why: str
    since: datetime | None

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M} UTC" if self.since else ""
        return f"{self.host} ({self.id}){since}{f': {self.why}' if self.why else ''}"


@dataclass(frozen=True, slots=True)
class Wave:
    """Deliveries that are made due together, in this order, so many a second.

    Each is meant as it had ended by `moment`: one that ended again since, or waits to be sent, has moved and is left
    alone. What is sent is watched: of an endpoint that takes less than `success` of it, no more is sent. Where nothing
    is sent for `patience` though it is due, nobody sends.
    """

    number: int
    of: int
    moment: datetime
    rate: float  #: deliveries a second
    patience: Seconds
    success: Ratio
    deliveries: tuple[str, ...]
    tried: tuple[str, ...]  #: those of the waves before
    hosts: dict[str, int]  #: how many go to each
    samples: tuple[str, ...]

    def __str__(self) -> str:
        return f"wave {self.number} of {self.of}, {deliveries(len(self.deliveries))}"

    @property
    def lasts(self) -> Seconds:
        """From the first that is due to the last."""
        return Seconds(len(self.deliveries) / self.rate)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of the deliveries of one endpoint since they were planned: `sent` at least once, of these `delivered`
    and `failed`, which have ended; `unsent` wait for it, the first of them for `overdue` seconds."""

    endpoint: str
    host: str
    planned: int
    sent: int
    delivered: int
    failed: int
    unsent: int
    overdue: Seconds

    @property
    def ended(self) -> int:
        return self.delivered + self.failed

    @property
    def success(self) -> Ratio:
        """Share of what was sent that was delivered; of nothing, all."""
        return Ratio(self.delivered / self.sent) if self.sent else Ratio(1.0)


def deliveries(count: int) -> str:
    """
    >>> deliveries(1), deliveries(1_200)
    ('1 delivery', '1,200 deliveries')
    """
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def chosen(ended: Iterable[Ended], moment: datetime, since: Seconds) -> list[Ended]:
    """Those that may be sent again, oldest first: they had ended by the moment, came into being no longer than `since`
    before it, and their endpoint is enabled."""
    first = moment - timedelta(seconds=since)
    may = [each for each in ended if each.ended_at <= moment and each.created_at > first and each.is_enabled]
    return sorted(may, key=_age)


def in_waves(deliveries: Sequence[Ended]) -> list[tuple[Ended, ...]]:
    """The oldest of each endpoint; then, of each, up to a tenth; then the rest. Oldest first in each wave, and none is
    empty.

    So every endpoint is tried with one delivery before it gets more: whether the others take theirs does not tell
    anything of it. Source of the steps: Google, "Site Reliability Workbook", "Canarying Releases".
    """
    places = Counter[str]()
    totals = Counter(each.endpoint for each in deliveries)
    waves: tuple[list[Ended], ...] = ([], [], [])
    for each in sorted(deliveries, key=_age):
        place, tenth = places[each.endpoint], ceil(TENTH * totals[each.endpoint])
        waves[0 if place == 0 else 1 if place < tenth else 2].append(each)
        places[each.endpoint] += 1
    return [tuple(wave) for wave in waves if wave]


def _age(delivery: Ended) -> str:
    """Ids are UUIDs of version 7: their order is that in which the deliveries came into being."""
    return delivery.id


def planned(
    deliveries: Sequence[Ended], moment: datetime, rate: float, patience: Seconds, success: Ratio
) -> list[Wave]:
    """The waves of these deliveries, as they are written into a plan."""
    waves = in_waves(deliveries)
    return [
        Wave(
            number,
            len(waves),
            moment,
            rate,
            patience,
            success,
            tuple(each.id for each in wave),
            tuple(each.id for before in waves[: number - 1] for each in before),
            dict(sorted(Counter(each.host for each in wave).items())),
            tuple(map(str, wave[:_SAMPLES])),
        )
        for number, wave in enumerate(waves, start=1)
    ]


def refusing(became: Iterable[Replayed], success: Ratio, least: int = 1) -> list[Replayed]:
    """Endpoints that were sent at least so many, and take less than this share of them."""
    return [each for each in became if each.sent >= least and each.success < success]


def by_why(deliveries: Iterable[Ended]) -> str:
    """How many failed for which reason, the most frequent first.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> by_why([Ended(str(n), "e", "h", "job.failed", "failed", noon, noon, why) for n, why in enumerate("aba")])
    'a: 2, b: 1'
    """
    found = Counter(each.why or each.state for each in deliveries)
    return ", ".join(f"{why}: {count:,}" for why, count in sorted(found.items(), key=lambda item: (-item[1], item[0])))


def by_age(deliveries: Iterable[Ended], now: datetime) -> str:
    """How many ended how long ago, the latest first."""
    told, rest = [], [each.ended_at for each in deliveries]
    for age in AGES:
        younger = [at for at in rest if now - at <= timedelta(seconds=age)]
        rest = [at for at in rest if now - at > timedelta(seconds=age)]
        told += [f"within {show(age, 's')}: {len(younger):,}"] if younger else []
    return ", ".join([*told, *([f"older: {len(rest):,}"] if rest else [])])
