"""Trying repairs of indexes on a restored copy: the workload is replayed before and after, and each repair answers for
what became worse by it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from aiprod_ops.actions.index_builds import Build, index_size
from aiprod_ops.actions.measurements import Case, Measured, cases, compared, is_worse, measure, subjects, tables_of
from aiprod_ops.actions.plan_flips import Flip, closed, flips_among
from aiprod_ops.actions.worth import worth
from aiprod_ops.domain.advice.indexes import advise
from aiprod_ops.domain.catalogue.faults import Existing
from aiprod_ops.domain.plans import Plan
from aiprod_ops.domain.proofs import Proof, Sampled
from aiprod_ops.domain.schema import Name, Schema, TableSize
from aiprod_ops.domain.sql.trees import Unreadable
from aiprod_ops.domain.sql.writes import written
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.engine.runbook import Copy
from aiprod_ops.errors import Failed
from aiprod_ops.units import show

_BUILDS = ("create-index", "restore-index")
_REMOVE = "remove-index"

#: What a removal may cost one call: 1.2 × the buffers, and no more than a descent or two through a wider b-tree.
#: No time is asked for here: a statement of 0.1 ms that takes 1 ms is ten times as bad when it is called all day.
MORE_BUFFERS, FEW_BUFFERS = 1.2, 10


@dataclass(frozen=True, slots=True)
class Trial:
    """What the copy said: the proof, and the plan flips that are there with the repairs done."""

    proof: Proof
    flips: tuple[Flip, ...]


def try_repairs(
    copy: Copy, plan: Plan, workload: Workload, schema: Schema, sizes: Mapping[str, TableSize], *, most: int,
    least_gain: float,
) -> Trial:  # fmt: skip
    """Do each action on the copy and measure what it does to the `most` statements with the largest total time.

    Refused is what fails, what makes a statement worse, a removal when nothing could be replayed, and a rebuild that
    gives back less than `least_gain` of the index's size. The proof tells what each index is worth, too.
    """
    names = {action.name: _index(copy.kinds[action.kind].subject(action)) for action in plan.actions}
    replayed = [each for each in workload.statements if _is_of(each, schema)][:most]
    found, notes = subjects(copy.source, replayed, schema)
    wanted = cases(found)
    before, trouble = measure(copy.db, wanted, copy.context.report)
    values = worth(copy.db, _touched(schema, wanted, names.values()), wanted, before, workload, copy.context.report)
    was = {name: index_size(copy.db, index) for name, index in names.items()}
    refused = _applied(copy, plan)
    refused |= _unproven(plan, before, refused)
    _take_back(copy, plan, refused)
    after, more = measure(copy.db, wanted, copy.context.report)
    while (verdict := _worst(plan, names, wanted, before, after, refused)) is not None:
        name, reason = verdict
        refused[name] = reason
        _take_back(copy, plan, [name])
        after, _ = measure(copy.db, wanted, copy.context.report)
    for action in plan.actions:
        if action.kind == "rebuild-index" and action.name not in refused:
            now, then = index_size(copy.db, names[action.name]), was[action.name]
            told = f"{action.name}: {show(then, 'B')} → {show(now, 'B')}"
            if action.answers.startswith("bloat:") and now > (1 - least_gain) * then:
                refused[action.name] = f"a rebuild gives back too little: {told}; {least_gain:.0%} is asked for"
            else:
                notes.append(f"rebuilt on the copy: {told}")
    flipped = flips_among(copy.db, wanted, after, _preparing(copy, replayed))
    if flipped:
        copy.context.report(f"looking for what closes {len(flipped)} plan flips")
        candidates = advise([flip.statement for flip in flipped], copy.db.schema(), sizes).candidates
        flipped = closed(copy.db, flipped, found, [candidate.index for candidate in candidates])
    proof = Proof(
        tuple(compared(wanted, before, after)), refused, tuple(sorted({*notes, *trouble, *more})),
        tuple(each.columns for each in values),
    )  # fmt: skip
    return Trial(proof, tuple(flipped))


def _preparing(copy: Copy, statements: Sequence[Statement]) -> dict[int, tuple[str, ...]]:
    """Which applications prepare a statement, as far as the log of the last day tells."""
    since = copy.context.clock.now() - timedelta(days=1)
    known, _ = copy.source.logged([each.query_id for each in statements], since)
    return {query_id: logged.clients for query_id, logged in known.items()}


def _index(subject: Build | Existing) -> Name:
    """The index an action is about."""
    return subject.index.name if isinstance(subject, Build) else subject.name


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


def _applied(copy: Copy, plan: Plan) -> dict[str, str]:
    """Do every action; what fails on the copy would fail on the target: why, by name."""
    refused: dict[str, str] = {}
    for action in plan.actions:
        copy.context.report(f"{action.kind} {action.name} on the copy")
        try:
            copy.apply([action])
        except Failed as error:
            refused[action.name] = f"it fails on the copy: {error.message}"
    return refused


def _unproven(plan: Plan, before: Mapping[int, Measured], refused: Mapping[str, str]) -> dict[str, str]:
    """A removal that nothing was replayed for is a hope, unless nobody can have used the index."""
    if before:
        return {}
    reason = "no statement could be replayed on the copy, so nobody knows who needs it"
    return {a.name: reason for a in plan.actions if a.kind == _REMOVE and a.undo and a.name not in refused}


def _take_back(copy: Copy, plan: Plan, names: Sequence[str] | Mapping[str, str]) -> None:
    for action in plan.actions:
        if action.name in names and action.undo is not None:
            copy.apply([action.undo])


def _worst(
    plan: Plan,
    names: Mapping[str, Name],
    wanted: Sequence[Case],
    before: Mapping[int, Measured],
    after: Mapping[int, Measured],
    refused: Mapping[str, str],
) -> tuple[str, str] | None:
    """The action to refuse next, and why: the one that answers for the case that became worst."""
    standing = [action for action in plan.actions if action.name not in refused]
    removed = {names[a.name].name: a.name for a in standing if a.kind == _REMOVE}
    built = {names[a.name].name: a.name for a in standing if a.kind in _BUILDS}
    found: list[tuple[float, str, int]] = []
    for number in sorted(before.keys() & after.keys()):
        then, now = before[number], after[number]
        guilty = [removed[index] for index in then.indexes & removed.keys() if _costs_more(then, now)]
        guilty += [built[index] for index in now.indexes & built.keys() if is_worse(then, now)]
        found += [(_buffers(now) - _buffers(then), name, number) for name in guilty]
    if not found:
        return None
    _, name, number = max(found)
    return name, _told(wanted[number], before[number], after[number])


def _costs_more(then: Measured, now: Measured) -> bool:
    if now.timed_out:
        return not then.timed_out
    more = _buffers(now) - _buffers(then)
    return more > FEW_BUFFERS and _buffers(now) > MORE_BUFFERS * _buffers(then)


def _buffers(measured: Measured) -> float:
    return Sampled.of(measured.buffers or [0.0]).median


def _told(case: Case, then: Measured, now: Measured) -> str:
    return (
        f"makes “{' '.join(case.subject.statement.text.split())[:80]}” worse ({case.values.kind} values, {case.plan} "
        f"plan): {_buffers(then):,.0f} → {_buffers(now):,.0f} buffers"
    )
