"""Constraints that were added NOT VALID and never validated: old rows may break them, no plan rests on them.

Source: PostgreSQL manual, ALTER TABLE, "ADD table_constraint [ NOT VALID ]", "VALIDATE CONSTRAINT".
"""

from collections.abc import Iterable, Iterator

from aiprod_ops.domain.catalogue.faults import Fault, Level
from aiprod_ops.domain.catalogue.indexes import Unvalidated


def faults(constraints: Iterable[Unvalidated]) -> Iterator[Fault]:
    for each in constraints:
        note = (
            f"a {each.kind} constraint that nobody checked the old rows for; look for rows that break it, then "
            f"`{each.validation}` (reads the whole table; reads and writes go on)"
        )
        yield Fault("not-valid", f"{each.table}.{each.name}", Level.WARNING, note)
