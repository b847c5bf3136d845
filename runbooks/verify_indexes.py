"""Repair indexes that are broken, useless or missing, and see what else is about to fail in the schema.

Found are indexes that a failed build left INVALID or not ready, with who left them, and what REINDEX and DROP INDEX
left half done; duplicates, exact or as a prefix, DESC or with INCLUDE; indexes that a wider one would replace; indexes
that no query used on any node for 30 days; foreign keys without an index on the referencing side; indexes that hold
mostly NULLs; bloat; damage; collations that changed their version; sequences near their end; and constraints that are
NOT VALID. Statements whose generic plan is far worse than a custom one are known from the last proof.

What the migrations declare is compared with what is there. They are run to their head on an empty server of our own,
because nothing else tells what they do: without our environment and without a network, but as the user who checks. They
are your own programs; a folder that you do not trust must not be named as `migrations`.

An index is left alone while somebody builds, rebuilds or drops it, and when something other than queries needs it: a
constraint, a foreign key, the replica identity, CLUSTER. Of a pair of duplicates one always stays, and is not called
unused: it takes over the work of the other.

"Unused" is judged over stored snapshots. Each check keeps one, of the primary and of every replica that the target
names. Counters that were reset, a standby that nobody configured, a node that did not answer: then it is UNKNOWN.

Bloat is what `pgstatindex` counts, never an estimate. Where updates left duplicates that a rebuild would merge the
count is a lower bound: the next proof rebuilds such an index on the copy, and checks tell what that gave. It reads
whole indexes, and so does what looks for damage, each at the most `--read` bytes; what is left out is UNKNOWN. So is
everything that the role may not see: `pg_monitor` is enough for most, `pg_read_all_data` for column statistics and
sequences.

Damage is what amcheck's `bt_index_check` says. An index that lacks rows is sound in itself, and queries that use it
miss them: only its table tells. A check reads tables, too, small ones first, with what the indexes leave of `--read`;
it says how many indexes it did not compare. The proof compares all of them on the copy. What it finds damaged there
and the plan does not mend disproves it, and is known to every check and plan until the index is rebuilt.

What can be repaired is planned: an index is built, restored, rebuilt or removed, concurrently. On a restored copy the
workload is replayed before and after with real values, with a custom and with a generic plan; a removal that makes a
statement read more is refused, and so is a rebuild that gives back too little. For an index that a foreign key misses
a row on the other side is deleted before and after, and rolled back. The proof tells what each index is worth: what it
saves the workload, and what it costs in WAL, HOT updates and bytes.

Source: PostgreSQL manual, "Routine Reindexing"; CREATE INDEX, "Building Indexes Concurrently"; appendix F, "amcheck",
"pgstattuple".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import (
    Action,
    Bytes,
    Catalogue,
    Context,
    Copy,
    Finding,
    Inspection,
    Lab,
    Moving,
    Plan,
    Proof,
    Ratio,
    Schema,
    Seconds,
    TableSize,
    UsageSnapshot,
    Workload,
)


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    window: Seconds = api.promise("indexes.unused_for")  #: an index unused on every node for so long is unused
    bloat: Ratio = api.promise("indexes.bloat")  #: share of an index that a rebuild gives back
    least: Bytes = api.promise("indexes.least_size")  #: smaller indexes are not looked at for bloat and NULLs
    nulls: Ratio = api.promise("indexes.nulls")  #: share of NULLs in the first key
    read: Bytes = api.promise("indexes.read")  #: pages to read, once for bloat and once, with tables, for damage
    sequence: Ratio = api.promise("indexes.sequence_warning")  #: share of a sequence, or of its column's type, in use
    sequence_end: Ratio = api.promise("indexes.sequence_critical")  #: the same, before it is critical
    only: str = ""  #: kinds of faults to look at, as `duplicate,bloat`; all by default
    most: int = 20  #: statements that are replayed on the copy, largest total time first
    patience: Seconds = Seconds(300)  #: how long an action may wait for older transactions of others
    blocked: Seconds = Seconds(5)  #: how long a session may wait for an action
    lag: Seconds = Seconds(60)  #: replay lag of the slowest replica, before and while acting
    oldest: Seconds = Seconds(60)  #: oldest transaction that may be open when an action starts

    def __post_init__(self) -> None:
        if self.sequence > self.sequence_end:
            raise ValueError(
                f"--sequence is {self.sequence:g}, --sequence-end {self.sequence_end:g}: a warning comes before it is "
                "critical"
            )
        if unknown := self.kinds - set(api.KINDS):
            raise ValueError(f"--only knows no {', '.join(sorted(unknown))}; it knows {', '.join(api.KINDS)}")

    def looks_at(self, *kinds: str) -> bool:
        """Whether one of these kinds was asked for."""
        return not self.kinds or bool(self.kinds & set(kinds))

    @property
    def kinds(self) -> set[str]:
        return {kind.strip() for kind in self.only.split(",") if kind.strip()}


@dataclass(frozen=True)
class Facts:
    """What is declared stays; what is counted moves."""

    schema: Schema
    filenodes: dict[str, int]
    is_standby: bool
    catalogue: Moving[Catalogue]
    migrated: Moving[api.Migrated | None] = None
    sizes: Moving[dict[str, TableSize]] = field(default_factory=dict)
    workload: Moving[Workload] = Workload((), Seconds(0), api.Milliseconds(0))  # noqa: RUF009 - frozen
    flips: Moving[tuple[Finding, ...]] = ()
    usage: Moving[tuple[UsageSnapshot, ...]] = ()
    pages: Moving[Inspection] = field(default_factory=Inspection)
    checked: Moving[Inspection] = field(default_factory=Inspection)


book = api.Runbook(
    params=Params,
    symptom="Writes are slow, disks fill with indexes, or a query answers what it should not",
    risk="moderate",
    owner="database",
    check_every="1 d",
    drill_every="30 d",
    alerts=("IndexFaults",),
    actions=(
        api.create_index,
        api.drop_index,
        api.restore_index,
        api.remove_index,
        api.rebuild_index,
    ),
    examines=True,
    drill_with={"only": "duplicate"},
)


_DRIFT = ("different", "drift", "missing", "renamed", "undeclared")


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs `pg_monitor`; `pg_read_all_data` for NULLs and sequences; the extensions pgstattuple and amcheck."""
    catalogue, schema = ctx.db.catalogue(), ctx.db.schema()
    filenodes = {str(index.name): index.filenode for index in catalogue.indexes}
    stable = Facts(schema, filenodes, catalogue.is_standby, catalogue)
    if not ctx.wants_moving:
        return stable
    has_migrations = bool(ctx.target.migrations or schema.revision)
    return replace(
        stable,
        migrated=api.migrated(ctx) if params.looks_at(*_DRIFT) and has_migrations else None,
        sizes=ctx.db.sizes(),
        workload=ctx.db.workload(),
        flips=api.known_flips(ctx),
        usage=api.index_usage(ctx, params.window),
        pages=api.index_bloat(ctx, catalogue, params.least, params.read) if params.looks_at("bloat") else Inspection(),
        checked=api.index_damage(ctx, catalogue, params.read) if params.looks_at("damage") else Inspection(),
    )


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """What was looked at, then the faults, the worst first."""
    yield _summary(facts)
    if facts.migrated is not None:
        yield from api.drift_scope(facts.migrated, facts.schema, facts.catalogue.version)
    for fault in faults(facts, params):
        yield fault.finding
    yield from facts.flips


