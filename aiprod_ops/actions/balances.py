"""Weighing new indexes on a copy by all that was measured there: calls × what each statement gains or loses.

A read counts for the indexes in its plan. A write pays for every index of its table: with several new ones it runs
once more without each, which is left out by `DROP INDEX` in a transaction that is rolled back. What writes there and
could not be measured weighs by the estimate that the advice rests on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aiprod_ops.actions.index_builds import Build
from aiprod_ops.actions.measurements import LONGEST, PLANS, Measured, buffers_of, changed, explained
from aiprod_ops.actions.trials import Trial, median
from aiprod_ops.domain.advice.balance import Balance, Weight, best
from aiprod_ops.domain.advice.writes import cost, indexed, writes
from aiprod_ops.domain.schema import Key, Name, Schema, TableSize
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.errors import Failed, TimedOut

#: A write that takes so much of the database's time is measured whatever else is; where it cannot be, that is said.
LARGE = 0.05


@dataclass(frozen=True)
class Scales:
    """The workload of the source, by which the builds of a plan are weighed; `schema` is without them.

    `changed` are the tables that each statement writes, `calls` how often it was called, by query id. `alone` keeps
    what writes took with all new indexes of their table, and without one of them.
    """

    builds: Mapping[str, Build]
    workload: Workload
    schema: Schema
    sizes: Mapping[str, TableSize]
    changed: Mapping[int, frozenset[Name]]
    calls: Mapping[int, int]
    alone: dict[tuple[int, frozenset[str], str], Measured | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls, builds: Mapping[str, Build], workload: Workload, schema: Schema, sizes: Mapping[str, TableSize]
    ) -> "Scales":
        asked = [(number, text) for build in builds.values() for number, text in build.serves]
        texts = dict([*asked, *((each.query_id, each.text) for each in workload.statements)])
        tables = {query_id: changed(text, schema) for query_id, text in texts.items()}
        calls = {each.query_id: each.calls for each in workload.statements}
        return cls(builds, workload, schema, sizes, tables, calls)

    def loss(self, trial: Trial) -> tuple[str, str] | None:
        """The index that costs the workload more than it saves, the worst one first; else the one that saves least on a
        table whose new indexes do so together: each one alone may leave HOT to the others to lose."""
        weighed = {name: self.balance(trial, [name]) for name in self._standing(trial) if self._is_counted(name)}
        lost = {name: balance for name, balance in weighed.items() if balance.is_loss}
        if lost:
            name = min(lost, key=lambda each: (lost[each].net.buffers, each))
            return name, f"costs the workload more than it saves: {lost[name]}"
        for table in sorted({self.builds[name].index.table for name in weighed}):
            names = [name for name in weighed if self.builds[name].index.table == table]
            everyone = [name for name in self._standing(trial) if self._is_of(name, table)]
            if len(names) == len(everyone) > 1 and (together := self.balance(trial, names)).is_loss:
                name = min(names, key=lambda each: (weighed[each].net.buffers, each))
                return name, f"the new indexes of {table} cost the workload more than they save: together {together}"
        return None

    def balance(self, trial: Trial, names: Sequence[str]) -> Balance:
        """What these indexes, all of one table, gain and lose a minute; by the kind of plan that gains more."""
        paid = Weight.total([*self._paid(trial, names), *self._estimated(trial, names)])
        return best([Balance(Weight.total(self._read(trial, names, kind)), paid) for kind in PLANS])

    def notes(self, trial: Trial) -> Iterator[str]:
        """What each index gains and loses, and which large writes are weighed by an estimate."""
        for name in self._standing(trial):
            yield f"{name} {self.balance(trial, [name])}"
        everywhere = {each.query_id: each for name in self.builds for each in self._unmeasured(trial, name)}
        for statement in everywhere.values():
            share = self.workload.share(statement)
            if share >= LARGE:
                yield f"weighed by an estimate, though it takes {share:.0%} of the time: {statement.text[:80]}"

    def _standing(self, trial: Trial) -> list[str]:
        return sorted(self.builds.keys() - trial.refused.keys())

    def _read(self, trial: Trial, names: Sequence[str], kind: str) -> Iterator[Weight]:
        """What reads gain: each shared by the new indexes in its plan. Without a plan of this kind the custom one."""
        standing = set(self._standing(trial))
        table = self.builds[names[0]].index.table
        for query_id, numbers in self._by_statement(trial).items():
            if table in self.changed[query_id]:
                continue
            chosen = [n for n in numbers if trial.wanted[n].plan == kind] or numbers
            for number in chosen:
                users = trial.after[number].indexes & standing
                part = len(users & set(names)) / len(users) if users else 0.0
                gained = _gained(trial.before[number], trial.after[number])
                yield gained.times(part * self._rate(query_id) / len(chosen))

    def _paid(self, trial: Trial, names: Sequence[str]) -> Iterator[Weight]:
        """What writes on the table gain, mostly less than 0."""
        table = self.builds[names[0]].index.table
        here = frozenset(name for name in self._standing(trial) if self.builds[name].index.table == table)
        for query_id, numbers in self._by_statement(trial).items():
            if table not in self.changed[query_id]:
                continue
            chosen = [n for n in numbers if trial.wanted[n].plan == "custom"]
            for number in chosen:
                is_all = here == frozenset(names)
                gained = (
                    _gained(trial.before[number], trial.after[number])
                    if is_all
                    else self._alone(trial, number, here, names[0])
                )
                yield gained.times(self._rate(query_id) / len(chosen))

    def _alone(self, trial: Trial, number: int, here: frozenset[str], name: str) -> Weight:
        """What one index of several does to a write: nothing is known where it does not run without it."""
        with_all, without = self._once(trial, number, here), self._once(trial, number, here, name)
        return _gained(without, with_all) if with_all and without else Weight()

    def _once(self, trial: Trial, number: int, here: frozenset[str], left_out: str = "") -> Measured | None:
        """One run of a write on its table as it was: rows that are dead of the run before would have to be passed."""
        key = (number, here, left_out)
        if key not in self.alone:
            database, case = trial.copy.db, trial.wanted[number]
            inside = replace(case, subject=replace(case.subject, is_write=False))  # our transaction rolls it back
            trial.vacuum([case])
            database.query("begin")
            try:
                if left_out:
                    index = self.builds[left_out].index.name
                    database.execute("drop index {name}", names={"name": index}, timeout=LONGEST)
                run = explained(database, inside, analyze=True)
                self.alone[key] = Measured([buffers_of(run["Plan"])], [float(run["Execution Time"])])
            except (Failed, TimedOut):
                self.alone[key] = None
            finally:
                database.query("rollback")
        return self.alone[key]

    def _estimated(self, trial: Trial, names: Sequence[str]) -> Iterator[Weight]:
        """What writes that were not measured will pay, by the advice's own estimate."""
        standing = self._standing(trial)
        for name in names:
            index = self.builds[name].index
            table, size = self.schema.table(index.table.schema, index.table.name), self.sizes.get(str(index.table))
            if table is None or size is None:
                continue
            others: list[Sequence[Key]] = [indexed(each.keys, each.predicate) for each in table.indexes]
            others += [self.builds[n].index.keys for n in standing if n != name and self._is_of(n, index.table)]
            paid, _ = writes(self._unmeasured(trial, name), self.schema)
            if index.table in paid:
                spent = cost(index.keys, table, size, paid[index.table], others, index.where)
                yield Weight(-spent.buffers, -spent.ms).times(1 / self._minutes)

    def _is_counted(self, name: str) -> bool:
        """Whether the calls of all that it is for are known: the counters may have been reset since it was planned."""
        return all(query_id in self.calls for query_id, _ in self.builds[name].serves)

    def _is_of(self, name: str, table: Name) -> bool:
        return self.builds[name].index.table == table

    def _unmeasured(self, trial: Trial, name: str) -> list[Statement]:
        """Writes on an index's table that nothing was measured of."""
        measured = self._by_statement(trial).keys()
        table = self.builds[name].index.table
        return [s for s in self.workload.statements if s.query_id not in measured and table in self.changed[s.query_id]]

    def _by_statement(self, trial: Trial) -> dict[int, list[int]]:
        """The cases that were measured before and after, by query id."""
        found: dict[int, list[int]] = {}
        for number, _, _ in trial.both():
            found.setdefault(trial.wanted[number].subject.statement.query_id, []).append(number)
        return found

    @property
    def _minutes(self) -> float:
        return max(float(self.workload.window) / 60, 1e-9)

    def _rate(self, query_id: int) -> float:
        """Calls a minute."""
        return self.calls.get(query_id, 0) / self._minutes


def _gained(then: Measured, now: Measured) -> Weight:
    """One call, before and after; what ran out of time before, and does not now, read more than anybody counted."""
    ms = median(then.ms) - median(now.ms)
    if then.timed_out or now.timed_out:
        known = then.timed_out - now.timed_out
        return Weight(known * math.inf if known else 0.0, ms)
    return Weight(median(then.buffers) - median(now.buffers), ms)
