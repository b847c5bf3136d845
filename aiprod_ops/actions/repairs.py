"""What repairs the faults of indexes, as actions that can be planned, done and taken back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from aiprod_ops.actions.index_builds import LOCK, LONGEST, Build, build_estimate, create_index, creation, drop_index
from aiprod_ops.actions.index_readings import index_usage
from aiprod_ops.actions.index_repairs import rebuild_index, remove_index, restore_index, restoring
from aiprod_ops.domain.advice.coverage import NewIndex, exists, name_for
from aiprod_ops.domain.advice.selectivity import index_size
from aiprod_ops.domain.catalogue.faults import Build as Missing
from aiprod_ops.domain.catalogue.faults import Drop, Existing, Fault, Rebuild, Repair, Restore, Widen
from aiprod_ops.domain.catalogue.usage import UsageSnapshot
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.plans import Action, Estimate, Plan
from aiprod_ops.domain.revisions import Declared, alembic_revision
from aiprod_ops.domain.schema import Key, Name, Schema, Table, TableSize
from aiprod_ops.engine.runbook import Context, Kind
from aiprod_ops.units import Bytes, Seconds

Single = Missing | Restore | Rebuild | Drop
#: What is missing comes first, what is removed last: nothing is without an index in between.
_ORDER: tuple[type[Single], ...] = (Missing, Restore, Rebuild, Drop)
_EMPTY = TableSize(0.0, 0, Bytes(0), {})
_QUICK = Estimate(Seconds(1))


@dataclass(frozen=True, slots=True)
class Basis:
    """What a repair rests on: the table as declared, and how often each node had used an index that goes as unused."""

    table: Table | None
    scans: dict[str, int]


def repairs(
    faults: Iterable[Fault],
    schema: Schema,
    filenodes: Mapping[str, int],
    sizes: Mapping[str, TableSize],
    usage: UsageSnapshot,
) -> Iterator[Action]:
    """One action for each index that a fault wants repaired; one that goes is not rebuilt before.

    Schema and filenodes are as they are now, faults, `sizes` and `usage` (what every node had counted) may be older:
    what was repaired meanwhile is not planned.
    """
    made = _Repairs({table.name: table for table in schema.tables}, schema, filenodes, sizes, usage)
    parts = [(fault, repair) for fault in faults for repair in _parts(fault.repair)]
    wanted = [(fault, repair) for fault, repair in parts if made.is_due(repair)]
    chosen: dict[object, tuple[Fault, Single]] = {}
    for fault, repair in sorted(wanted, key=lambda pair: (-_ORDER.index(type(pair[1])), pair[0].id)):
        about = (repair.table, repair.keys) if isinstance(repair, Missing) else repair.index.name
        chosen.setdefault(about, (fault, repair))
    coming = [repair for _, repair in chosen.values()]
    for fault, repair in sorted(chosen.values(), key=lambda pair: (_ORDER.index(type(pair[1])), pair[0].id)):
        if not (isinstance(repair, Missing) and any(_begins_with(other, repair) for other in coming)):
            yield made.action(fault, repair)


def _begins_with(other: Single, missing: Missing) -> bool:
    """Whether another index of the same plan has the missing one's keys first: then both would be one too many."""
    columns = [key.column for key in missing.keys]
    if isinstance(other, Missing):
        theirs = [key.column for key in other.keys]
        return other.table == missing.table and len(theirs) > len(columns) and theirs[: len(columns)] == columns
    if not isinstance(other, Restore) or other.index.table != missing.table or " WHERE " in other.index.definition:
        return False
    keys = other.index.definition.partition(" USING btree (")[2].rstrip(")").split(", ")
    return keys[: len(columns)] == columns


def _parts(repair: Repair | None) -> list[Single]:
    """A wider index is built, then the narrow one goes: two actions."""
    if isinstance(repair, Widen):
        return [Missing(repair.index.table, repair.keys), Drop(repair.index, instead=repair.keys)]
    return [] if repair is None else [repair]


