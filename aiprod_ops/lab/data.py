"""AIPROD's data, made up: the same rows for the same seed, as pieces for a binary COPY.

Chunks are independent of each other and of the process that makes them: what two tables must agree on (which jobs are
complete, their ids and times) is computed from the row's number. A million rows take seconds, so what is random is
drawn once into pools, and a chunk takes slices of them from random places.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from itertools import accumulate, compress
from random import Random
from struct import pack
from typing import TypeVar
from uuid import UUID

from aiprod_ops.lab.binary import HEADER, NULL, TRAILER, records, smallint, text, times, uuids

STATUSES = ("completed", "failed", "queued", "processing", "cancelled")
PRIORITIES = ("low", "normal", "high", "urgent")
PRESETS = ("quick_social", "brand_campaign", "premium_spot")
LANGUAGES = ("en", "fr", "es", "de", "it", "pt", "ja", "zh", "ko")
STAGES = ("analysis", "storyboard", "generation", "assembly", "quality_check")
TIERS = ("free", "pro", "enterprise", "premium")
FIELDS = {"users": 5, "api_keys": 6, "jobs": 12, "results": 8, "pipeline_jobs": 8}
TABLES = tuple(FIELDS)

CHUNK = 10_000
POOL = 1 << 15
VARIANTS = 4973  #: a prime: what is drawn by number does not follow any other column
SPAN_SECONDS = 180 * 86_400
LONGEST_SECONDS = 400  #: from a job's creation to its end
NEW = 0.95  #: jobs after this part of the span may still be waiting; older ones are finished
OLD_WEIGHTS = (96, 3, 0, 0, 1)
NEW_WEIGHTS = (36, 3, 40, 20, 1)
ERRORS = ("provider timed out after 3 attempts", "moderation: prompt refused", "render node lost", "quota exceeded")


@dataclass(frozen=True)
class Scale:
    """How much there is: everything follows from the number of jobs. `until` is the time of the newest one."""

    jobs: int
    until: datetime
    seed: int = 2026

    @property
    def users(self) -> int:
        return max(10, self.jobs // 50)

    @cached_property
    def start(self) -> int:
        """Second of the first job, since 1970."""
        return int(self.until.timestamp()) - SPAN_SECONDS

    def created(self, number: int) -> int:
        """Second in which a job was created, since 1970."""
        return self.start + SPAN_SECONDS * (number + 1) // self.jobs


def uuid(second: int, number: int, kind: int) -> int:
    """A UUID of version 7: ordered by time, so that a primary key grows at its right end. Source: RFC 9562, 5.7."""
    return second * 1000 + number % 1000 << 80 | _tails(kind)[number % POOL]


@cache
def _tails(kind: int) -> list[int]:
    """The lower 80 bits: version, a counter, variant, and what is random."""
    random = Random(kind)
    return [7 << 76 | (n & 0xFFF) << 64 | 1 << 63 | random.getrandbits(62) for n in range(POOL)]


def job_id(scale: Scale, number: int) -> str:
    """Id of a job."""
    return str(UUID(int=uuid(scale.created(number), number, 1)))


def user_id(number: int) -> str:
    """Id of a user. Low numbers have most jobs."""
    return str(UUID(int=_user(number)))


def _user(number: int) -> int:
    return uuid(1_700_000_000 + number * 613 % 50_000_000, number, 2)


def user_weights(users: int) -> list[float]:
    """Cumulated share of the jobs by user: a few have most of them (Zipf's law, flattened at the top)."""
    return list(accumulate(1 / (rank + 10) ** 0.9 for rank in range(users)))


def pick_user(random: Random, weights: list[float]) -> str:
    """A user, as often as their jobs."""
    return user_id(min(bisect(weights, random.random() * weights[-1]), len(weights) - 1))


def pieces(table: str, scale: Scale) -> Iterator[bytes]:
    """All rows of a table in COPY's binary format, a chunk at a time."""
    yield HEADER
    for columns in _tables()[table](scale):
        yield records(FIELDS[table], columns)
    yield TRAILER


_Columns = Sequence[Sequence[bytes]]
_Value = TypeVar("_Value")


def _tables() -> dict[str, Callable[[Scale], Iterator[_Columns]]]:
    return {
        "users": _users,
        "api_keys": _api_keys,
        "jobs": _jobs,
        "results": _results,
        "pipeline_jobs": _pipeline_jobs,
    }


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some jobs, and what each table has to know of them: numbers, when they began and end, and their statuses."""

    random: Random
    numbers: range
    began: list[int]
    ended: list[int]
    statuses: list[str]

    def ids(self) -> list[int]:
        return _uuids(self.numbers, self.began, 1)


def _chunks(scale: Scale) -> Iterator[_Chunk]:
    pools = Random(scale.seed)
    old = pools.choices(STATUSES, weights=OLD_WEIGHTS, k=POOL)
    new = pools.choices(STATUSES, weights=NEW_WEIGHTS, k=POOL)
    start, jobs, last = scale.start, scale.jobs, int(scale.until.timestamp())
    for first in range(0, jobs, CHUNK):
        random = Random(scale.seed * 1_000_003 + first)
        numbers = range(first, min(jobs, first + CHUNK))
        began = [start + SPAN_SECONDS * (n + 1) // jobs for n in numbers]
        took = [40 + n * 7919 % (LONGEST_SECONDS - 40) for n in numbers]
        ended = [min(last, second + long) for second, long in zip(began, took, strict=True)]  # none in the future
        finished = max(0, min(len(numbers), int(jobs * NEW) - first))
        statuses = _slice(random, old, finished) + _slice(random, new, len(numbers) - finished)
        yield _Chunk(random, numbers, began, ended, statuses)


def _slice(random: Random, pool: list[_Value], count: int) -> list[_Value]:
    """So many values of a pool, from a random place."""
    first = random.randrange(len(pool) - CHUNK)
    return pool[first : first + count]


def _uuids(numbers: Sequence[int], seconds: Sequence[int], kind: int) -> list[int]:
    """What `uuid` makes of each pair, without a million calls."""
    tails = _tails(kind)
    return [second * 1000 + n % 1000 << 80 | tails[n % POOL] for n, second in zip(numbers, seconds, strict=True)]


def _users(scale: Scale) -> Iterator[_Columns]:
    random, numbers = Random(scale.seed), range(scale.users)
    yield (
        uuids(map(_user, numbers)),
        [text(f"user{n}@example.org") + text(f"User {n}") for n in numbers],
        [text(tier) for tier in random.choices(TIERS, weights=(70, 20, 7, 3), k=scale.users)],
        times((scale.start - n % 8760 * 3600 for n in numbers), 1),
    )


def _api_keys(scale: Scale) -> Iterator[_Columns]:
    random, numbers = Random(scale.seed + 1), range(0, scale.users, 2)
    yield (
        uuids(uuid(scale.start, n, 3) for n in numbers),
        uuids(map(_user, numbers)),
        [text(random.randbytes(32).hex()) + text("default") for _ in numbers],
        times((scale.start for _ in numbers), 2),
        [NULL for _ in numbers],
    )


def _jobs(scale: Scale) -> Iterator[_Columns]:
    """Users by Zipf's law, the rest by the weights of a normal day."""
    random = Random(scale.seed)
    names = uuids(map(_user, range(scale.users)))
    users = random.choices(names, cum_weights=user_weights(scale.users), k=4 * POOL)
    orders = [
        b"".join(map(text, order))
        for order in zip(
            random.choices(PRIORITIES, weights=(15, 65, 15, 5), k=POOL),
            random.choices(PRESETS, weights=(60, 30, 10), k=POOL),
            random.choices(LANGUAGES, weights=(50, 12, 10, 8, 5, 5, 4, 4, 2), k=POOL),
            random.choices(_prompts(random), k=POOL),
            strict=True,
        )
    ]
    status_fields = {status: text(status) for status in STATUSES}
    failures, success = [smallint(3) + text(error) for error in ERRORS], smallint(1) + NULL
    for chunk in _chunks(scale):
        count = len(chunk.numbers)
        began, ended = times(chunk.began, 1), times(chunk.ended, 8)
        is_open = [status in ("queued", "processing") for status in chunk.statuses]
        yield (
            uuids(chunk.ids()),
            _slice(chunk.random, users, count),
            [status_fields[status] for status in chunk.statuses],
            _slice(chunk.random, orders, count),
            [failures[n % 4] if status == "failed" else success for n, status in enumerate(chunk.statuses)],
            began,
            # Of a job that waits, the last change is its creation, and it has no end.
            [a + NULL if waits else b + b for a, b, waits in zip(began, ended, is_open, strict=True)],
        )


def _results(scale: Scale) -> Iterator[_Columns]:
    links = text(f"https://cdn.example.org/videos/{'0' * 32}/final_1080p.mp4")
    links += text(f"https://cdn.example.org/thumbnails/{'0' * 32}.jpg")
    links = links.replace(b"0" * 32, b"%032x")
    # Seconds, bytes and quality of a video, each with its length before it.
    figures = [
        pack(">iiiqif", 4, 15 + n % 46, 8, 4_000_000 + n * 7919 % 90_000_000, 4, 0.5 + n * 31 % 50 / 100)
        for n in range(VARIANTS)
    ]
    for chunk in _chunks(scale):
        is_done = [status == "completed" for status in chunk.statuses]
        numbers, ended = list(compress(chunk.numbers, is_done)), list(compress(chunk.ended, is_done))
        ids = _uuids(numbers, ended, 4)
        yield (
            uuids(ids),
            uuids(compress(chunk.ids(), is_done)),
            [links % (name, name) for name in ids],
            [figures[n % VARIANTS] for n in numbers],
            times(ended, 8),
        )


def _pipeline_jobs(scale: Scale) -> Iterator[_Columns]:
    parameters = '{"model": "veo-3", "resolution": "1080p", "seed": %d, "steps": %d}'
    work = [
        text(STAGES[n % 5]) + text(f"worker-{n * 31 % 24:02d}") + text(parameters % (n * 7919, 20 + n % 30))
        for n in range(VARIANTS)
    ]
    status_fields = {status: text(status) for status in STATUSES}
    for chunk in _chunks(scale):
        part = [n % 10 < 3 for n in chunk.numbers]
        numbers, began, ended = (list(compress(column, part)) for column in (chunk.numbers, chunk.began, chunk.ended))
        started = [second + 2 for second in began]
        yield (
            uuids(_uuids(numbers, started, 5)),
            uuids(_uuids(numbers, began, 1)),
            [status_fields[status] for status in compress(chunk.statuses, part)],
            [work[n % VARIANTS] for n in numbers],
            times(started, 4),
            times(ended, 6),
        )


SUBJECTS = ("a ceramic coffee cup", "running shoes on wet asphalt", "a mountain cabin at dawn", "an electric city car")
MOODS = ("warm and calm", "bold, quick cuts", "cinematic, slow motion", "playful, hand-drawn", "elegant, monochrome")
CAMERAS = ("one continuous dolly shot", "close-ups with a shallow depth of field", "an aerial opening, then eye level")
DETAILS = (
    "Show the product within the first two seconds and keep the logo clear of the lower third.",
    "The voice-over is a woman in her forties; leave room for a call to action at the end.",
    "Use natural light, no text on screen, and end on the brand colour.",
    "Cut a square version for feeds; the music builds up until the last scene.",
    "Avoid faces; hands may be shown. Season: late autumn, light rain.",
)


def _prompts(random: Random) -> list[str]:
    """Briefs as customers write them: 90 to 420 characters."""
    return [
        f"A {random.choice((15, 30, 45, 60))} second spot about {random.choice(SUBJECTS)}: {random.choice(MOODS)}, "
        f"{random.choice(CAMERAS)}. {' '.join(random.sample(DETAILS, random.randint(0, 4)))}"
        for _ in range(4096)
    ]
