"""AIPROD's data, made up: the same rows for the same seed, as lines for COPY, a chunk at a time.

Chunks are independent of each other and of the process that makes them: what two tables must agree on (which jobs are
complete, their ids and times) is computed from the row's number. A million rows take seconds, so what is random is
drawn once into pools, and a chunk takes slices of them from random places.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from itertools import accumulate
from random import Random

STATUSES = ("completed", "failed", "queued", "processing", "cancelled")
PRIORITIES = ("low", "normal", "high", "urgent")
PRESETS = ("quick_social", "brand_campaign", "premium_spot")
LANGUAGES = ("en", "fr", "es", "de", "it", "pt", "ja", "zh", "ko")
STAGES = ("analysis", "storyboard", "generation", "assembly", "quality_check")
TIERS = ("free", "pro", "enterprise", "premium")
TABLES = ("users", "api_keys", "jobs", "results", "pipeline_jobs")

CHUNK = 10_000
POOL = 1 << 16
SPAN_SECONDS = 180 * 86_400
LONGEST_SECONDS = 400  #: from a job's creation to its end
NEW = 0.95  #: jobs after this part of the span may still be waiting; older ones are finished
OLD_WEIGHTS = (96, 3, 0, 0, 1)
NEW_WEIGHTS = (36, 3, 40, 20, 1)
ERRORS = ("provider timed out after 3 attempts", "moderation: prompt refused", "render node lost", "quota exceeded")
NULL = r"\N"


@dataclass(frozen=True)
class Scale:
    """How much there is: everything follows from the number of jobs. `until` is the time of the newest one."""

    jobs: int
    until: datetime
    seed: int = 2026

    @property
    def users(self) -> int:
        return max(10, self.jobs // 50)

    @property
    def chunks(self) -> range:
        return range(-(-self.jobs // CHUNK))

    @cached_property
    def start(self) -> int:
        """Second of the first job, since 1970."""
        return int(self.until.timestamp()) - SPAN_SECONDS

    def created(self, number: int) -> int:
        """Second in which a job was created, since 1970."""
        return self.start + SPAN_SECONDS * (number + 1) // self.jobs


def uuid(second: int, number: int, kind: int) -> str:
    """A UUID of version 7: ordered by time, so that a primary key grows at its right end. Source: RFC 9562, 5.7."""
    milliseconds = second * 1000 + number % 1000
    return "%08x-%04x-7%s" % (milliseconds >> 16, milliseconds & 0xFFFF, _tails(kind)[number & 0xFFFF])


@cache
def _tails(kind: int) -> list[str]:
    random = Random(kind)
    return [f"{n & 0xFFF:03x}-8{random.getrandbits(12):03x}-{random.getrandbits(48):012x}" for n in range(POOL)]


def job_id(scale: Scale, number: int) -> str:
    """Id of a job."""
    return uuid(scale.created(number), number, 1)


def user_id(number: int) -> str:
    """Id of a user. Low numbers have most jobs."""
    return uuid(1_700_000_000 + number * 613 % 50_000_000, number, 2)


def user_weights(users: int) -> list[float]:
    """Cumulated share of the jobs by user: a few have most of them (Zipf's law, flattened at the top)."""
    return list(accumulate(1 / (rank + 10) ** 0.9 for rank in range(users)))


def pick_user(random: Random, weights: list[float]) -> str:
    """A user, as often as their jobs."""
    return user_id(min(bisect(weights, random.random() * weights[-1]), len(weights) - 1))


def lines(table: str, scale: Scale) -> Iterator[bytes]:
    """All rows of a table in COPY's text format, a chunk at a time."""
    if table == "users":
        yield _users(scale)
    elif table == "api_keys":
        yield _api_keys(scale)
    else:
        write: Callable[[_Chunk], tuple[Sequence[str], ...]]
        write = {"jobs": _Jobs(scale), "results": _results, "pipeline_jobs": _pipeline_jobs}[table]
        statuses = _Statuses(scale.seed)
        for number in scale.chunks:
            columns = write(_Chunk(scale, number, statuses))
            text = "\n".join(map("\t".join, zip(*columns, strict=True)))
            yield f"{text}\n".encode() if text else b""


class _Statuses:
    """Pools of statuses, for jobs that are finished and for those that may still wait."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.old = random.choices(STATUSES, weights=OLD_WEIGHTS, k=POOL)
        self.new = random.choices(STATUSES, weights=NEW_WEIGHTS, k=POOL)


class _Chunk:
    """The jobs of one chunk, and what each table has to know of them: numbers, seconds, ids, statuses, times as text."""

    def __init__(self, scale: Scale, number: int, statuses: _Statuses) -> None:
        self.random = Random(scale.seed * 1_000_003 + number)
        self.numbers = range(number * CHUNK, min(scale.jobs, (number + 1) * CHUNK))
        count = len(self.numbers)
        start, jobs = scale.start, scale.jobs
        self.seconds = [start + SPAN_SECONDS * (n + 1) // jobs for n in self.numbers]
        old = max(0, min(count, int(jobs * NEW) - self.numbers.start))
        self.statuses = self.slice(statuses.old, old) + self.slice(statuses.new, count - old)
        self._first = self.seconds[0] - self.seconds[0] % 60
        moment, minutes = datetime.fromtimestamp(self._first, UTC), (self.seconds[-1] - self._first) // 60
        span = range(minutes + LONGEST_SECONDS // 60 + 2)
        self._minutes = [f"{moment + timedelta(minutes=n)}"[:17] for n in span]

    def slice(self, pool: list[str], count: int) -> list[str]:
        """So many values of a pool, from a random place."""
        first = self.random.randrange(POOL - CHUNK)
        return pool[first : first + count]

    def ids(self) -> list[str]:
        """Ids of the jobs."""
        return self.uuids(self.numbers, self.seconds, 1)

    @staticmethod
    def uuids(numbers: Sequence[int], seconds: Sequence[int], kind: int) -> list[str]:
        """What `uuid` makes of each pair, without a million calls."""
        tails = _tails(kind)
        milliseconds = [second * 1000 + n % 1000 for n, second in zip(numbers, seconds, strict=True)]
        return [
            "%08x-%04x-7%s" % (ms >> 16, ms & 0xFFFF, tails[n & 0xFFFF])
            for n, ms in zip(numbers, milliseconds, strict=True)
        ]

    def texts(self, seconds: list[int], salt: int) -> list[str]:
        """Seconds as timestamps with made-up microseconds."""
        first, minutes, size = self._first, self._minutes, len(_FRACTIONS)
        return [
            minutes[(second - first) // 60] + _SECONDS[(second - first) % 60] + _FRACTIONS[(n + salt) % size]
            for n, second in enumerate(seconds)
        ]

    def ended(self) -> list[int]:
        """When each job ended, or will."""
        return [second + 40 + n * 7919 % (LONGEST_SECONDS - 40) for n, second in zip(self.numbers, self.seconds, strict=True)]


_SECONDS = tuple(f"{second:02d}" for second in range(60))
_FRACTIONS = tuple(f".{n * 7919 % 1_000_000:06d}+00" for n in range(1009))


def _users(scale: Scale) -> bytes:
    random = Random(scale.seed)
    tiers = random.choices(TIERS, weights=(70, 20, 7, 3), k=scale.users)
    day = scale.until - timedelta(seconds=SPAN_SECONDS)
    rows = (
        f"{user_id(n)}\tuser{n}@example.org\tUser {n}\t{tiers[n]}\t{day - timedelta(hours=n % 8760)}\n"
        for n in range(scale.users)
    )
    return "".join(rows).encode()


def _api_keys(scale: Scale) -> bytes:
    random = Random(scale.seed + 1)
    day = scale.until - timedelta(seconds=SPAN_SECONDS)
    rows = (
        f"{uuid(scale.start, n, 3)}\t{user_id(n)}\t{random.randbytes(32).hex()}\tdefault\t{day}\t{NULL}\n"
        for n in range(0, scale.users, 2)
    )
    return "".join(rows).encode()


class _Jobs:
    """Writes the columns of `jobs`: users by Zipf's law, the rest by the weights of a normal day."""

    def __init__(self, scale: Scale) -> None:
        random = Random(scale.seed)
        users = [user_id(number) for number in range(scale.users)]
        self._users = random.choices(users, cum_weights=user_weights(scale.users), k=2 * POOL)
        columns = (
            random.choices(PRIORITIES, weights=(15, 65, 15, 5), k=POOL),
            random.choices(PRESETS, weights=(60, 30, 10), k=POOL),
            random.choices(LANGUAGES, weights=(50, 12, 10, 8, 5, 5, 4, 4, 2), k=POOL),
            random.choices(_prompts(random), k=POOL),
        )
        self._orders = list(map("\t".join, zip(*columns, strict=True)))

    def __call__(self, chunk: _Chunk) -> tuple[Sequence[str], ...]:
        began, ended = chunk.texts(chunk.seconds, 1), chunk.texts(chunk.ended(), 8)
        first = chunk.random.randrange(2 * POOL - CHUNK)
        is_open = [status in ("queued", "processing") for status in chunk.statuses]
        outcome = [
            f"3\t{ERRORS[n % 4]}" if status == "failed" else f"1\t{NULL}" for n, status in enumerate(chunk.statuses)
        ]
        return (
            chunk.ids(),
            self._users[first : first + len(is_open)],
            chunk.statuses,
            chunk.slice(self._orders, len(is_open)),
            outcome,
            began,
            [a if waits else b for a, b, waits in zip(began, ended, is_open, strict=True)],
            [NULL if waits else end for end, waits in zip(ended, is_open, strict=True)],
        )


def _results(chunk: _Chunk) -> tuple[Sequence[str], ...]:
    is_done = [status == "completed" for status in chunk.statuses]
    numbers = [n for n, done in zip(chunk.numbers, is_done, strict=True) if done]
    ended = [second for second, done in zip(chunk.ended(), is_done, strict=True) if done]
    ids = chunk.uuids(numbers, ended, 4)
    return (
        ids,
        [name for name, done in zip(chunk.ids(), is_done, strict=True) if done],
        [
            f"https://cdn.example.org/videos/{name}/final_1080p.mp4\thttps://cdn.example.org/thumbs/{name}.jpg\t"
            f"{15 + n % 46}\t{4_000_000 + n * 7919 % 90_000_000}\t0.{50 + n * 31 % 50}"
            for n, name in zip(numbers, ids, strict=True)
        ],
        chunk.texts(ended, 8),
    )


def _pipeline_jobs(chunk: _Chunk) -> tuple[Sequence[str], ...]:
    some = [index for index in range(len(chunk.numbers)) if index % 10 < 3]
    numbers = [chunk.numbers[index] for index in some]
    seconds = [chunk.seconds[index] for index in some]
    ended = chunk.ended()
    return (
        chunk.uuids(numbers, [second + 2 for second in seconds], 5),
        chunk.uuids(numbers, seconds, 1),
        [chunk.statuses[index] for index in some],
        [
            f"{STAGES[n // 10 % 5]}\tworker-{n * 31 % 24:02d}\t"
            f'{{"model": "veo-3", "resolution": "1080p", "seed": {n * 7919}, "steps": {20 + n % 30}}}'
            for n in numbers
        ],
        chunk.texts([second + 2 for second in seconds], 4),
        chunk.texts([ended[index] for index in some], 6),
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
