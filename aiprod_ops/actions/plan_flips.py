"""Plan flips: statements that are quick until their client prepares them, and the index that closes the gap.

A prepared statement gets five custom plans, made for its values; then the server compares costs and may stay with one
generic plan. Where that reads ten times as much, the same statement is suddenly slow, in one session after the other.
Source: PostgreSQL manual, PREPARE ("Notes"); measured: 0.5 → 520 ms at the eleventh execution with psycopg 3.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec

from aiprod_ops.actions.index_builds import Build, creation
from aiprod_ops.actions.measurements import (
    NOISE_MS,
    Case,
    Measured,
    Subject,
    cases,
    measure,
    planned,
    stays_custom,
)
from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.proofs import Sampled
from aiprod_ops.domain.statements import Statement
from aiprod_ops.engine.runbook import Context
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds, seconds, show

#: A generic plan that reads so many times as much as a custom one is a flip.
FLIP = 10.0
_BUILD = Seconds(6 * 3600)


@dataclass(frozen=True, slots=True)
class Flip:
    """A statement whose generic plan is far worse, with its worst values (`rare`, `median` or `common`).

    `is_taken` says whether the server would take the generic plan by its own cost rule, for values like these.
    `closed_by` is the index with which the generic plan is near the custom one, as measured with the real index.
    `clients` are the applications known to prepare the statement; none are known where the log does not tell.
    """

    statement: Statement
    values: str
    custom_buffers: Sampled
    generic_buffers: Sampled
    custom_ms: Sampled
    generic_ms: Sampled
    is_taken: bool
    closed_by: NewIndex | None = None
    clients: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times the buffers of the custom plan the generic one reads."""
        return _ratio(self.custom_buffers, self.generic_buffers)


def flips(
    database: Database, found: Iterable[Subject], preparing: Mapping[int, Sequence[str]] | None = None
) -> list[Flip]:
    """The flips among these statements, the worst first, measured on a disposable copy.

    `preparing` tells which applications prepare a statement, by query id.
    """
    wanted = cases(found)
    measured, _ = measure(database, wanted)
    return flips_among(database, wanted, measured, preparing)


def flips_among(
    database: Database,
    wanted: Sequence[Case],
    measured: Mapping[int, Measured],
    preparing: Mapping[int, Sequence[str]] | None = None,
) -> list[Flip]:
    """The same of what is measured already; the database is only asked which plan it would take."""
    worst: dict[int, tuple[Subject, Flip]] = {}
    for case, custom, generic in _pairs(wanted, measured):
        flip = _flip(case, custom, generic, preparing or {})
        is_slower = flip.generic_ms.median - flip.custom_ms.median >= NOISE_MS
        known = worst.get(flip.statement.query_id)
        if flip.ratio >= FLIP and is_slower and (known is None or flip.ratio > known[1].ratio):
            worst[flip.statement.query_id] = (case.subject, flip)
    seen = [replace(flip, is_taken=_is_taken(database, subject)) for subject, flip in worst.values()]
    return sorted(seen, key=lambda flip: (-flip.ratio, flip.statement.query_id))


def _flip(case: Case, custom: Measured, generic: Measured, preparing: Mapping[int, Sequence[str]]) -> Flip:
    return Flip(
        case.subject.statement,
        case.values.kind,
        Sampled.of(custom.buffers),
        Sampled.of(generic.buffers),
        Sampled.of(custom.ms),
        Sampled.of(generic.ms),
        is_taken=False,
        clients=tuple(sorted(preparing.get(case.subject.statement.query_id, ()))),
    )


def _is_taken(database: Database, subject: Subject) -> bool:
    plans, _ = planned(database, subject)
    return "generic" in plans and not stays_custom(plans)


