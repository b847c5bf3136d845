"""The workload as pg_stat_statements counted it, and what a role would need to read it.

Source: PostgreSQL manual, appendix F, "pg_stat_statements"; chapter "Predefined Roles".
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from aiprod_ops.adapters.postgres.catalog import Query, Row
from aiprod_ops.domain.counters import Counters, Entry, StatementsSnapshot, summed_up
from aiprod_ops.domain.schema import Name
from aiprod_ops.domain.statements import Workload
from aiprod_ops.errors import Failed, PermissionMissing
from aiprod_ops.logs.shapes import is_dml, normalised
from aiprod_ops.units import Bytes, Milliseconds, Seconds, show

_LISTED = 200


@dataclass(frozen=True, slots=True)
class Access:
    """What stands between this role and the figures: nothing if `missing` is empty. `is_usable`: some can be read."""

    schema: str
    has_info: bool
    is_usable: bool
    columns: tuple[str, ...]  #: of the view, which differ by the extension's version: it may be older than the server's
    missing: tuple[str, ...]

    @property
    def view(self) -> Name:
        return Name(self.schema, "pg_stat_statements")


def access(query: Query) -> Access:
    """Look what is there; each sentence of `missing` holds the SQL that grants it between backticks."""
    row = query("statistics_access")[0]
    missing = []
    if not row["is_loaded"]:
        missing.append(_not_loaded(row))
    if row["schema"] is None:
        missing.append(
            f"pg_stat_statements is not installed in database {row['database']}: "
            "`CREATE EXTENSION pg_stat_statements;` there, as a superuser."
        )
    elif not row["is_usable"]:
        grant = f"GRANT USAGE ON SCHEMA {row['quoted_schema']} TO {row['role']};"
        missing.append(f"The role may not use the schema of pg_stat_statements: `{grant}`")
    elif "wal_bytes" not in row["columns"]:
        missing.append(
            "The extension is from before PostgreSQL 13 and counts no WAL and no planning: "
            "`ALTER EXTENSION pg_stat_statements UPDATE;`"
        )
    if not row["reads_all"]:
        missing.append(
            "The role does not see other users' statements (they read <insufficient privilege>), settings and logs: "
            f"`GRANT pg_monitor TO {row['role']};`"
        )
    if row["hidden_tables"]:
        missing.append(
            f"The role may not read {row['hidden_tables']} tables, so their column statistics are hidden: "
            f"`GRANT pg_read_all_data TO {row['role']};`"
        )
    if row["track"] == "none":
        missing.append(
            "pg_stat_statements counts nothing: "
            "`ALTER SYSTEM SET pg_stat_statements.track = 'top'; SELECT pg_reload_conf();`"
        )
    is_usable = row["is_usable"] and row["is_loaded"]
    return Access(row["schema"] or "", row["has_info"], is_usable, tuple(row["columns"]), tuple(missing))


#: Where each figure comes from: the first of these columns that the view has. `total_time` is from before 1.8
#: (PostgreSQL 13): a database keeps its extension's version in pg_upgrade until somebody updates it.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "total": ("total_exec_time", "total_time"),
    "planning": ("total_plan_time",),
    "wal": ("wal_bytes",),
    "toplevel": ("toplevel",),  # 1.9, PostgreSQL 14: before that, statements inside functions are counted twice
    "since": ("stats_since",),  # 1.11, PostgreSQL 17
}
_LACKING = {"toplevel": "always", "since": "never"}  #: any other figure is `zero`


def columns(present: Collection[str]) -> dict[str, Name]:
    """The column of the view for each figure, or the constant that stands for it in a version that lacks it.

    >>> columns(["total_exec_time", "wal_bytes"])["wal"], columns(["total_time"])["wal"]
    (Name(schema='s', name='wal_bytes'), Name(schema='lacking', name='zero'))
    """
    chosen: dict[str, Name] = {}
    for figure, candidates in _COLUMNS.items():
        there = next((name for name in candidates if name in present), None)
        chosen[figure] = Name("s", there) if there else Name("lacking", _LACKING.get(figure, "zero"))
    return chosen


def snapshot(query: Query, found: Access, now: datetime) -> StatementsSnapshot:
    """The counters as they are; without any, and at the time given, where they cannot be read."""
    if not found.is_usable:
        return StatementsSnapshot(now, now, None, None, (), missing=found.missing)
    since, evictions = None, None
    try:
        if found.has_info:
            told = query("statement_resets", names={"info": Name(found.schema, "pg_stat_statements_info")})[0]
            since, evictions = told["since"], told["evictions"]
        rows = query("statement_counters", names={"statements": found.view, **columns(found.columns)})
    except (PermissionMissing, Failed) as error:
        missing = (*found.missing, f"pg_stat_statements cannot be read: {error.message}")
        return StatementsSnapshot(now, now, None, None, (), missing=missing)
    entries = tuple(_entry(row) for row in rows if row["query_id"] is not None)
    return StatementsSnapshot(rows[0]["taken"], rows[0]["started"], since, evictions, entries, missing=found.missing)


def texts(query: Query, found: Access, query_ids: Sequence[int]) -> dict[int, str]:
    """Normalised texts by query id, of those that are still there. The server does not normalise utility statements
    whole: a password of ALTER ROLE stands in them, so what is a constant there is left out here."""
    if not found.is_usable or not query_ids:
        return {}
    rows = query("statement_texts", {"query_ids": list(query_ids)}, names={"statements": found.view})
    found_texts = {row["query_id"]: str(row["query"]) for row in rows}
    return {each: text if is_dml(text) else normalised(text) for each, text in found_texts.items()}


def workload(query: Query, found: Access, now: datetime) -> Workload:
    """The statements with the largest total time that read or write rows, since the counters began."""
    seen = snapshot(query, found, now)
    ranked = summed_up((each.query_id, each.counters) for each in seen.entries if each.is_query)
    listed = sorted(ranked, key=lambda query_id: (-ranked[query_id].total, query_id))[:_LISTED]
    told = seen.workload(texts(query, found, listed) if listed else {}, seen.missing)
    if not told.statements and seen.missing == found.missing:
        silent = (
            f"pg_stat_statements counted no statement of this database since its counters began, "
            f"{show(told.window, 's')} ago: look where the application works, and after it has."
        )
        return replace(told, missing=(*told.missing, silent))
    return told


def nothing(missing: tuple[str, ...]) -> Workload:
    """A workload of which nothing is known."""
    return Workload((), Seconds(0), Milliseconds(0), missing)


def _entry(row: Row) -> Entry:
    counters = Counters(
        row["calls"], Milliseconds(row["total"]), Milliseconds(row["planning"]), row["rows"], row["blocks"],
        Bytes(row["temp"]), Bytes(row["wal"]),
    )  # fmt: skip
    return Entry(row["query_id"], row["user_id"], row["since"], row["is_query"], counters)


def _not_loaded(row: Row) -> str:
    """ALTER SYSTEM replaces the list: the libraries that are loaded now have to be in it, each quoted by itself."""
    if row["libraries"] is None:
        return (
            "pg_stat_statements is not loaded, and the role may not see which libraries are: "
            f"`GRANT pg_monitor TO {row['role']};`, then check again for the exact ALTER SYSTEM."
        )
    loaded = [library.strip().strip('"') for library in row["libraries"].split(",") if library.strip()]
    quoted = ", ".join("'" + library.replace("'", "''") + "'" for library in (*loaded, "pg_stat_statements"))
    return (
        "pg_stat_statements is not loaded: "
        f"`ALTER SYSTEM SET shared_preload_libraries = {quoted};` as a superuser, then restart the server."
    )