def faults(facts: Facts, params: Params) -> list[api.Fault]:
    """What is wrong by what was read, and what differs from the migrations."""
    thresholds = api.Thresholds(
        window=params.window,
        bloat=params.bloat,
        least=params.least,
        nulls=params.nulls,
        sequence_warning=params.sequence,
        sequence_critical=params.sequence_end,
    )
    declared = (
        {index.name for table in facts.migrated.schema.tables for index in table.indexes} if facts.migrated else ()
    )
    found = api.index_faults(facts.catalogue, facts.usage, facts.pages, facts.checked, thresholds, declared)
    if facts.migrated is not None:
        found += api.drift(facts.migrated, facts.schema, facts.catalogue.version)
    found += api.narrow_indexes(facts.catalogue, facts.workload, facts.schema, facts.sizes)
    return api.ordered(fault for fault in found if params.looks_at(fault.kind))


def _summary(facts: Facts) -> Finding:
    seen = facts.catalogue
    note = (
        f"{len(seen.foreign_keys)} foreign keys, {len(seen.sequences)} sequences; {facts.checked.checked} b-trees "
        f"looked at for damage{_without_table(facts.checked)}, {facts.pages.checked} of the larger ones for bloat; "
        f"usage on {len(facts.usage[-1].nodes)} nodes"
    )
    return Finding("indexes checked", float(len(seen.indexes)), note=note, id="indexes")


