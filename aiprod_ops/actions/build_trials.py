"""Trying new indexes on a restored copy: each has to help, and none may make a statement on its tables worse."""

from collections.abc import Iterator, Mapping, Sequence

from aiprod_ops.actions.balances import LARGE, Scales
from aiprod_ops.actions.index_builds import Build, build_of, create_index, index_size
from aiprod_ops.actions.measurements import changed, gain, subjects, tables_of
from aiprod_ops.actions.plan_flips import Flip, flips_among
from aiprod_ops.actions.refusals import keep_refusals
from aiprod_ops.actions.sieve import unwanted
from aiprod_ops.actions.trials import Trial, figures
from aiprod_ops.domain.plans import Plan
from aiprod_ops.domain.proofs import Proof
from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.engine.runbook import Copy
from aiprod_ops.units import Milliseconds, show


def try_builds(copy: Copy, plan: Plan, *, most: int, min_gain: float) -> Proof:
    """Build on the copy, measure before and after, refuse what makes any statement worse or helps too little.

    Measured are the statements that the indexes are for and others on their tables, `most` together, and besides each
    write that takes a large share of the time. An index has to save some case the factor `min_gain` of buffers, and the
    workload more than its writes lose.
    """
    builds = {action.name: build_of(action) for action in plan.actions if action.kind == create_index.name}
    workload, schema = copy.source.workload(), copy.source.schema()
    found, notes = subjects(copy.source, _around(builds, workload, schema, most), schema)
    trial, scales = Trial.of(copy, plan, found, schema), Scales.of(builds, workload, schema, copy.source.sizes())
    flipped = flips_among(copy.db, trial.wanted, trial.before)
    none = "no plan takes it, not even a hypothetical one (HypoPG on the copy)"
    trial.refused = dict.fromkeys(sorted(unwanted(copy.db, builds, found)), none)
    trial.apply()
    trial.measure()
    trial.settle(lambda trial: _outdone(trial, builds), scales.loss)
    for name in sorted(builds.keys() - trial.refused.keys()):
        best = max((gain(then, now) for _, then, now in trial.both() if name in now.indexes), default=0.0)
        if best < min_gain:
            trial.refused[name] = _too_little(best, min_gain)
    notes += [*_flips(flipped, flips_among(copy.db, trial.wanted, trial.after)), *_prices(trial), *trial.trouble]
    notes += scales.notes(trial)
    for name in sorted(builds.keys() - trial.refused.keys()):
        notes.append(f"{name} takes {show(index_size(copy.db, builds[name].index.name), 'B')} on the copy")
    tried = {name: build for name, build in builds.items() if _is_tried(trial, name, build)}
    keep_refusals(copy.context, tried.values(), trial.refused, schema)
    return Proof(trial.comparisons, trial.refused, tuple(sorted(set(notes))))


def _is_tried(trial: Trial, name: str, build: Build) -> bool:
    """Whether the verdict is one: the build did not fail, and something that the index is for was measured."""
    measured = {trial.wanted[number].subject.statement.query_id for number, _, _ in trial.both()}
    return name not in trial.failed and any(query_id in measured for query_id, _ in build.serves)


def served(build: Build) -> list[Statement]:
    """The statements an index is for, without figures."""
    nothing = Milliseconds(0)
    return [Statement(query_id, text, 0, nothing, nothing) for query_id, text in build.serves]


def _around(builds: Mapping[str, Build], workload: Workload, schema: Schema, most: int) -> list[Statement]:
    """The statements the plan is for, and the others on the same tables: none of them may become worse."""
    asked = {s.query_id: s for build in builds.values() for s in served(build)}
    tables = {build.index.table for build in builds.values()}
    counted = {s.query_id: s for s in workload.statements if s.query_id in asked}
    others = [s for s in workload.statements if s.query_id not in asked and _touched(s, schema) & tables]
    room = max(0, most - len(asked))
    large = [s for s in others[room:] if workload.share(s) >= LARGE and changed(s.text, schema) & tables]
    return [*(asked | counted).values(), *others[:room], *large]


def _touched(statement: Statement, schema: Schema) -> set[Name]:
    """The tables it reads, and those it only adds rows to."""
    return tables_of(statement, schema) | changed(statement.text, schema)


def _outdone(trial: Trial, builds: Mapping[str, Build]) -> tuple[str, str] | None:
    """An index that only generic plans use: with real values the planner prefers another one of those just built.

    Since PostgreSQL 18 an index on (a, b) may serve a statement that compares b alone ("skip scan").
    """
    standing = builds.keys() - trial.refused.keys()
    for name in sorted(standing):
        ids = {query_id for query_id, _ in builds[name].serves}
        asked = [
            now
            for number, now in trial.after.items()
            if trial.wanted[number].plan == "custom" and trial.wanted[number].subject.statement.query_id in ids
        ]
        is_used = any(name in now.indexes for now in trial.after.values())
        if is_used and asked and not any(name in now.indexes for now in asked):
            others = sorted({other for now in asked for other in now.indexes} & standing)
            return name, f"with real values the planner prefers {' and '.join(others) or 'to do without'}"
    return None


def _too_little(best: float, least: float) -> str:
    if best == 0.0:
        return "no measured statement uses it"
    return f"helps too little: at best {best:.2f} × fewer buffers, {least:g} × are asked for"


def _flips(before: Sequence[Flip], after: Sequence[Flip]) -> Iterator[str]:
    """Statements that become slow once their client prepares them: which ones the indexes close, which are left."""
    left = {flip.statement.query_id for flip in after}
    for flip in (*after, *(each for each in before if each.statement.query_id not in left)):
        told = f"{flip.custom_buffers.median:,.0f} → {flip.generic_buffers.median:,.0f}"
        state = "plan flip" if flip.statement.query_id in left else "plan flip closed by these indexes"
        taken = "" if flip.is_taken else "; the server stays with custom plans"
        yield f"{state}: {flip.statement.text[:80]}: {told} buffers with a generic plan{taken}"


def _prices(trial: Trial) -> Iterator[str]:
    """What the indexes cost statements that gained nothing, though not enough to be called worse: writes, mostly."""
    losers: dict[str, tuple[float, int]] = {}
    for number, then, now in trial.both():
        gained = gain(then, now)
        text = trial.wanted[number].subject.statement.text
        if gained < 1 / 1.2:
            losers[text] = min(losers.get(text, (gained, number)), (gained, number))
    for text, (_, number) in sorted(losers.items()):
        yield f"the price: {text[:80]}: {figures(trial.before[number], trial.after[number])}"
