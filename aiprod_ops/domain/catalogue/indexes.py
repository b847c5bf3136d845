"""What the server's catalogue and statistics say: indexes, foreign keys, sequences, constraints, collations, roles."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from aiprod_ops.domain.catalogue.faults import Existing
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import Bytes, Ratio


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first few of many names.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index with all that others need it for, and what it was used for.

    A key's text holds its collation where that is not the column's own, and its operator class has its parameters: two
    keys are the same if and only if they are equal. `is_live` is false after a DROP INDEX CONCURRENTLY that did not
    end. `referenced_by` are foreign keys of other tables that rest on it. `parent` is the partitioned index it belongs
    to at the top, `unattached` the partitions that lack an index of a partitioned one. `building` says who is building,
    rebuilding or dropping it right now.
    `leading_nulls` is the share of NULLs in the first key: None where the role may not see it or ANALYZE never ran;
    `changed` the share of the table's rows that were written since.
    """

    name: Name
    table: Name
    definition: str
    keys: tuple[Key, ...]
    method: str = "btree"
    include: tuple[str, ...] = ()
    predicate: str = ""
    is_unique: bool = False
    nulls_not_distinct: bool = False
    is_deferrable: bool = False
    is_valid: bool = True
    is_ready: bool = True
    is_live: bool = True
    constraint: str = ""
    constraint_kind: str = ""  #: pg_constraint's letter: p(rimary key), u(nique), x (exclusion)
    referenced_by: tuple[str, ...] = ()
    is_replica_identity: bool = False
    is_clustered: bool = False
    is_partitioned: bool = False
    parent: Name | None = None
    unattached: tuple[Name, ...] = ()
    fillfactor: int = 90
    filenode: int = 0
    size: Bytes = Bytes(0)
    table_size: Bytes = Bytes(0)  #: without TOAST: what has to be read to look for every row in the index
    rows: float = 0.0
    owner: str = ""
    building: str = ""
    leading_nulls: float | None = None
    changed: float = 0.0
    hides_statistics: bool = False  #: the role may not read the first key's statistics
    collations: tuple[str, ...] = ()  #: by which it sorts or compares; `default` is the database's own

    @property
    def existing(self) -> Existing:
        """The index as a repair takes it."""
        return Existing(self.name, self.table, self.definition, self.filenode, self.size)

    @property
    def is_usable(self) -> bool:
        return self.is_valid and self.is_ready and self.is_live

    @property
    def is_needed(self) -> bool:
        """Something other than queries rests on it: it cannot go, or something breaks that no plan shows."""
        return bool(
            self.constraint or self.referenced_by or self.is_replica_identity or self.is_clustered or self.parent
        )


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key's referencing side. `partitions` are the leaves of a partitioned table."""

    name: str
    table: Name
    columns: tuple[str, ...]
    referenced: Name
    rows: float = 0.0
    is_partitioned: bool = False
    partitions: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequence:
    """How far a sequence has come. `last` is None before its first value, and where the role may not read it.

    `columns` are those that take their values from it, with the largest value of their type.
    """

    name: Name
    last: int | None
    smallest: int
    largest: int
    increment: int = 1
    cycles: bool = False
    is_hidden: bool = False
    columns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unvalidated:
    """A constraint that new rows obey and nobody checked the old ones for. `validation` is the SQL that would."""

    name: str
    table: str
    kind: str
    validation: str


@dataclass(frozen=True, slots=True)
class CollationState:
    """A collation as recorded when it was made, and as the operating system has it now; both empty without versions."""

    name: str
    recorded: str
    actual: str
    refresh: str  #: the SQL that records the new version after the indexes were rebuilt


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension that reads index pages. `schema` is empty where it is missing, `grant` what opens it to the role."""

    name: str
    schema: str = ""
    may_execute: bool = False
    grant: str = ""

    @property
    def missing(self) -> str:
        """What has to be done before it can be used; empty when nothing has to."""
        if not self.schema:
            return f"the extension {self.name} is missing: `CREATE EXTENSION {self.name}`"
        return "" if self.may_execute else f"this role may not use {self.name}: `{self.grant}`"


@dataclass(frozen=True, slots=True)
class FailedBuild:
    """A statement that should have built an index and ended in an error, from the server's log."""

    index: str
    table: str
    role: str
    application: str
    at: str
    message: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of one database. `role` is quoted as SQL needs it; `reads_statistics` is pg_read_all_stats (pg_monitor)."""

    version: int
    database: str
    role: str
    reads_statistics: bool
    is_standby: bool
    indexes: tuple[IndexState, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    unvalidated: tuple[Unvalidated, ...] = ()
    collations: tuple[CollationState, ...] = ()
    pgstattuple: Extension = Extension("pgstattuple")
    amcheck: Extension = Extension("amcheck")
    failed_builds: tuple[FailedBuild, ...] = ()
    log_missing: str = ""  #: why the log could not tell who left an index, if it was asked


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an operator may set. Sources of the defaults stand with `service.toml` and the checks."""

    window: float  #: seconds an index has to be idle for on every node
    bloat: Ratio  #: share of an index that a rebuild gives back
    least: Bytes  #: smaller indexes are not looked at for NULLs and bloat
    nulls: Ratio
    sequence_warning: Ratio
    sequence_critical: Ratio
