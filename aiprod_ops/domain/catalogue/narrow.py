"""Indexes that do a part of what the workload needs, where a wider one would do it all."""

from collections.abc import Iterator, Mapping

from aiprod_ops.domain.advice.indexes import advise
from aiprod_ops.domain.catalogue.faults import Fault, Level, Widen
from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.schema import Schema, TableSize
from aiprod_ops.domain.statements import Workload


def faults(catalogue: Catalogue, workload: Workload, schema: Schema, sizes: Mapping[str, TableSize]) -> Iterator[Fault]:
    """One for each index that an advised one would replace, and that nothing but queries needs."""
    known = {index.name: index for index in catalogue.indexes}
    for candidate in advise(workload.statements, schema, sizes).candidates:
        for name in candidate.replaces:
            index = known.get(name)
            if index is None or index.is_needed or index.is_unique or index.building:
                continue
            wide = ", ".join(candidate.index.columns)
            note = f"({wide}) would do its work and that of {len(candidate.serves)} statements: {candidate.reason}"
            yield Fault("narrow", str(name), Level.WARNING, note, Widen(index.existing, candidate.index.keys))
