"""Adds up what readers found, in bounded memory whatever the size of the log."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Final

from aiprod_ops.logs import plans, shapes
from aiprod_ops.logs.digests import Application, Digest, Example, Row, counted
from aiprod_ops.logs.entries import Batch, Call, Reading, Spill, Unread
from aiprod_ops.logs.figures import Figures
from aiprod_ops.logs.parameters import parameters
from aiprod_ops.logs.stamps import instant, second, unknown_zone
from aiprod_ops.units import Bytes, Milliseconds, show

MOST_STATEMENTS = 1000
_MOST_APPLICATIONS = 200
_MOST_UNREAD = 5  # files that are named
_OTHERS = "(others)"
_OURS = "aiprod-ops"
_OUR_COMMENT = "/* aiprod-ops"
_GROUP = itemgetter(*(Call._fields.index(name) for name in ("database", "application", "query_id")))

_TEXT: Final = 4  # of a Call

Key = tuple[str, int]  #: database, query id


@dataclass(slots=True)
class LeftOut:
    """Calls that were read and not counted, by why."""

    ours: int = 0
    elsewhere: int = 0  #: other databases
    nameless: int = 0  #: the log does not name the database
    outside: int = 0  #: before `since` or after `until`
    databases: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls count: of one database (empty: of all), from `since` on and before `until`."""

    database: str = ""
    since: datetime | None = None
    until: datetime | None = None


EVERYTHING = Wanted()


