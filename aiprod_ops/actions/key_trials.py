"""What an index on a foreign key is worth: a row that the key refers to is deleted on the copy, before and after.

The workload may never delete one, and then replaying it says nothing. Counted is what the key's own check costs: the
buffers of the referencing table and its indexes, and the time of the check's trigger. A row that others refer to could
not be deleted, so it gets a key first that nobody refers to. All of it is rolled back.
Source: ri_triggers.c; PostgreSQL manual, EXPLAIN ("Triggers"), "Statistics Functions" (counters of the transaction).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiprod_ops.actions.index_builds import build_of, create_index
from aiprod_ops.actions.measurements import BUDGET, LONGEST, MOST_RUNS
from aiprod_ops.domain.plans import Action
from aiprod_ops.domain.proofs import Comparison, Sampled
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.ports import Database

_ANSWERS = "foreign-key:"
_KEY = """
select k.conrelid::int8 as child, k.confrelid::int8 as parent, n.nspname::text as schema, r.relname::text as referenced,
       array(select t.tgname::text from pg_trigger t
              where t.tgconstraint = k.oid and t.tgrelid = k.confrelid and t.tgtype & 8 > 0) as triggers
  from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace cn on cn.oid = c.relnamespace
  join pg_class r on r.oid = k.confrelid join pg_namespace n on n.oid = r.relnamespace
 where k.contype = 'f' and cn.nspname = %(schema)s and c.relname = %(table)s and k.conname = %(name)s
"""
#: The columns that any key refers to, and a value for each that no row has.
_REFERRED = """
select distinct a.attname::text as column, format_type(a.atttypid, a.atttypmod) as type,
       case when a.attidentity <> '' then 'default'
            when a.atttypid = 'uuid'::regtype then 'gen_random_uuid()'
            when t.typcategory = 'N' then '(select max({{column}}) + 1 from {{referenced}})'
            when t.typcategory = 'D' then '(select max({{column}}) + interval ''1 day'' from {{referenced}})'
            when t.typcategory = 'S' and a.atttypmod > 4 then format('left(md5(random()::text), %%s)', a.atttypmod - 4)
            when t.typcategory = 'S' then 'md5(random()::text)' end as fresh
  from pg_constraint k cross join unnest(k.confkey) as position
  join pg_attribute a on a.attrelid = k.confrelid and a.attnum = position join pg_type t on t.oid = a.atttypid
 where k.contype = 'f' and k.confrelid = %(referenced)s::oid
"""
_BUFFERS = """
select sum(pg_stat_get_xact_blocks_fetched(c.oid))::float8 as buffers from pg_class c
 where c.oid = %(child)s::oid or c.oid in (select indexrelid from pg_index where indrelid = %(child)s::oid)
"""
_PLACE = "r.ctid = %(place)s::tid and r.tableoid = %(part)s::oid"
_ROW = "r.ctid::text as place, r.tableoid::int8 as part"
_DELETE = f"explain (analyze, format json) delete from {{referenced}} r where {_PLACE}"  # noqa: S608 ours alone


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row of the table that a foreign key refers to, by its place. `freeing` gives it a key that nobody refers to."""

    name: str
    child: int
    triggers: tuple[str, ...]
    row: Mapping[str, Any]
    freeing: str
    names: Mapping[str, Name | str]

    @property
    def what(self) -> str:
        return f"DELETE FROM {self.names['referenced'].name}, 1 row ({self.name})"  # type: ignore[union-attr]  # noqa: S608


