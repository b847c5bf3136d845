"""What repairs the faults of indexes, as actions that can be planned, done and taken back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiprod_ops.actions.index_builds import LOCK, LONGEST, Build, build_estimate, create_index, drop_index
from aiprod_ops.actions.index_repairs import keep_index, rebuild_index, remove_index, restore_index
from aiprod_ops.domain.advice.coverage import NewIndex, name_for
from aiprod_ops.domain.advice.selectivity import index_size
from aiprod_ops.domain.catalogue.faults import Build as Missing
from aiprod_ops.domain.catalogue.faults import Drop, Existing, Fault, Rebuild, Repair, Restore
from aiprod_ops.domain.catalogue.usage import UsageSnapshot
from aiprod_ops.domain.plans import Action, Estimate
from aiprod_ops.domain.schema import Name, Schema, Table, TableSize
from aiprod_ops.units import Bytes, Seconds

#: What is missing comes first, what is removed last: nothing is without an index in between.
_ORDER: tuple[type[Repair], ...] = (Missing, Restore, Rebuild, Drop)
_EMPTY = TableSize(0.0, 0, Bytes(0), {})
_QUICK = Estimate(Seconds(1))


@dataclass(frozen=True, slots=True)
class Basis:
    """What a repair rests on: the table as declared, and how often each node had used an index that goes as unused."""

    table: Table | None
    scans: dict[str, int]


def repairs(
    faults: Iterable[Fault], schema: Schema, sizes: Mapping[str, TableSize], usage: UsageSnapshot
) -> Iterator[Action]:
    """One action for each index that a fault wants repaired; one that goes is not rebuilt before.

    `usage` is what every node had counted when the facts were read.
    """
    made = _Repairs({table.name: table for table in schema.tables}, schema, sizes, usage)
    wanted = [(fault, fault.repair) for fault in faults if fault.repair is not None]
    chosen: dict[object, tuple[Fault, Repair]] = {}
    for fault, repair in sorted(wanted, key=lambda pair: (-_ORDER.index(type(pair[1])), pair[0].id)):
        about = (repair.table, repair.keys) if isinstance(repair, Missing) else repair.index.name
        chosen.setdefault(about, (fault, repair))
    for fault, repair in sorted(chosen.values(), key=lambda pair: (_ORDER.index(type(pair[1])), pair[0].id)):
        yield made.action(fault, repair)


class _Repairs:
    """Actions for one schema; the names of new indexes are chosen so that none is taken twice."""

    def __init__(
        self, tables: Mapping[Name, Table], schema: Schema, sizes: Mapping[str, TableSize], usage: UsageSnapshot
    ) -> None:
        self._tables, self._sizes, self._usage, self._revision = tables, sizes, usage, schema.revision
        self._taken = {index.name.name for table in schema.tables for index in table.indexes}
        self._taken |= {name.name for name in (*schema.taken, *tables)}

    def action(self, fault: Fault, repair: Repair) -> Action:
        if isinstance(repair, Missing):
            return self._build(fault, repair)
        index = replace(repair.index, revision=self._revision)
        details: dict[str, Any] = {"name": index.name.name, "answers": fault.id, "lock": LOCK, "timeout": LONGEST}
        details["basis"] = Basis(self._tables.get(index.table), self._scans(fault, index))
        match repair:
            case Restore():
                undo = remove_index(index, name=index.name.name)
                return restore_index(index, undo=undo, estimate=self._estimate(index), **details)
            case Rebuild():
                undo = keep_index(index, name=index.name.name)
                return rebuild_index(index, undo=undo, estimate=self._estimate(index), **details)
            case Drop() if self._is_valid(index):
                undo = restore_index(index, name=index.name.name)
                return remove_index(index, undo=undo, estimate=_QUICK, **details)
        gone = "an INVALID index serves nobody and costs every write"
        return remove_index(index, irreversible=gone, estimate=_QUICK, **details)

    def _build(self, fault: Fault, repair: Missing) -> Action:
        table, size = self._tables[repair.table], self._sizes.get(str(repair.table), _EMPTY)
        name = name_for(table, repair.keys, self._taken)
        self._taken.add(name.name)
        index = NewIndex(name, table.name, repair.keys)
        return create_index(
            Build(index, revision=self._revision), basis=Basis(table, {}), undo=drop_index(Build(index)), lock=LOCK,
            estimate=build_estimate(size, index_size(repair.keys, table, size)), timeout=LONGEST, answers=fault.id,
        )  # fmt: skip

    def _scans(self, fault: Fault, index: Existing) -> dict[str, int]:
        if fault.kind != "unused":
            return {}
        return {node: usage.scans.get(str(index.name), 0) for node, usage in sorted(self._usage.nodes.items())}

    def _estimate(self, index: Existing) -> Estimate:
        return build_estimate(self._sizes.get(str(index.table), _EMPTY), index.size)

    def _is_valid(self, index: Existing) -> bool:
        """As declared when the facts were read; a partition's or a view's index that the schema does not list is."""
        table = self._tables.get(index.table)
        found = [each for each in table.indexes if each.name == index.name] if table else []
        return all(each.is_valid and each.is_ready for each in found)
