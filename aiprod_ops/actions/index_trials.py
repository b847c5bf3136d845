"""Trying repairs of indexes on a restored copy; and what each index is worth there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from aiprod_ops.actions.index_builds import index_size
from aiprod_ops.actions.key_trials import Deletions
from aiprod_ops.actions.measurements import Case, subjects, tables_of
from aiprod_ops.actions.plan_flips import Flip, closed, flips_among
from aiprod_ops.actions.trials import REMOVE, Trial
from aiprod_ops.actions.worth import worth
from aiprod_ops.domain.advice.indexes import advise
from aiprod_ops.domain.plans import Plan
from aiprod_ops.domain.proofs import Proof
from aiprod_ops.domain.schema import Name, Schema, TableSize
from aiprod_ops.domain.sql.trees import Unreadable
from aiprod_ops.domain.sql.writes import written
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.engine.runbook import Copy
from aiprod_ops.units import show


@dataclass(frozen=True, slots=True)
class Tried:
    """What the copy said: the proof, and the plan flips that are there with the repairs done."""

    proof: Proof
    flips: tuple[Flip, ...]


def try_repairs(
    copy: Copy, plan: Plan, workload: Workload, schema: Schema, sizes: Mapping[str, TableSize], *, most: int,
    least_gain: float,
) -> Tried:  # fmt: skip
    """Do each action on the copy and measure what it does to the `most` statements with the largest total time.

    Refused is what fails, what makes a statement worse, a removal when nothing could be replayed, and a rebuild that
    gives back less than `least_gain` of the index's size. The proof tells what each index is worth, too, and what a
    delete costs on the other side of a foreign key that gets one.
    """
    replayed = [each for each in workload.statements if _is_of(each, schema)][:most]
    found, notes = subjects(copy.source, replayed, schema)
    trial = Trial.of(copy, plan, found, schema)
    names = trial.names
    touched = _touched(schema, trial.wanted, names.values())
    values = worth(copy.db, touched, trial.wanted, trial.before, workload, copy.context.report)
    was = {name: index_size(copy.db, index) for name, index in names.items()}
    deletions = Deletions.of(copy.db, plan.actions)
    deleting = deletions.measured(copy.db)
    trial.apply()
    _refuse_unproven(trial)
    trial.measure()
    trial.settle()
    for action in plan.actions:
        if action.kind == "rebuild-index" and action.name not in trial.refused:
            now, then = index_size(copy.db, names[action.name]), was[action.name]
            told = f"{action.name}: {show(then, 'B')} → {show(now, 'B')}"
            if action.answers.startswith("bloat:") and now > (1 - least_gain) * then:
                trial.refused[action.name] = f"a rebuild gives back too little: {told}; {least_gain:.0%} is asked for"
            else:
                notes.append(f"rebuilt on the copy: {told}")
    flipped = flips_among(copy.db, trial.wanted, trial.after, _preparing(copy, replayed))
    if flipped:
        copy.context.report(f"looking for what closes {len(flipped)} plan flips")
        candidates = advise([flip.statement for flip in flipped], copy.db.schema(), sizes).candidates
        flipped = closed(copy.db, flipped, found, [candidate.index for candidate in candidates])
    deleted = tuple(deletions.compared(deleting, deletions.measured(copy.db)))
    notes += [*trial.trouble, *deletions.notes]
    proof = Proof(
        deleted + trial.comparisons, trial.refused, tuple(sorted(set(notes))), tuple(each.columns for each in values)
    )
    return Tried(proof, tuple(flipped))


def _preparing(copy: Copy, statements: Sequence[Statement]) -> dict[int, tuple[str, ...]]:
    """Which applications prepare a statement, as far as the log of the last day tells."""
    since = copy.context.clock.now() - timedelta(days=1)
    known, _ = copy.source.logged([each.query_id for each in statements], since)
    return {query_id: logged.clients for query_id, logged in known.items()}


def _is_of(statement: Statement, schema: Schema) -> bool:
    """Whether a statement reads or changes a table of the schema; what cannot be parsed is told by `subjects`."""
    try:
        return bool(tables_of(statement, schema) or written(statement.text, schema))
    except Unreadable:
        return True


def _touched(schema: Schema, wanted: Sequence[Case], planned: Collection[Name]) -> Schema:
    """The tables that the workload reads or the plan is about: only there an index can be worth anything."""
    used = {name for case in wanted for name in tables_of(case.subject.statement, schema)}
    tables = [t for t in schema.tables if t.name in used or any(index.name in planned for index in t.indexes)]
    return replace(schema, tables=tuple(tables))


def _refuse_unproven(trial: Trial) -> None:
    """A removal that nothing was replayed for is a hope, unless nobody can have used the index."""
    if not trial.before:
        reason = "no statement could be replayed on the copy, so nobody knows who needs it"
        hoped = {a.name: reason for a in trial.standing if a.kind == REMOVE and a.undo}
        trial.refused |= hoped
        trial.take_back([*hoped])
