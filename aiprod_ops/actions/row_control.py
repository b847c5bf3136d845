"""Whether the comparison of rows notices a row that differs: one of a disposable copy is changed, and compared."""

from dataclasses import replace

from aiprod_ops.actions.figures import figures
from aiprod_ops.domain.figures import Figures, same_moment
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.schema import Name
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes

#: The smallest first; of each a column whose value no constraint and no index asks about, and whether a row may go.
_VICTIMS = """
select n.nspname::text as schema, c.relname::text as name, a.value, a.type,
       exists (select from pg_constraint f where f.confrelid = c.oid) as is_referenced
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join lateral (
  select a.attname::text as value, a.atttypid::regtype::text as type from pg_attribute a
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = ''
    and a.atttypid in ('integer'::regtype, 'bigint'::regtype, 'text'::regtype)
    and not exists (select from pg_constraint k
                    where k.conrelid = c.oid and k.contype <> 'n' and a.attnum = any (k.conkey))
    and not exists (select from pg_index i where i.indrelid = c.oid
                    and (a.attnum = any (i.indkey) or 0 = any (i.indkey) or i.indpred is not null))
  order by a.attnum limit 1) a on true
where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence = 'p'
  and pg_relation_size(c.oid) > 0
  and not exists (select from pg_trigger g where g.tgrelid = c.oid and not g.tgisinternal)
order by pg_relation_size(c.oid), 1, 2 /* aiprod-ops: tables of which a row may be changed */
"""
_CHANGES = {
    "integer": "update {table} set {value} = coalesce({value}, 0) + 1 where ctid = (select min(ctid) from {table})",
    "bigint": "update {table} set {value} = coalesce({value}, 0) + 1 where ctid = (select min(ctid) from {table})",
    "text": "update {table} set {value} = coalesce({value}, '') || '.' where ctid = (select min(ctid) from {table})",
}
_REMOVE = "delete from {table} where ctid = (select min(ctid) from {table})"


def row_control(copy: Database, before: Figures, most: Bytes) -> tuple[str, str]:
    """Change a row of the copy, and hold its table against the figures from before, as the proof itself does. A value
    is changed, which only the sum over the rows tells; where none may be, a row goes, which the count tells.

    Answers who looked, and in which words he noticed; '' where he did not.
    """
    found = [(Name(each["schema"], each["name"]), each) for each in copy.query(_VICTIMS)]
    filled = [(table, each, rows) for table, each in found if (rows := before.tables.get(str(table))) and rows.rows]
    able = [(table, each["value"], each["type"]) for table, each, rows in filled if each["value"] and rows.digest]
    able += [(table, "", "") for table, each, _ in filled if not each["is_referenced"]]
    if not able:
        return "the comparison of rows", "no table has a row that may be changed"
    table, value, kind = able[0]
    names: dict[str, Name | str] = {"table": table, **({"value": value} if value else {})}
    copy.execute(_CHANGES[kind] if value else _REMOVE, names=names)
    expected = replace(before, tables={str(table): before.tables[str(table)]})
    compared = same_moment(expected, figures([copy], most, only=table))
    is_noticed = any(each.status is Status.CRITICAL and str(table) in each.note for each in compared)
    what = f"{table}.{value} of one row" if value else f"a row less in {table}"
    return "the comparison of rows", f"{what} differs" if is_noticed else ""
