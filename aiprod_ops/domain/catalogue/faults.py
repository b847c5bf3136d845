"""A fault of an index, a sequence or a constraint, and what would repair it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import Bytes


@dataclass(frozen=True, slots=True)
class Existing:
    """An index as it stands: `definition` is what `pg_get_indexdef` prints, `filenode` the file it is in now.

    A rebuild gives it another file, so the filenode tells whether it took place. `revision` is the schema's in Alembic.
    `keeper` is the index that does its work, with its definition where that is known: as long as it is not there and
    valid this one is not removed.
    """

    name: Name
    table: Name
    definition: str
    filenode: int = 0
    size: Bytes = Bytes(0)
    revision: str = ""
    keeper: Name | None = None
    keeper_definition: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the index; its definition is kept, so that it can come back. `instead` are the keys of the one that is
    built in its place."""

    index: Existing
    instead: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Write the index anew beside the old one (REINDEX INDEX CONCURRENTLY)."""

    index: Existing


@dataclass(frozen=True, slots=True)
class Build:
    """A plain b-tree that is missing; its name is chosen when it is planned."""

    table: Name
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """An index that should be there: `definition` is a whole CREATE INDEX, as `pg_get_indexdef` prints it."""

    index: Existing


@dataclass(frozen=True, slots=True)
class Widen:
    """A wider index in the place of one whose keys it begins with: the wide one is built, then the narrow one goes."""

    index: Existing
    keys: tuple[Key, ...]


Repair = Drop | Rebuild | Build | Restore | Widen


#: Every kind of fault that there is.
Kind = Literal[
    "bloat", "collation", "damage", "different", "drift", "duplicate", "foreign-key", "invalid", "missing",
    "mostly-null", "narrow", "not-valid", "remains", "renamed", "sequence", "statistics", "undeclared", "unused",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)


class Level(StrEnum):
    """How bad a fault is: it waits for a working day, it costs or threatens now, or nobody can tell."""

    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `kind` and `subject` make its stable id.

    `note` says what was seen and why it matters; of an UNKNOWN one what would let us see, with the SQL in backticks.
    Without a repair it ends with what a person has to do.
    """

    kind: Kind
    subject: str
    level: Level
    note: str
    repair: Repair | None = None

    @property
    def id(self) -> str:
        """The same fault has the same id on every check: waivers and comparisons go by it."""
        return f"{self.kind}:{self.subject}"

    @property
    def finding(self) -> Finding:
        """The fault as a judged measurement."""
        metric = f"{self.kind}: {self.subject}"
        if self.level is Level.UNKNOWN:
            return Finding(metric, None, note=self.note, id=self.id)
        grade = 2.0 if self.level is Level.CRITICAL else 1.0
        return Finding(metric, grade, "grade", warn=1, crit=2, note=self.note, id=self.id)
