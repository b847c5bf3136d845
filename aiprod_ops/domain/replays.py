"""Which deliveries of webhooks are sent again, in which order and in which waves; what became of them. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from aiprod_ops.units import Ratio, Seconds, show

TENTH = Ratio(0.1)  #: of each endpoint's deliveries, before all of them
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
    ended_at: datetime
    why: str = ""
    is_enabled: bool = True  #: whether its endpoint is: to one that is not, nothing is sent

    def __str__(self) -> str:
        return f"{self.event} to {self.host}, {self.why or self.state} at {self.ended_at:%Y-%m-%d %H:%M} UTC"


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
    hosts: dict[str, int]  #: how many go to each
    samples: tuple[str, ...]

    def __str__(self) -> str:
        return f"wave {self.number} of {self.of}: {len(self.deliveries)} to {len(self.hosts)} hosts"

    @property
    def lasts(self) -> Seconds:
        """From the first that is due to the last."""
        return Seconds(len(self.deliveries) / self.rate)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of the deliveries of one endpoint since they were planned: `sent` at least once, of these `delivered`;
    `failed` those that ended without; `left` those that stay as they had ended."""

    endpoint: str
    host: str
    planned: int
    sent: int
    delivered: int
    failed: int
    left: int

    @property
    def success(self) -> Ratio:
        """Share of what was sent that was delivered; of nothing, all."""
        return Ratio(self.delivered / self.sent) if self.sent else Ratio(1.0)


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
            dict(sorted(Counter(each.host for each in wave).items())),
            tuple(map(str, wave[:_SAMPLES])),
        )
        for number, wave in enumerate(waves, start=1)
    ]


def by_why(deliveries: Iterable[Ended]) -> str:
    """How many failed for which reason, the most frequent first.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> by_why([Ended(str(n), "e", "h", "job.failed", "failed", noon, why) for n, why in enumerate("aba")])
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
