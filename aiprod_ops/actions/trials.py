"""Trying a plan on a restored copy: the workload is replayed before and after it, and each action answers for what
became worse by it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aiprod_ops.actions.index_builds import Build
from aiprod_ops.actions.measurements import Case, Measured, Subject, cases, changed, compared, gain, is_worse, measure
from aiprod_ops.domain.catalogue.faults import Existing
from aiprod_ops.domain.plans import Action, Plan
from aiprod_ops.domain.proofs import Comparison, Sampled
from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.engine.runbook import Copy
from aiprod_ops.errors import Failed
from aiprod_ops.units import Seconds, show

_BUILDS = ("create-index", "restore-index")
REMOVE = "remove-index"

#: What a removal may cost one call: 1.2 × the buffers, and no more than a descent or two through a wider b-tree.
#: No time is asked for here: a statement of 0.1 ms that takes 1 ms is ten times as bad when it is called all day.
MORE_BUFFERS, FEW_BUFFERS = 1.2, 10
_VACUUM = Seconds(3600)


@dataclass
class Trial:
    """A plan on a copy: `before` and `after` are what each of the `wanted` cases took, by number.

    `schema` is that of the target. `refused` maps the names of actions to the reason; what is refused is taken back on
    the copy. Those that `failed` were not tried at all. `trouble` tells what could not be measured.
    """

    copy: Copy
    plan: Plan
    wanted: list[Case]
    schema: Schema
    before: dict[int, Measured] = field(default_factory=dict)
    after: dict[int, Measured] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    trouble: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, copy: Copy, plan: Plan, found: Sequence[Subject], schema: Schema) -> "Trial":
        """The workload as it is without the plan."""
        trial = cls(copy, plan, cases(found), schema)
        trial.before, trial.trouble = measure(copy.db, trial.wanted, copy.context.report)
        return trial

    @property
    def names(self) -> dict[str, Name]:
        """The index that each action is about."""
        return {action.name: _index(self.copy.kinds[action.kind].subject(action)) for action in self.plan.actions}

    @property
    def standing(self) -> list[Action]:
        """The actions that are not refused."""
        return [action for action in self.plan.actions if action.name not in self.refused]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(compared(self.wanted, self.before, self.after))

    def both(self) -> Iterator[tuple[int, Measured, Measured]]:
        """Each case that was measured before and after, by number."""
        for number in sorted(self.before.keys() & self.after.keys()):
            yield number, self.before[number], self.after[number]

    def apply(self) -> None:
        """Do what is not refused. What fails on the copy would fail on the target."""
        for action in self.standing:
            self.copy.context.report(f"{action.kind} {action.name} on the copy")
            try:
                self.copy.apply([action])
            except Failed as error:
                self.refused[action.name] = f"it fails on the copy: {error.message}"
                self.failed.add(action.name)
                self.take_back([action.name])

    def measure(self) -> None:
        """The workload as it is with the plan. What measuring left dead goes first: before there was nothing of it."""
        self.vacuum(self.wanted)
        self.after, more = measure(self.copy.db, self.wanted, self.copy.context.report)
        self.trouble += more

    def vacuum(self, measured: Sequence[Case]) -> None:
        """Clear away the rows that measuring these writes, and taking them back, has left dead."""
        for table in sorted({table for case in measured for table in self._written(case)}):
            self.copy.db.execute("vacuum {table}", names={"table": table}, timeout=_VACUUM)

    def refuse(self, name: str, reason: str) -> None:
        """Refuse an action: take it back, and measure the cases again whose plans had to do with it, and the writes."""
        self.refused[name] = reason
        self.take_back([name])
        index, table = self.names[name].name, self._table(name)
        users = [
            n for n, then, now in self.both()
            if index in then.indexes | now.indexes or table in self._written(self.wanted[n])
        ]  # fmt: skip
        self.vacuum([self.wanted[n] for n in users])
        again, _ = measure(self.copy.db, [self.wanted[n] for n in users], self.copy.context.report)
        self.after |= {n: again[position] for position, n in enumerate(users) if position in again}

    def _table(self, name: str) -> Name:
        subject = next(self.copy.kinds[a.kind].subject(a) for a in self.plan.actions if a.name == name)
        return subject.index.table if isinstance(subject, Build) else subject.table

    def _written(self, case: Case) -> frozenset[Name]:
        return changed(case.subject.statement.text, self.schema) if case.subject.is_write else frozenset()

    def take_back(self, names: Sequence[str]) -> None:
        for action in self.plan.actions:
            if action.name in names and action.undo is not None:
                self.copy.apply([action.undo])

    def settle(self, *rules: "Callable[[Trial], tuple[str, str] | None]") -> None:
        """Refuse what makes a case worse, the worst first, then what the rules name, until all that stands is good."""
        while (verdict := next(filter(None, (rule(self) for rule in (worst, *rules))), None)) is not None:
            self.refuse(*verdict)


def worst(trial: Trial) -> tuple[str, str] | None:
    """The action to refuse next, and why: the one that answers for the case that became worst."""
    names = trial.names
    removed = {names[a.name].name: a.name for a in trial.standing if a.kind == REMOVE}
    built = {names[a.name].name: a.name for a in trial.standing if a.kind in _BUILDS}
    found: list[tuple[float, str, int]] = []
    for number, then, now in trial.both():
        guilty = [removed[index] for index in then.indexes & removed.keys() if _costs_more(then, now)]
        guilty += [built[index] for index in now.indexes & built.keys() if is_worse(then, now)]
        found += [(gain(then, now), name, number) for name in guilty]
    if not found:
        return None
    _, name, number = min(found)
    case = trial.wanted[number]
    text = " ".join(case.subject.statement.text.split())[:80]
    told = figures(trial.before[number], trial.after[number])
    return name, f"makes “{text}” worse ({case.values.kind} values, {case.plan} plan): {told}"


def figures(then: Measured, now: Measured) -> str:
    """Before and after, in buffers and time."""
    return (
        f"{median(then.buffers):,.0f} → {median(now.buffers):,.0f} buffers, "
        f"{show(median(then.ms), 'ms')} → {show(median(now.ms), 'ms')}"
    )


def median(values: Sequence[float]) -> float:
    """0 where nothing could be measured."""
    return Sampled.of(values or [0.0]).median


def _index(subject: Build | Existing) -> Name:
    return subject.index.name if isinstance(subject, Build) else subject.name


def _costs_more(then: Measured, now: Measured) -> bool:
    if now.timed_out:
        return not then.timed_out
    more = median(now.buffers) - median(then.buffers)
    return more > FEW_BUFFERS and median(now.buffers) > MORE_BUFFERS * median(then.buffers)