class _Repairs:
    """Actions for one schema; the names of new indexes are chosen so that none is taken twice."""

    def __init__(
        self,
        tables: Mapping[Name, Table],
        schema: Schema,
        filenodes: Mapping[str, int],
        sizes: Mapping[str, TableSize],
        usage: UsageSnapshot,
    ) -> None:
        self._tables, self._filenodes, self._sizes, self._usage = tables, filenodes, sizes, usage
        self._revision = schema.revision
        self._built: dict[tuple[Name, tuple[Key, ...]], Name] = {}
        self._taken = {index.name.name for table in schema.tables for index in table.indexes}
        self._taken |= {name.name for name in (*schema.taken, *tables)}

    def is_due(self, repair: Single) -> bool:
        """Whether the schema is still as the fault says."""
        table = self._tables.get(repair.table if isinstance(repair, Missing) else repair.index.table)
        if table is None:
            return False
        if isinstance(repair, Missing):
            return exists(NewIndex(table.name, table.name, repair.keys), table) is None
        there = next((each for each in table.indexes if each.name == repair.index.name), None)
        if isinstance(repair, Restore):
            return there is None or not (there.is_valid and there.is_ready)
        if there is None or there.definition != repair.index.definition:
            return False
        return not isinstance(repair, Rebuild) or self._filenodes.get(str(there.name)) == repair.index.filenode

    def action(self, fault: Fault, repair: Single) -> Action:
        if isinstance(repair, Missing):
            return self._build(fault, repair)
        index = replace(repair.index, revision=self._revision)
        details: dict[str, Any] = {"name": index.name.name, "answers": fault.id, "lock": LOCK, "timeout": LONGEST}
        details["basis"] = Basis(self._tables.get(index.table), self._scans(fault, index))
        match repair:
            case Restore():
                undo = remove_index(index, name=index.name.name, lock=LOCK, estimate=_QUICK)
                return restore_index(index, undo=undo, estimate=self._estimate(index), **details)
            case Rebuild():
                same = "it is the same index, written anew: there is nothing to take back"
                return rebuild_index(index, irreversible=same, estimate=self._estimate(index), **details)
            case Drop(instead=keys) if self._is_valid(index):
                index = replace(index, keeper=self._built.get((index.table, keys), index.keeper))
                undo = restore_index(index, name=index.name.name, lock=LOCK, estimate=self._estimate(index))
                return remove_index(index, undo=undo, estimate=_QUICK, **details)
        gone = "an INVALID index serves nobody and costs every write"
        return remove_index(index, irreversible=gone, estimate=_QUICK, **details)

    def _build(self, fault: Fault, repair: Missing) -> Action:
        table, size = self._tables[repair.table], self._sizes.get(str(repair.table), _EMPTY)
        name = name_for(table, repair.keys, self._taken)
        self._taken.add(name.name)
        self._built[repair.table, repair.keys] = name
        index = NewIndex(name, table.name, repair.keys)
        undo = drop_index(Build(index), lock=LOCK, estimate=_QUICK)
        return create_index(
            Build(index, revision=self._revision), basis=Basis(table, {}), undo=undo, lock=LOCK,
            estimate=build_estimate(size, index_size(repair.keys, table, size)), timeout=LONGEST, answers=fault.id,
        )  # fmt: skip

    def _scans(self, fault: Fault, index: Existing) -> dict[str, int]:
        if fault.kind != "unused":
            return {}
        return {node: usage.scans.get(str(index.name), 0) for node, usage in sorted(self._usage.nodes.items())}

    def _estimate(self, index: Existing) -> Estimate:
        return build_estimate(self._sizes.get(str(index.table), _EMPTY), index.size)

    def _is_valid(self, index: Existing) -> bool:
        there = (each for each in self._tables[index.table].indexes if each.name == index.name)
        return all(each.is_valid and each.is_ready for each in there)


def still_unused(context: Context, plan: Plan) -> Iterator[Finding]:
    """For each index that goes as unused: how often it was used since the facts were read, on any node."""
    bases = {action.name: msgspec.convert(msgspec.to_builtins(action.basis), Basis) for action in plan.actions}
    counted = {name: basis.scans for name, basis in bases.items() if basis.scans}
    if not counted:
        return
    now = index_usage(context, Seconds(0))[-1]
    subjects = {action.name: remove_index.subject(action) for action in plan.actions if action.name in counted}
    for name, scans in sorted(counted.items()):
        metric = f"uses of {name} since it was planned"
        if unread := sorted(scans.keys() - now.nodes.keys()):
            yield Finding(metric, None, note=f"{', '.join(unread)} cannot be read")
            continue
        full = str(subjects[name].name)
        more = sum(now.nodes[node].scans.get(full, 0) - count for node, count in scans.items())
        yield Finding(metric, float(more), "", crit=1)


def revision_of(plan: Plan, kinds: Mapping[str, Kind[Any]]) -> Mapping[str, str]:
    """The Alembic revision of a plan's new and removed indexes. What was missing or is rebuilt is declared already;
    an INVALID index never was."""
    created: list[Declared] = []
    removed: list[Declared] = []
    revision = ""
    for action in plan.actions:
        subject = kinds[action.kind].subject(action)
        if isinstance(subject, Build):
            revision = subject.revision
            created.append(Declared(subject.index.name, creation(subject)))
        elif action.kind == remove_index.name and action.undo is not None:
            revision = subject.revision
            removed.append(Declared(subject.name, restoring(subject)))
    return alembic_revision(plan.runbook, plan.digest, revision, created=created, removed=removed)
