"""What a server tells of its WAL, by which one sees how far what is kept of it goes."""

from aiprod_ops.ports import Database

_SEGMENT = "select pg_walfile_name(%(lsn)s::pg_lsn + 1) as name /* aiprod-ops: which segment has to be kept */"


def segment_of(database: Database, lsn: str) -> str:
    """The name of the WAL segment that this LSN lies in, on the timeline that the server writes to.

    The byte after it is asked for: before PostgreSQL 17 a segment's first LSN is counted to the one before it.
    """
    return str(database.query(_SEGMENT, {"lsn": lsn})[0]["name"])
