"""Rebuilding, removing and restoring an index that exists, by its definition, while reads and writes go on.

Source: PostgreSQL manual, REINDEX, "Rebuilding Indexes Concurrently"; DROP INDEX; CREATE INDEX.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aiprod_ops.actions.index_builds import amount_of, may_build, plain, remove
from aiprod_ops.domain.catalogue.faults import Existing
from aiprod_ops.domain.schema import Name
from aiprod_ops.engine.runbook import Amount, Context, Kind
from aiprod_ops.errors import Failed, TimedOut
from aiprod_ops.units import Seconds

_NO_LIMIT = Seconds(0)  # the watch bounds it, as it does a build
_CREATE = re.compile(r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)")
_REMAINDER = re.compile(r"(?P<of>.+)_cc(?:new|old)\d*")
_SHORTENED = 56  #: bytes from which on a name is cut to make room for `_ccnew1` (NAMEDATALEN 64)

_FOUND = """
select pg_get_indexdef(c.oid) as definition, pg_relation_filenode(c.oid)::bigint as filenode,
       i.indisvalid and i.indisready and i.indislive as is_valid,
       exists (select from pg_stat_progress_create_index p where c.oid in (p.index_relid, p.relid)) as is_building
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_index i on i.indexrelid = c.oid
where n.nspname = %(schema)s and c.relname = %(name)s
/* aiprod-ops: one index as it stands */
"""
_INVALID = """
select n.nspname as schema, c.relname as name
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
join pg_class t on t.oid = i.indrelid join pg_namespace tn on tn.oid = t.relnamespace
where not i.indisvalid and tn.nspname = %(schema)s and t.relname = %(table)s
  and not exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid)
order by c.relname
/* aiprod-ops: INVALID indexes of a table that nobody is building */
"""

rebuild_index = Kind("rebuild-index", Existing)
remove_index = Kind("remove-index", Existing)
restore_index = Kind("restore-index", Existing)


def _found(context: Context, index: Existing) -> dict[str, Any] | None:
    rows = context.db.query(_FOUND, {"schema": index.name.schema, "name": index.name.name})
    return rows[0] if rows else None


def _ours(state: dict[str, Any], index: Existing) -> dict[str, Any]:
    """The state, when it is that of the index that was planned for. Raises Failed."""
    if state["is_building"]:
        raise Failed(f"another session is building {index.name} now", hint="wait until it is done, then plan again")
    if state["definition"] != index.definition:
        raise Failed(f"{index.name} is not the index that was planned for: {state['definition']}", hint="plan again")
    return state


@rebuild_index.shows
def rebuilding(index: Existing) -> str:
    """The statement, as people write it."""
    return f"REINDEX INDEX CONCURRENTLY {plain(index.name)}"


@rebuild_index.needs
def may_rebuild(context: Context, index: Existing) -> None:
    may_build(context, index.table)


@rebuild_index.is_done
def is_rebuilt(context: Context, index: Existing) -> bool:
    """Valid, in another file than when it was planned, and nothing of the rebuild is left beside it."""
    state = _found(context, index)
    return state is not None and _is_anew(state, index) and not list(_remains(context, index))


def _is_anew(state: dict[str, Any], index: Existing) -> bool:
    return bool(state["is_valid"]) and state["filenode"] != index.filenode and state["definition"] == index.definition


@rebuild_index.does
def rebuild(context: Context, index: Existing) -> None:
    """Write it anew beside the old one and swap them. Whatever fails, no `_ccnew` or `_ccold` of it stays.

    A rebuild that was interrupted after the swap is only cleared away. Raises Failed.
    """
    state = _found(context, index)
    if state is None:
        raise Failed(f"{index.name} is not there any more", hint="plan again")
    _ours(state, index)
    _clear(context, index)
    if _is_anew(state, index):
        return
    try:
        context.db.execute("reindex index concurrently {index}", names={"index": index.name}, timeout=_NO_LIMIT)
    except (Failed, TimedOut):
        _clear(context, index)
        raise


def _remains(context: Context, index: Existing) -> Iterator[Name]:
    """What interrupted rebuilds of this index left: INVALID, named after it. A long name is cut to make room."""
    name = index.name.name
    for row in context.db.query(_INVALID, {"schema": index.table.schema, "table": index.table.name}):
        match = _REMAINDER.fullmatch(row["name"])
        cut = len(name.encode()) >= _SHORTENED and match is not None and name.startswith(match["of"])
        if match is not None and (match["of"] == name or cut):
            yield Name(row["schema"], row["name"])


def _clear(context: Context, index: Existing) -> None:
    for name in list(_remains(context, index)):
        context.report(f"removing {name}, which an interrupted rebuild left")
        remove(context, name)


@rebuild_index.progress
def rebuilt_amount(context: Context, index: Existing) -> Amount | None:
    return amount_of(context, index.table, index.name.name)


@remove_index.shows
def removing(index: Existing) -> str:
    """The statement, as people write it."""
    return f"DROP INDEX CONCURRENTLY IF EXISTS {plain(index.name)}"


@remove_index.needs
def may_remove(context: Context, index: Existing) -> None:
    may_build(context, index.table)


@remove_index.is_done
def is_removed(context: Context, index: Existing) -> bool:
    return _found(context, index) is None


@remove_index.does
def remove_it(context: Context, index: Existing) -> None:
    """Remove it without blocking writers; raises Failed when it is being built, is not what was planned for, or when
    the index that does its work is not there any more."""
    state = _found(context, index)
    if state is not None:
        _ours(state, index)
        _look_for_keeper(context, index)
        remove(context, index.name)


def _look_for_keeper(context: Context, index: Existing) -> None:
    if index.keeper is None:
        return
    state = _found(context, replace(index, name=index.keeper))
    if state is None or not state["is_valid"] or state["is_building"]:
        raise Failed(f"{index.keeper}, which does the work of {index.name}, is not there any more", hint="plan again")
    if index.keeper_definition not in ("", state["definition"]):
        raise Failed(f"{index.keeper} does not do the work of {index.name} any more: {state['definition']}")


@restore_index.shows
def restoring(index: Existing) -> str:
    """The definition as it was, built without blocking writers."""
    return _CREATE.sub(lambda match: f"{match[0]}CONCURRENTLY ", index.definition, count=1)


@restore_index.needs
def may_restore(context: Context, index: Existing) -> None:
    may_build(context, index.table)


@restore_index.is_done
def is_restored(context: Context, index: Existing) -> bool:
    state = _found(context, index)
    return state is not None and bool(state["is_valid"]) and state["definition"] == index.definition


@restore_index.does
def restore(context: Context, index: Existing) -> None:
    """Build it by its definition. Whatever fails, an INVALID index of this name does not stay. Raises Failed."""
    state = _found(context, index)
    if state is not None:
        if _ours(state, index)["is_valid"]:
            return
        context.report(f"{index.name} is INVALID: removing what an interrupted build left")
        remove(context, index.name)
    try:
        context.db.execute(restoring(index).replace("{", "{{").replace("}", "}}"), timeout=_NO_LIMIT)
    except (Failed, TimedOut):
        state = _found(context, index)
        if state is not None and not state["is_valid"] and not state["is_building"]:
            context.report(f"removing the INVALID remains of {index.name}")
            remove(context, index.name)
        raise


@restore_index.progress
def restored_amount(context: Context, index: Existing) -> Amount | None:
    return amount_of(context, index.table, index.name.name)
