"""The server's JSON log files: a place where they can be read as files, or through SQL where the role may, with
`pg_ls_logdir()` and `pg_read_binary_file()`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.adapters.postgres.catalog import Query
from aiprod_ops.adapters.postgres.log import LogFile, local_files
from aiprod_ops.errors import Failed

_NEEDS = "it needs log_destination = 'jsonlog' (PostgreSQL 15 and newer) and logging_collector = on."


@dataclass(frozen=True, slots=True)
class ServerLog:
    """What can be read of the log; `missing` says what would open it, with the SQL between backticks."""

    database: str
    files: tuple[LogFile, ...]
    missing: tuple[str, ...] = ()


def local_log(place: Path, database: str) -> ServerLog:
    """The JSON log at a place: a file, or those of a folder. Raises ConfigurationError for one that is not there."""
    found = local_files(place)
    files = tuple(file for file in found if file.size == 0 or file.read(0, 1) == b"{")
    return ServerLog(database, files, () if files else (f"There is no JSON log in {place}: {_NEEDS}",))


def server_log(query: Query) -> ServerLog:
    """The JSON log files of the server, newest first."""
    row = query("log_access")[0]
    if not row["has_json"]:
        return ServerLog(row["database"], (), (f"Or the server's JSON log: {_NEEDS}",))
    if not (row["lists"] and row["reads"] and row["folder"]):
        return ServerLog(row["database"], (), (_grants(row["role"]),))
    try:
        listed = query("log_files")
    except Failed:  # 58P01: the folder is not there yet, as long as logging_collector is off
        return ServerLog(row["database"], ())
    folder = row["folder"]
    files = tuple(LogFile(each["name"], each["size"], _reader(query, f"{folder}/{each['name']}")) for each in listed)
    return ServerLog(row["database"], files)


def _grants(role: str) -> str:
    return (
        "Or the server's JSON log: "
        f"`GRANT pg_monitor TO {role}; "
        f"GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO {role};` "
        "(the role can then read every file of the data directory)."
    )


def _reader(query: Query, path: str) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        rows = query("log_chunk", {"path": path, "offset": offset, "length": length})
        return bytes(rows[0]["data"] or b"")

    return read
