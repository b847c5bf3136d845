"""One list of calls, written as each format writes it."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Logged:
    """A call as a server would log it. `name` is the prepared statement's; None for a simple query."""

    text: str
    duration_ms: float = 1.0
    second: int = 0
    pid: int = 77
    database: str = "shop"
    application: str = "api"
    query_id: int = 0
    name: str | None = None
    detail: str = ""
    user: str = field(default="app", kw_only=True)

    @property
    def stamp(self) -> str:
        return f"2026-11-22 10:{self.second // 60 % 60:02d}:{self.second % 60:02d}.{self.second % 1000:03d} UTC"

    @property
    def message(self) -> str:
        kind = "statement" if self.name is None else f"execute {self.name or '<unnamed>'}"
        return f"duration: {self.duration_ms:.3f} ms  {kind}: {self.text}"


def json_line(call: Logged, **fields: object) -> str:
    pairs = {
        "timestamp": call.stamp, "user": call.user, "dbname": call.database, "pid": call.pid,
        "remote_host": "10.0.0.1", "remote_port": 4321, "session_id": f"6920f3a1.{call.pid:x}", "line_num": 5,
        "ps": "SELECT", "session_start": "2026-11-22 09:00:00 UTC", "vxid": "3/5", "txid": 0,
        "error_severity": "LOG", "message": call.message,
    }  # fmt: skip
    if call.detail:
        pairs["detail"] = call.detail
    pairs |= {"application_name": call.application, "backend_type": "client backend", "query_id": call.query_id}
    return json.dumps(pairs | fields, separators=(",", ":"), ensure_ascii=False) + "\n"


def jsonlog(calls: Iterable[Logged]) -> bytes:
    return "".join(map(json_line, calls)).encode()


def jsonlog_with_blanks(calls: Iterable[Logged]) -> bytes:
    """As a program writes it again that filtered or shipped it."""
    return "".join(json.dumps(json.loads(json_line(call)), ensure_ascii=False) + "\n" for call in calls).encode()


def csv_line(call: Logged) -> str:
    csv.field_size_limit(2**30)  # a test writes huge ones, and is the first to use csv maybe
    out = io.StringIO()
    row = [
        call.stamp, call.user, call.database, call.pid, "10.0.0.1:4321", f"6920f3a1.{call.pid:x}", 5, "SELECT",
        "2026-11-22 09:00:00 UTC", "3/5", 0, "LOG", "00000", call.message, call.detail, "", "", "", "", "", "", "",
        call.application, "client backend", "", call.query_id,
    ]  # fmt: skip
    quoted = {1, 2, 4, 7, 13, 14, 22, 23}
    cells = ['"' + str(c).replace('"', '""') + '"' if i in quoted and c else str(c) for i, c in enumerate(row)]
    out.write(",".join(cells) + "\n")
    assert next(csv.reader([out.getvalue()]))[13] == call.message
    return out.getvalue()


def csvlog(calls: Iterable[Logged]) -> bytes:
    return "".join(map(csv_line, calls)).encode()


PREFIXES = {
    "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h,qid=%Q ": (
        "{stamp} [{pid}]: [5-1] user={user},db={database},app={application},client=10.0.0.1,qid={query_id} "
    ),
    "%m [%p]: [%l-1] db=%d,user=%u,app=%a ": "{stamp} [{pid}]: [5-1] db={database},user={user},app={application} ",
    "%m [%p] %q%u@%d ": "{stamp} [{pid}] {user}@{database} ",
    "%m [%p] ": "{stamp} [{pid}] ",
}
FULL = next(iter(PREFIXES))


def stderr_lines(call: Logged, prefix: str = FULL) -> list[str]:
    """The entry, and that of its DETAIL."""
    values = {name: getattr(call, name) for name in ("stamp", "pid", "user", "database", "application", "query_id")}
    begun = PREFIXES[prefix].format(**values)
    lines = [f"{begun}LOG:  {call.message}", *([f"{begun}DETAIL:  {call.detail}"] if call.detail else [])]
    return [line.replace("\n", "\n\t") + "\n" for line in lines]


def stderr(calls: Iterable[Logged], prefix: str = FULL) -> bytes:
    return "".join(line for call in calls for line in stderr_lines(call, prefix)).encode()


def cloud_entries(calls: Iterable[Logged], prefix: str = FULL) -> list[dict[str, object]]:
    """What Cloud SQL's log becomes: the plain log's lines in `textPayload`."""
    return [
        {
            "insertId": f"s=1;i={number}",
            "logName": "projects/p/logs/cloudsql.googleapis.com%2Fpostgres.log",
            "receiveTimestamp": "2026-11-22T10:00:01.5Z",
            "resource": {"labels": {"database_id": "p:i", "region": "europe-west1"}, "type": "cloudsql_database"},
            "severity": "INFO",
            "textPayload": line.rstrip("\n"),
            "timestamp": f"2026-11-22T10:{call.second // 60 % 60:02d}:{call.second % 60:02d}.{call.second % 1000:03d}Z",
        }
        for call in calls
        for number, line in enumerate(stderr_lines(call, prefix))
    ]


def cloud_lines(calls: Iterable[Logged]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in cloud_entries(calls)).encode()


def cloud_array(calls: Iterable[Logged]) -> bytes:
    """As `gcloud logging read --format=json` prints it."""
    return json.dumps(cloud_entries(calls), indent=2).encode() + b"\n"


def cloud_descending(calls: Iterable[Logged]) -> bytes:
    """The same in its default order, the newest first."""
    return json.dumps(cloud_entries(calls)[::-1], indent=2).encode() + b"\n"


def cloud_fields(calls: Iterable[Logged]) -> bytes:
    """The JSON log, shipped by an agent into `jsonPayload`."""
    entries = [{"jsonPayload": json.loads(json_line(call)), "timestamp": "2026-11-22T10:00:00Z"} for call in calls]
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


FORMATS = {
    "jsonlog": jsonlog,
    "jsonlog with blanks": jsonlog_with_blanks,
    "csvlog": csvlog,
    "stderr": stderr,
    "cloud lines": cloud_lines,
    "cloud array": cloud_array,
    "cloud descending": cloud_descending,
    "cloud fields": cloud_fields,
}