def _without_table(checked: Inspection) -> str:
    if not checked.uncompared:
        return ""
    return f" ({len(checked.uncompared)} of them not for rows that they lack: a proof does, or more `--read`)"


@book.keep
def keep(facts: Facts, params: Params) -> Mapping[str, Any]:  # noqa: ARG001
    """How often each index was used so far, on every node."""
    return {api.USAGE: facts.usage[-1].kept}


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    """What is missing is built, then what is bloated or damaged is rebuilt; what is useless goes last.

    Raises Refused on a standby.
    """
    if facts.is_standby:
        raise api.Refused("this server is a standby: its indexes come from the primary", hint="plan on the primary")
    yield from api.repairs(faults(facts, params), facts.schema, facts.filenodes, facts.sizes, facts.usage[-1])


@book.prove
def prove(copy: Copy, plan: Plan, params: Params) -> Proof:
    """Do it on the copy; refuse what makes a statement worse, and what gives back too little; find what is damaged."""
    damaged = api.read_copy(copy.context, params.least, params.bloat)
    source = copy.source
    trial = api.try_repairs(
        copy, plan, source.workload(), source.schema(), source.sizes(), most=params.most, least_gain=params.bloat
    )
    api.keep_flips(copy.context, trial.flips)
    return replace(trial.proof, findings=api.unmended(copy, plan, damaged) if params.looks_at("damage") else ())


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again right before each action: nobody is in the way, and what goes as unused is still unused."""
    needed = Bytes(sum(action.estimate.size for action in plan.actions if action.estimate))
    yield from api.ready_to_build(ctx, _tables(plan), needed, oldest=params.oldest, lag=params.lag)
    yield from api.still_unused(ctx, plan)


@book.watch
def watch(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    yield from api.invariants(ctx, patience=params.patience, blocked=params.blocked, lag=params.lag)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """Each action is to be seen: built and valid, in a new file, or gone."""
    for action in plan.actions:
        kind = book.kinds[action.kind]
        is_done = kind.done(ctx, kind.subject(action))
        note = kind.text(kind.subject(action)) if is_done else "it is not to be seen"
        yield Finding(f"{action.kind} {action.name}", float(not is_done), "grade", crit=1, note=note)


def _tables(plan: Plan) -> list[api.Name]:
    subjects = (book.kinds[action.kind].subject(action) for action in plan.actions)
    return sorted({each.index.table if isinstance(each, api.Build) else each.table for each in subjects})


@book.files
def files(plan: Plan, params: Params) -> Mapping[str, str]:  # noqa: ARG001
    """The Alembic revision of what was built and removed; what is restored or rebuilt is declared already."""
    return api.revision_of(plan, book.kinds)


_DUPLICATE = "idx_drill_duplicate"


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """An index that another one makes useless; the application has worked meanwhile."""
    with lab.connect("postgres") as admin:
        names: dict[str, api.Name | str] = {
            "index": _DUPLICATE,
            "wide": f"{_DUPLICATE}_wide",
            "table": api.Name("public", "jobs"),
        }
        admin.execute("create index {index} on {table} (preset)", names=names)
        admin.execute("create index {wide} on {table} (preset, language)", names=names)
        try:
            lab.work(5)
            yield
        finally:
            admin.execute("drop index concurrently if exists {index}", names=names)
            admin.execute("drop index concurrently if exists {wide}", names=names)
