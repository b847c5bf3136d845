"""A database in figures, and a restored copy held against its source: at the same moment, or between two others."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiprod_ops.domain.backups import is_ahead
from aiprod_ops.domain.findings import Finding


@dataclass(frozen=True, slots=True)
class Rows:
    """One table: how many rows, their sum (None where only counted), and when the newest and the oldest were written,
    if it says; the oldest only where it says so with a time zone.
    """

    rows: int
    digest: str | None
    newest: datetime | None
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A database as it is: its tables, the Alembic revision, extensions and roles.

    `hidden` are tables whose row security lets the reader see a part, `rewritten` those that TRUNCATE, ALTER or
    DROP TABLE has replaced after the moment that is read: of both the figures tell nothing.
    """

    tables: Mapping[str, Rows]
    revision: str
    extensions: tuple[str, ...]
    roles: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.tables.values())

    def newest_at(self, now: datetime) -> tuple[datetime | None, list[str]]:
        """The newest row of the tables that have none from the future, and those that have."""
        told = {name: each.newest for name, each in self.tables.items() if each.newest is not None}
        early = [name for name, at in told.items() if is_ahead(at, now)]
        return max((at for name, at in told.items() if name not in early), default=None), early

    @property
    def told(self) -> dict[str, Rows]:
        """The tables whose figures tell something."""
        return {name: rows for name, rows in self.tables.items() if name not in {*self.hidden, *self.rewritten}}


def same_moment(source: Figures, copy: Figures) -> Iterator[Finding]:
    """Both are of the same moment: then every row is the same, and all that stands around the tables."""
    other = copy.revision != source.revision
    note = f"{copy.revision or 'none'}, the source has {source.revision or 'none'}" if other else copy.revision
    yield Finding("another schema revision", float(other), "", crit=1, note=note)
    for what, lacking in _lacking(copy, source):
        yield Finding(f"missing {what}", float(len(lacking)), "", crit=1, note=_few(lacking))
    ours_told = _without(copy.told, source)
    different = [name for name, rows in _without(source.told, copy).items() if not _equal(rows, ours_told.get(name))]
    more = sorted(ours_told.keys() - source.tables.keys())
    note = _few([*different, *more]) if different or more else f"{copy.rows:,} rows of {len(copy.tables)} tables"
    counted = [name for name, rows in source.told.items() if rows.digest is None]
    note += f"; only counted: {_few(counted)}" if counted else ""
    yield Finding("tables that differ at the same moment", float(len(different) + len(more)), "", crit=1, note=note)
    yield from _uncompared(source, copy)


_UNSURE = "; perhaps since the backup: no test before it has read the source"

#: A table that had and has this many rows, and twice as many as the backup, has not lost them by work alone.
_MANY, _FAR = 1000, 2
#: So long may a transaction last whose rows have the time of its beginning.
_OPEN = timedelta(hours=1)