def _pairs(wanted: Sequence[Case], measured: Mapping[int, Measured]) -> Iterator[tuple[Case, Measured, Measured]]:
    """Cases with their figures under the custom and the generic plan, for the same values; only what ran to its end."""
    ended = {n: each for n, each in measured.items() if each.buffers and each.ms}
    generics = {
        (case.subject.statement.query_id, case.values.kind): ended[n]
        for n, case in enumerate(wanted)
        if n in ended and case.plan == "generic"
    }
    for n, case in enumerate(wanted):
        generic = generics.get((case.subject.statement.query_id, case.values.kind))
        if n in ended and case.plan == "custom" and generic is not None:
            yield case, ended[n], generic


def _ratio(custom: Sampled, generic: Sampled) -> float:
    return max(generic.median, 0.5) / max(custom.median, 0.5)


def closed(
    database: Database, found: Sequence[Flip], subjects: Iterable[Subject], candidates: Iterable[NewIndex]
) -> list[Flip]:
    """The flips with the first of the candidates that closes each, tried by a real build on the copy.

    What was built is dropped again.
    """
    by_id = {subject.statement.query_id: subject for subject in subjects}
    answers = {flip.statement.query_id: flip for flip in found}
    for index in candidates:
        waiting = [flip for flip in answers.values() if flip.closed_by is None]
        if not waiting:
            break
        trial = replace(index, name=replace(index.name, name=f"aiprod_ops_try_{index.name.name}"[:63]))
        database.execute(creation(Build(trial)).replace(" CONCURRENTLY", "", 1), timeout=_BUILD)
        try:
            for flip in waiting:
                if _is_closed(database, by_id[flip.statement.query_id], trial):
                    answers[flip.statement.query_id] = replace(flip, closed_by=index)
        finally:
            database.execute("drop index {name}", names={"name": trial.name}, timeout=_BUILD)
    return list(answers.values())


def _is_closed(database: Database, subject: Subject, index: NewIndex) -> bool:
    """Whether no values flip any more, and the generic plan owes that to this index."""
    wanted = cases([subject])
    measured, _ = measure(database, wanted)
    pairs = list(_pairs(wanted, measured))
    is_used = any(index.name.name in generic.indexes for _, _, generic in pairs)
    near = [_ratio(Sampled.of(custom.buffers), Sampled.of(generic.buffers)) < FLIP for _, custom, generic in pairs]
    return is_used and bool(near) and all(near)


def finding(flip: Flip) -> Finding:
    """For people: how many times worse, for whom, and what closes it. A WARNING where the server would take the plan,
    CRITICAL where somebody is known to prepare the statement, too."""
    closes = f"closed by {flip.closed_by}" if flip.closed_by else "no index tried closes it"
    who = f"prepared by {', '.join(flip.clients)}" if flip.clients else "nobody knows which clients prepare it"
    times = f"{show(flip.custom_ms.median, 'ms')} → {show(flip.generic_ms.median, 'ms')}"
    taken = "the server takes the generic plan" if flip.is_taken else "the server stays with custom plans"
    return Finding(
        "times more buffers with the generic plan",
        flip.ratio,
        "×",
        warn=FLIP if flip.is_taken else None,
        crit=FLIP if flip.is_taken and flip.clients else None,
        note=f"{times} for {flip.values} values; {taken}; {who}; {closes}",
        columns={"statement": flip.statement.text},
        id=f"flip:{flip.statement.query_id}",
    )


_FLIPS = "plan-flips"  #: name in the history


def keep_flips(context: Context, found: Iterable[Flip]) -> None:
    """Keep what a copy told, for the checks: they only read, and cannot measure."""
    now = context.clock.now()
    kept = [replace(each, note=f"{each.note}; measured on a copy on {now:%Y-%m-%d}") for each in map(finding, found)]
    context.history.keep(_FLIPS, now, kept)


def known_flips(context: Context) -> tuple[Finding, ...]:
    """The flips of the last proof, where that is not older than a proof may be."""
    last, age = context.history.last(_FLIPS), seconds(context.promises.get("evidence.max_age"))
    if last is None or context.clock.now() - last.taken > timedelta(seconds=age):
        return ()
    return msgspec.convert(last.value, tuple[Finding, ...])
