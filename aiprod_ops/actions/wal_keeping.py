"""What a server tells of its WAL, by which one sees how far what is kept of it goes."""

from aiprod_ops.engine.runbook import Context
from aiprod_ops.ports import Backups, Database
from aiprod_ops.units import Seconds

_SEGMENT = "select pg_walfile_name(%(lsn)s::pg_lsn + 1) as name /* aiprod-ops: which segment has to be kept */"


def segment_of(database: Database, lsn: str) -> str:
    """The name of the WAL segment that this LSN lies in, on the timeline that the server writes to.

    The byte after it is asked for: before PostgreSQL 17 a segment's first LSN is counted to the one before it.
    """
    return str(database.query(_SEGMENT, {"lsn": lsn})[0]["name"])


#: What a standby says of itself is its primary's, and it switches no segment by the time.
_WHOLE = """
with wal as (
  select (select setting::float8 from pg_settings where name = 'archive_timeout') as timeout,
         (select setting::numeric from pg_settings where name = 'wal_segment_size') as size,
         case when pg_is_in_recovery() then null else pg_current_wal_insert_lsn() - pg_lsn '0/0' end as at)
select timeout, pg_walfile_name(pg_lsn '0/0' + floor(at / size) * size - 1) as name
from wal where at >= size and timeout > 0 /* aiprod-ops: the last whole segment */
"""


def unkept_since(database: Database, backups: Backups) -> Seconds | None:
    """So long ago at most was written what is not kept yet, however old the last of what is kept is; None where nobody
    can tell.

    A server with an `archive_timeout` closes a segment when so much time has passed since it closed the one before, if
    anything of importance was written since; a quiet one writes nothing and archives nothing. So where the last whole
    segment is kept, all that is missing stands in the current one, and is no older than that.
    Source: CheckArchiveTimeout in checkpointer.c ("only when important WAL has been logged since the last segment
    switch"); PostgreSQL manual, archive_timeout.
    """
    for row in database.query(_WHOLE):
        if backups.reaches(row["name"]):
            return Seconds(row["timeout"])
    return None


_ARCHIVED = """
select last_archived_wal as name
from pg_stat_archiver where last_archived_wal ~ '^[0-9A-F]+$' /* aiprod-ops: what the server has archived last */
"""


def not_kept(ctx: Context) -> str:
    """Which segment the server says it has archived last, in words, where the archive has neither it nor a later one:
    nothing that is restored gets so far, and the archive alone does not tell. '' where it is kept, or nobody knows."""
    for row in ctx.db.query(_ARCHIVED):
        if ctx.platform.backups.reaches(row["name"]) is False:
            return f"the server has archived {row['name']}, and the archive ends before it"
    return ""
