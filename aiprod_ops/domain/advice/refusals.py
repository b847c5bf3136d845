"""Indexes that a copy refused: while that is fresh, and nothing about them has changed, they are not advised again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.advice.indexes import Candidate
from aiprod_ops.domain.plans import digest
from aiprod_ops.domain.schema import Name, Schema, Table

_NAMELESS = Name("", "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One index that was built on a copy, measured, and refused.

    `index` is the digest of its table, keys and rows, whatever it was called; `table` that of its table's declaration,
    the other indexes included.
    """

    index: str
    table: str
    reason: str
    taken: datetime

    @classmethod
    def of(cls, index: NewIndex, table: Table, reason: str, taken: datetime) -> "Refusal":
        return cls(digest(replace(index, name=_NAMELESS)), digest(table), reason, taken)

    def is_of(self, index: NewIndex, table: Table | None) -> bool:
        """Whether it is this index on this table, both as they are now."""
        return table is not None and (self.index, self.table) == (digest(replace(index, name=_NAMELESS)), digest(table))

    def __str__(self) -> str:
        return f"tried on a copy on {self.taken:%Y-%m-%d} and refused: {self.reason}"


def fresh(refusals: Iterable[Refusal], now: datetime, age: timedelta) -> tuple[Refusal, ...]:
    """Those that are not older than evidence may be."""
    return tuple(each for each in refusals if now - each.taken <= age)


def refused(candidates: Iterable[Candidate], refusals: Iterable[Refusal], schema: Schema) -> dict[Name, Refusal]:
    """The candidates that a copy has refused, by name; the newest word counts."""
    known = sorted(refusals, key=lambda each: each.taken)
    found: dict[Name, Refusal] = {}
    for index in (candidate.index for candidate in candidates):
        table = schema.table(index.table.schema, index.table.name)
        said = [each for each in known if each.is_of(index, table)]
        if said:
            found[index.name] = said[-1]
    return found
