"""What a copy has to know of the server it is made from: size, places, and the settings it shall have, too."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from aiprod_ops.errors import PermissionMissing, Unreachable
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes

MARGIN = 1.2  #: the index that is tried there needs room, too

SOURCE = """
    WITH databases AS MATERIALIZED (
        SELECT oid, has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE') AS visible
        FROM pg_database)
    SELECT current_setting('server_version_num')::int AS version,
           current_database()::text AS database,
           (SELECT rolname::text FROM pg_roles WHERE oid = 10) AS superuser,
           pg_size_bytes(current_setting('min_wal_size')) AS wal,
           (SELECT sum(pg_database_size(oid)) FILTER (WHERE visible)::bigint FROM databases) AS size,
           (SELECT count(*) FILTER (WHERE NOT visible)::int FROM databases) AS hidden
"""
TABLESPACES = "SELECT pg_tablespace_location(oid) AS folder FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''"

#: Settings that decide how the planner and a build behave: the copy has to behave as its source does.
SETTINGS = """
    SELECT name, current_setting(name) AS value FROM pg_settings
    WHERE source NOT IN ('default', 'override', 'client', 'session')
      AND (starts_with(category, 'Query Tuning')
           OR category = 'Resource Usage / Worker Processes'
           OR name = ANY(%(also)s))
"""
ALSO = [
    "shared_buffers",
    "work_mem",
    "maintenance_work_mem",
    "hash_mem_multiplier",
    "temp_buffers",
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "effective_io_concurrency",
    "track_io_timing",
    "compute_query_id",
    "TimeZone",
    "DateStyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
]


@dataclass(frozen=True, slots=True)
class Source:
    """What a copy has to know of the server it is made from."""

    version: int
    database: str
    superuser: str
    size: Bytes
    wal: Bytes
    tablespaces: tuple[str, ...]
    settings: dict[str, str]
    is_known: bool = True  #: False where nobody could be asked: then only its files tell what its settings were

    @property
    def needed(self) -> Bytes:
        """Room for a copy: the databases with all their tablespaces, a margin, and the WAL of both servers."""
        return Bytes(int(self.size * MARGIN) + 2 * self.wal)

    def capped_settings(self) -> dict[str, str | int]:
        """The source's settings; its shared buffers only as far as an eighth of this machine's memory."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = _kilobytes(self.settings.get("shared_buffers", "128MB"))
        return {**self.settings, "shared_buffers": f"{min(wanted, memory // 8 // 1024)}kB"}


def read_source(connect: Callable[[str], Database], dsn: str) -> Source:
    """Ask a server. Raises PermissionMissing where the role does not see how large it is."""
    database = connect(dsn)
    try:
        facts = database.query(SOURCE)[0]
        if facts["hidden"]:
            raise PermissionMissing(
                f"the backup role cannot see the size of {facts['hidden']} databases",
                hint="GRANT pg_read_all_stats TO the role in the target's `backup` DSN",
            )
        tablespaces = tuple(row["folder"] for row in database.query(TABLESPACES))
        settings = {row["name"]: row["value"] for row in database.query(SETTINGS, {"also": ALSO})}
    finally:
        database.close()
    facts.pop("hidden")
    return Source(tablespaces=tablespaces, settings=settings, **facts)


def last_source(
    connect: Callable[[str], Database], dsn: str, kept: Path, report: Callable[[str], None] = lambda _: None
) -> Source | None:
    """What a server says, kept in a file; where it does not answer, what it said last: its stored backups can be
    restored all the same. None where nothing was kept."""
    try:
        source = read_source(connect, dsn)
    except Unreachable:
        try:
            known = msgspec.json.decode(kept.read_bytes(), type=Source)
        except (OSError, msgspec.DecodeError):  # none, or one that was damaged or is another version's
            report("the source does not answer, and nothing of it is known here; its backup has to tell")
            return None
        report("the source does not answer; the copy is set up as it was last known")
        return known
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = kept.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(source))
    new.replace(kept)
    return source


def _kilobytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(kB|MB|GB|TB)", text).groups()  # type: ignore[union-attr]  # as the server shows it
    return int(number) * {"kB": 1, "MB": 1024, "GB": 1024**2, "TB": 1024**3}[unit]
