"""What sealed evidence proves, of whom, until when. A page shows no figure that does not come from here."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.engine.registry import Entry
from aiprod_ops.units import show


@dataclass(frozen=True, slots=True)
class Record:
    """One sealed record and its file's name. Only what is shipped with the package is published with the pages."""

    file: str
    sealed: Sealed
    is_shipped: bool

    @property
    def body(self) -> dict[str, Any]:
        return self.sealed.body

    @property
    def ended(self) -> datetime:
        return datetime.fromisoformat(str(self.body["ended"]))

    @property
    def day(self) -> str:
        """Absolute, UTC: nobody has to know when the page was made."""
        return f"{self.ended:%Y-%m-%d}"

    @property
    def place(self) -> str:
        """The environment, and the target's name where it says more."""
        environment, target = str(self.body["environment"]), str(self.body["target"]["target"])
        return environment if environment == target else f"{environment} ({target})"


@dataclass(frozen=True, slots=True)
class Claim:
    """Something a page claims of a runbook, and the newest record that proves it, in one environment.

    Without a record it was never proven.
    """

    runbook: str
    what: str
    environment: str = ""
    record: Record | None = None
    until: datetime | None = None
    is_stale: bool = False
    is_of_this_version: bool = True  #: the runbook's file is the one that was proven

    @property
    def badge(self) -> str:
        """NEVER, STALE, or the day until which the proof counts."""
        if self.record is None or self.until is None:
            return "NEVER"
        return f"STALE since {self.until:%Y-%m-%d}" if self.is_stale else f"{self.until:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times smaller one unit became: the median over the comparisons, its spread, runs of each comparison."""

    unit: str
    median: float
    low: float
    high: float
    n: int
    runs: tuple[int, int]

    def __str__(self) -> str:
        fewest, most = self.runs
        runs = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        spread = f"median of {self.n} comparisons, {show(self.low, '×')} to {show(self.high, '×')}"
        told = spread if self.n > 1 else "one comparison"
        return f"{self.unit}: {show(self.median, '×')} less ({told}; {runs} runs each)"


def claims(entry: Entry, records: Sequence[Record], max_age: timedelta, now: datetime) -> list[Claim]:
    """Every claim of a runbook's page, with one entry for each environment that proved it."""
    found: list[Claim] = []
    for what, kind, phase in _claimed(entry):
        mine = [r for r in records if r.body["runbook"] == entry.id and _proves(r, kind)]
        for environment in sorted({str(r.body["environment"]) for r in mine}):
            newest = max((r for r in mine if r.body["environment"] == environment), key=lambda r: (r.ended, r.file))
            until = newest.ended + max_age
            same = newest.body["source"] == entry.source
            found.append(Claim(entry.id, what, environment, newest, until, until < now, same))
        if not mine and phase in entry.book.phases:
            found.append(Claim(entry.id, what))
    return found


def _claimed(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """What is claimed, the kind of record that proves it, and the phase that makes it a claim."""
    due = f" (due every {entry.book.drill_every})" if entry.book.drill_every else ""
    yield "proven on a restored copy", "prove", "prove"
    yield "applied and verified", "run", "plan"
    yield "taken back", "rollback", "plan"
    yield f"drilled{due}", "drill", "inject"


def _proves(record: Record, kind: str) -> bool:
    body = record.body
    if kind == "prove":
        return body["kind"] == "prove" and bool(body.get("proves"))
    return body["kind"] == kind and int(body["exit"]) == 0


def gains(record: Record | None) -> list[Gain]:
    """By unit, in the order the record has them; none without a record, and none where nothing was compared."""
    comparisons: list[dict[str, Any]] = record.body.get("comparisons", []) if record else []
    return [
        _gain(unit, [each for each in comparisons if each["unit"] == unit])
        for unit in dict.fromkeys(str(each["unit"]) for each in comparisons)
    ]


def _gain(unit: str, comparisons: Sequence[dict[str, Any]]) -> Gain:
    values = [float(each["gain"]) for each in comparisons]
    runs = [int(each[side]["n"]) for each in comparisons for side in ("before", "after")]
    return Gain(unit, statistics.median(values), min(values), max(values), len(values), (min(runs), max(runs)))


def line(claim: Claim) -> str:
    """One claim as a sentence: when, where, by which sealed record, until when."""
    if claim.record is None or claim.until is None:
        return f"**Never {claim.what}.**"
    record = claim.record
    stale = f"**STALE since {claim.until:%Y-%m-%d}.** " if claim.is_stale else ""
    until = "" if claim.is_stale else f", counts until {claim.until:%Y-%m-%d}"
    seal = f"evidence {record.sealed.n}, seal `{record.sealed.seal[:12]}`"
    drill = record.body.get("drill", {})
    rto = f", RTO {show(drill['rto_s'], 's')}" if drill.get("rto_s") else ""
    rto += f", RPO {show(drill['rpo_s'], 's')}" if drill.get("rpo_s") is not None else ""
    if drill.get("write_stop_ms") is not None:
        lost = drill.get("lost_writes")
        rto += f", writes stopped for {show(drill['write_stop_ms'], 'ms')}, {lost} acknowledged writes lost"
    changed = "" if claim.is_of_this_version else " **The runbook's file has changed since.**"
    return f"{stale}Last {claim.what} {record.day} on **{record.place}**{rto}: {seal}{until}.{changed}"
