"""The workload as pg_stat_statements counted it, and what a role would need to read it.

Source: PostgreSQL manual, appendix F, "pg_stat_statements"; chapter "Predefined Roles".
"""

from dataclasses import dataclass
from typing import Any

from aiprod_ops.adapters.postgres_catalog import Query, Row
from aiprod_ops.domain.schema import Name
from aiprod_ops.domain.statements import Statement, Workload
from aiprod_ops.errors import Failed, PermissionMissing
from aiprod_ops.units import Milliseconds, Seconds, show

_YOUNG = Seconds(60)  #: figures younger than this that list no statement say nothing


@dataclass(frozen=True, slots=True)
class Access:
    """What stands between this role and the figures: nothing if `missing` is empty. `is_usable`: some can be read."""

    schema: str
    has_info: bool
    is_usable: bool
    missing: tuple[str, ...]


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
    return Access(row["schema"] or "", row["has_info"], row["is_usable"] and row["is_loaded"], tuple(missing))


def workload(query: Query, found: Access) -> Workload:
    """The statements with the largest total time; only top-level ones where the server tells them apart (14)."""
    try:
        rows = query("statements", names={"statements": Name(found.schema, "pg_stat_statements")})
    except PermissionMissing as error:
        return nothing((*found.missing, f"pg_stat_statements cannot be read: {error.message}"))
    except Failed as error:
        # 42703: the extension's version is from before total_exec_time (pg_upgrade keeps it).
        hint = "`ALTER EXTENSION pg_stat_statements UPDATE;`"
        return nothing((*found.missing, f"pg_stat_statements cannot be read: {error.message}: {hint}"))
    statements = tuple(_statement(row) for row in rows if row["queryid"] is not None)
    window = _window(query, found)
    missing = found.missing
    if not statements and window < _YOUNG:
        missing = (*missing, f"pg_stat_statements was reset {show(window, 's')} ago and counted no statement since.")
    return Workload(statements, window, Milliseconds(rows[0]["everything_ms"]), missing)


def nothing(missing: tuple[str, ...]) -> Workload:
    """A workload of which nothing is known."""
    return Workload((), Seconds(0), Milliseconds(0), missing)


def _window(query: Query, found: Access) -> Seconds:
    if not found.has_info:
        return Seconds(query("uptime")[0]["seconds"])
    return Seconds(query("window", names={"info": Name(found.schema, "pg_stat_statements_info")})[0]["seconds"])


def _statement(row: dict[str, Any]) -> Statement:
    total, calls = row["total_ms"], row["calls"]
    return Statement(
        row["queryid"], row["query"], calls, Milliseconds(total), Milliseconds(total / max(calls, 1)), row["rows"]
    )


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