@dataclass
class Deletions:
    """Deletions that can be tried, by the name of the action whose index should help; notes on the others."""

    found: dict[str, Deletion] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, database: Database, actions: Iterable[Action]) -> "Deletions":
        """One for each index that a foreign key misses."""
        made = cls()
        for action in actions:
            if action.kind != create_index.name or not action.answers.startswith(_ANSWERS):
                continue
            table = build_of(action).index.table
            key = action.answers.removeprefix(f"{_ANSWERS}{table}.")
            try:
                made.found[action.name] = _deletion(database, table, key)
            except (Failed, TimedOut) as error:
                made.notes.append(_untried(key, error))
        return made

    def measured(self, database: Database) -> dict[str, tuple[Sampled, Sampled]]:
        """Buffers and milliseconds by action; what cannot be tried is not tried again."""
        taken: dict[str, tuple[Sampled, Sampled]] = {}
        for name, deletion in list(self.found.items()):
            try:
                taken[name] = _repeated(database, deletion)
            except (Failed, TimedOut) as error:
                self.notes.append(_untried(deletion.name, error))
                del self.found[name]
        return taken

    def compared(
        self, before: Mapping[str, tuple[Sampled, Sampled]], after: Mapping[str, tuple[Sampled, Sampled]]
    ) -> Iterator[Comparison]:
        for name, deletion in self.found.items():
            for unit, then, now in zip(("buffers", "ms"), before[name], after[name], strict=True):
                columns = {"statement": deletion.what, "values": "a row", "plan": "key"}
                yield Comparison(deletion.what, unit, then, now, columns)


def _untried(key: str, error: Failed | TimedOut) -> str:
    return f"no delete was tried for the foreign key {key}: {error.message}"


def _deletion(database: Database, table: Name, key: str) -> Deletion:
    """Raises Failed where there is no row, or no value for its key."""
    rows = database.query(_KEY, {"schema": table.schema, "table": table.name, "name": key})
    if not rows:
        raise Failed("it is not there on the copy")
    (found,) = rows
    referenced = Name(found["schema"], found["referenced"])
    names: dict[str, Name | str] = {"referenced": referenced}
    row = database.query(f"select {_ROW} from {{referenced}} r limit 1", names=names)  # noqa: S608 ours alone
    if not row:
        raise Failed(f"{referenced} has no row")
    fresh = []
    for number, column in enumerate(database.query(_REFERRED, {"referenced": found["parent"]})):
        if column["fresh"] is None:
            raise Failed(f"no fresh value is known for {referenced}.{column['column']} ({column['type']})")
        names[f"c{number}"] = column["column"]
        fresh.append(f"{{c{number}}} = {column['fresh'].replace('{column}', f'{{c{number}}}')}")
    sql = f"update {{referenced}} r set {', '.join(fresh)} where {_PLACE} returning {_ROW}"  # noqa: S608 ours alone
    return Deletion(key, found["child"], tuple(found["triggers"]), row[0], sql, names)


def _repeated(database: Database, deletion: Deletion) -> tuple[Sampled, Sampled]:
    buffers: list[float] = []
    ms: list[float] = []
    while not ms or (len(ms) < MOST_RUNS and sum(ms) < BUDGET):
        taken = _once(database, deletion)
        buffers.append(taken[0])
        ms.append(taken[1])
    return Sampled.of(buffers), Sampled.of(ms)


def _once(database: Database, deletion: Deletion) -> tuple[float, float]:
    """One delete, rolled back. The row is freed without triggers: the copy's superuser may."""
    database.query("begin")
    try:
        database.query("set constraints all immediate")
        database.query("set local session_replication_role = replica")
        (row,) = database.query(deletion.freeing, deletion.row, names=deletion.names, timeout=LONGEST)
        database.query("set local session_replication_role = origin")
        before = database.query(_BUFFERS, {"child": deletion.child})[0]["buffers"]
        (plan,) = database.query(_DELETE, row, names=deletion.names, timeout=LONGEST)[0]["QUERY PLAN"]
        after = database.query(_BUFFERS, {"child": deletion.child})[0]["buffers"]
    finally:
        database.query("rollback")
    mine = [float(each["Time"]) for each in plan["Triggers"] if each["Trigger Name"] in deletion.triggers]
    return after - before, sum(mine) if mine else float(plan["Execution Time"])