def between(
    before: Figures | None, copy: Figures, after: Figures | None, begun: datetime | None = None
) -> Iterator[Finding]:
    """The copy lies between two moments of its source, of which one may not be known; it is not older than `begun`.

    What the source had before and has after, the copy has to have. What it has on one side alone may have been made,
    or dropped, on either side of the copy's moment: that is told, and no fault. Where only one side is known nobody can
    tell which it was.
    """
    known = [each for each in (before, after) if each is not None]
    is_certain = len(known) == 2
    warn, crit = (None, 1.0) if is_certain else (1.0, None)
    unsure = "" if is_certain else _UNSURE if before is None else "; perhaps dropped before the backup"
    revisions = {each.revision for each in known}
    other = copy.revision not in revisions
    note = f"{copy.revision or 'none'}, the source {' and then '.join(sorted(each or 'none' for each in revisions))}"
    if is_certain and len(revisions) == 2:  # several may have come and gone between the two
        yield Finding("another schema revision", float(other), "", 1, None, note)
    else:
        yield Finding(
            "another schema revision", float(other), "", warn, crit, note + unsure if other else copy.revision
        )
    for what, lacking in _lacking(copy, *known):
        yield Finding(f"missing {what}", float(len(lacking)), "", warn, crit, _few(lacking, unsure))
    is_empty = not copy.rows and all(each.rows for each in known)
    empty = f"the source has {known[-1].rows:,} rows, the backup none"
    yield Finding("a backup without rows", float(is_empty), "", crit=1, note=empty if is_empty else "")
    sides = [_without(each.told, *known, copy) for each in known]
    common = set.intersection(*(set(each) for each in sides))
    missing = sorted(common - copy.tables.keys())
    yield Finding("tables that the backup lacks", float(len(missing)), "", warn, crit, _few(missing, unsure))
    there = {name: ([side[name] for side in sides], copy.tables[name]) for name in sorted(common & copy.tables.keys())}
    changed = [name for name, (theirs, ours) in there.items() if is_certain and _stood_still(theirs, ours)]
    yield Finding("tables that nobody wrote to and that differ", float(len(changed)), "", crit=1, note=_few(changed))
    emptied = [
        name for name, (theirs, ours) in there.items()
        if not ours.rows and all(each.rows for each in theirs) and name not in changed
    ]  # fmt: skip
    sure = [name for name in emptied if _had_rows(there[name][0], after is not None, begun)]
    doubt = "" if sure else "; perhaps written since the backup"
    crit_rows = 1.0 if sure else None
    yield Finding(
        "tables without their rows", float(len(sure or emptied)), "", 1, crit_rows, _few(sure or emptied, doubt)
    )
    fewer = [
        name for name, (theirs, ours) in there.items() if name not in {*changed, *emptied} and _far_fewer(theirs, ours)
    ]
    yield Finding("tables with far fewer rows", float(len(fewer)), "", warn, crit, _few(fewer, unsure))
    yield from _uncompared(*known, copy)


def _stood_still(theirs: list[Rows], ours: Rows) -> bool:
    """Whether a table had the same rows before and after, and the copy has others."""
    first, last = theirs
    sums = {first.digest, last.digest, ours.digest}
    return None not in sums and _equal(first, last) and not _equal(first, ours)


def _had_rows(theirs: list[Rows], is_after: bool, begun: datetime | None) -> bool:
    """Whether a table had rows at the copy's moment: one that is there since well before it tells so, and that all are
    younger tells the contrary. Where no row has a time many before and after tell it; a queue may be empty now and
    then."""
    oldest = theirs[-1].oldest if is_after else None
    if oldest is None or begun is None:
        return len(theirs) > 1 and min(each.rows for each in theirs) >= _MANY
    return oldest < begun - _OPEN


def _far_fewer(theirs: list[Rows], ours: Rows) -> bool:
    least = min(each.rows for each in theirs)
    return least - ours.rows >= _MANY and least >= _FAR * ours.rows


def _lacking(copy: Figures, *known: Figures) -> Iterator[tuple[str, list[str]]]:
    """What all others have, and the copy has not."""
    yield "extensions", sorted(set.intersection(*(set(each.extensions) for each in known)) - set(copy.extensions))
    yield "roles", sorted(set.intersection(*(set(each.roles) for each in known)) - set(copy.roles))


def _equal(one: Rows, other: Rows | None) -> bool:
    if other is None or one.rows != other.rows:
        return False
    return None in (one.digest, other.digest) or one.digest == other.digest


def _without(tables: Mapping[str, Rows], *others: Figures) -> dict[str, Rows]:
    """Those of which none of the others tells nothing."""
    mute = {name for each in others for name in (*each.hidden, *each.rewritten)}
    return {name: rows for name, rows in tables.items() if name not in mute}


def _uncompared(*of: Figures) -> Iterator[Finding]:
    """Tables of which nothing is known: a fault of whoever reads, or bad luck, and none of the backup."""
    hidden = sorted({name for each in of for name in each.hidden})
    if hidden:
        note = f"{_few(hidden)}: row security shows its reader a part; ALTER ROLE … BYPASSRLS for the one in the DSN"
        yield Finding("tables that may not be read whole", float(len(hidden)), "", 1, note=note)
    rewritten = sorted({name for each in of for name in each.rewritten})
    if rewritten:
        note = f"{_few(rewritten)}: not compared"
        yield Finding("tables that were rewritten while they were read", float(len(rewritten)), "", note=note)


def _few(names: Iterable[str], more: str = "", most: int = 5) -> str:
    found = list(names)
    text = ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
    return text + more if text else ""