class Digester:
    """The statements so far. `digest` may be asked for at any time.

    At most 2 × `most` statements are held. When more come, the half that cost least is added to the others; one of
    them that comes again begins anew.
    """

    def __init__(self, wanted: Wanted = EVERYTHING, most: int = MOST_STATEMENTS) -> None:
        self.reading = Reading()
        self.left_out = LeftOut()
        self._wanted = wanted
        self._most = most
        self._shapes = shapes.Shapes()
        self._figures: dict[Key, Figures] = {}
        self._servers: set[Key] = set()
        self._applications: dict[str, list[int]] = {}  # calls, prepared, microseconds
        self._others = Figures("")
        self._dropped = 0

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return self._others.calls + sum(each.calls for each in self._figures.values())

    def add(self, batch: Batch) -> None:
        """Count what a block told."""
        groups: defaultdict[tuple[str, str, int], list[Call]] = defaultdict(list)
        calls = self._in_time(batch.calls) if self._wanted.since or self._wanted.until else batch.calls
        for key, call in zip(map(_GROUP, calls), calls, strict=True):
            groups[key].append(call)
        for (database, application, query_id), found in groups.items():
            if self._counts(database, application, len(found)):
                self._group(database, application, query_id, found)
        for plan in batch.plans:
            if self._counts(plan.database, plan.application, 0) and (text := plans.text_of(plan.plan)):
                self._statement(plan.database, plan.query_id, text).explain(plan)
        for spill in batch.spills:
            self._spill(spill)

    def digest(self) -> Digest:
        """What is known now."""
        held = [self._row(key, each) for key, each in self._figures.items()]
        rows = sorted(held, key=lambda row: (-row.total, -row.calls, row.query_id, row.database))
        every = Figures("")
        for each in (*self._figures.values(), self._others):
            every.merge(each)
        return Digest(
            rows=tuple(rows),
            others_calls=self._others.calls,
            others_total=Milliseconds(self._others.total_us / 1000),
            applications=tuple(self._application_rows()),
            calls=every.calls,
            total=Milliseconds(every.total_us / 1000),
            first=instant(every.first),
            last=instant(every.last),
            size=Bytes(self.reading.size_bytes),
            unread=Bytes(self.reading.unread_bytes),
            notes=tuple(self._notes(every.last)),
        )

    def _in_time(self, calls: Sequence[Call]) -> list[Call]:
        since, until = self._wanted.since, self._wanted.until
        kept = [
            call
            for call in calls
            if (at := second(call[0])) is not None and (since is None or at >= since) and (until is None or at < until)
        ]
        self.left_out.outside += len(calls) - len(kept)
        return kept

    def _counts(self, database: str, application: str, number: int) -> bool:
        left = self.left_out
        if application.startswith(_OURS):
            left.ours += number
        elif not self._wanted.database or database == self._wanted.database:
            return True
        elif not database:
            left.nameless += number
        else:
            left.elsewhere += number
            if len(left.databases) < _MOST_APPLICATIONS:
                left.databases.add(database)
        return False

    def _group(self, database: str, application: str, query_id: int, calls: list[Call]) -> None:
        if query_id:
            self._same((database, query_id), application, calls, is_servers=True)
            return
        same: defaultdict[int, list[Call]] = defaultdict(list)
        identity = self._shapes.identity
        for call in calls:
            same[identity(call[_TEXT])].append(call)
        for number, members in same.items():
            self._same((database, number), application, members)

    def _same(self, key: Key, application: str, calls: list[Call], *, is_servers: bool = False) -> None:
        """Count calls of one statement by one application."""
        text = calls[0][_TEXT]
        if _OUR_COMMENT in text:  # where the log does not name applications
            self.left_out.ours += len(calls)
            return
        figures = self._held(key, text, is_servers=is_servers)
        prepared, total_us = figures.add(calls)
        if prepared:
            figures.prepared_by(application)
        self._count(application, len(calls), prepared, total_us)

    def _held(self, key: Key, text: str, *, is_servers: bool = False) -> Figures:
        figures = self._figures.get(key)
        if figures is None:
            if len(self._figures) >= 2 * self._most:
                self._prune()
            figures = self._figures[key] = Figures(text)
            if is_servers:
                self._servers.add(key)
        return figures

    def _statement(self, database: str, query_id: int, text: str) -> Figures:
        if query_id:
            return self._held((database, query_id), text, is_servers=True)
        return self._held((database, self._shapes.identity(text)), text)

    def _spill(self, spill: Spill) -> None:
        if self._counts(spill.database, spill.application, 0) and spill.text:
            self._statement(spill.database, spill.query_id, spill.text).spill(spill.size)

    def _count(self, application: str, calls: int, prepared: int, total_us: int) -> None:
        known = self._applications
        if application not in known and len(known) >= _MOST_APPLICATIONS:
            application = _OTHERS
        tally = known.setdefault(application, [0, 0, 0])
        tally[:] = [tally[0] + calls, tally[1] + prepared, tally[2] + total_us]

    def _prune(self) -> None:
        """Source: the idea of Metwally, Agrawal, Abbadi (Space-Saving, ICDT 2005); here no count is ever too high."""
        ranked = sorted(self._figures, key=lambda key: (-self._figures[key].total_us, key))
        for key in ranked[self._most :]:
            self._others.merge(self._figures.pop(key))
            self._servers.discard(key)
            self._dropped += 1

    def _row(self, key: Key, figures: Figures) -> Row:
        low = figures.max_ms
        quantiles = [min(low, figures.histogram.quantile(q)) for q in (0.5, 0.95, 0.99)]
        total = figures.total_us / 1000
        return Row(
            query_id=key[1],
            is_servers=key in self._servers,
            database=key[0],
            text=shapes.normalised(figures.text),
            calls=figures.calls,
            prepared=figures.prepared,
            clients=tuple(sorted(figures.clients)),
            total=Milliseconds(total),
            mean=Milliseconds(total / figures.calls if figures.calls else 0.0),
            p50=Milliseconds(quantiles[0]),
            p95=Milliseconds(quantiles[1]),
            p99=Milliseconds(quantiles[2]),
            max=Milliseconds(figures.max_ms),
            first=instant(figures.first),
            last=instant(figures.last),
            temporary_files=figures.spills,
            temporary_bytes=Bytes(figures.spilled),
            examples=tuple(_examples(figures, quantiles[0])),
            plan=figures.plan,
        )

    def _application_rows(self) -> Iterable[Application]:
        tallies = sorted(self._applications.items(), key=lambda item: (-item[1][2], item[0]))
        for name, (calls, prepared, total_us) in tallies:
            yield Application(name, calls, prepared, Milliseconds(total_us / 1000))

    def _notes(self, stamp: str) -> Iterable[str]:
        reading = self.reading
        if reading.unread_lines:
            lines = counted(reading.unread_lines, "line")
            yield f"{lines} could not be read: torn, too long, of another kind or prefix"
        yield from map(_unread, reading.unread_files[:_MOST_UNREAD])
        if (further := len(reading.unread_files) - _MOST_UNREAD) > 0:
            yield f"nothing of {counted(further, 'further file')} could be read"
        if reading.cut_files:
            yield f"{counted(reading.cut_files, 'compressed file ends', 'compressed files end')} in the middle"
        if reading.textless:
            stand = counted(reading.textless, "duration stands", "durations stand")
            yield f"{stand} without a statement (log_duration without log_statement)"
        if self._dropped:
            yield f"too many different statements: {self._dropped:,} that cost little are only in the others"
        if self.left_out.ours:
            yield f"{counted(self.left_out.ours, 'call')} of aiprod-ops itself left out"
        if zone := unknown_zone(stamp):
            yield f"times are as the log writes them ({zone})"


def _unread(file: Unread) -> str:
    size = f": all {show(file.size_bytes, 'B')} are unread" if file.size_bytes else ""  # none of a damaged gzip's
    looks = f"; it looks like {file.looks}" if file.looks else ""
    return f"nothing of {file.name} could be read{size}{looks}"


def _examples(figures: Figures, median: float) -> Iterable[Example]:
    for kind, kept in figures.examples.by_class(median).items():
        for duration, text, detail in kept:
            yield Example(kind, Milliseconds(duration), text, parameters(detail))
