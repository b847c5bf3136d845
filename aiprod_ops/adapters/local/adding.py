"""A standby that is not there yet: a base backup that grows beside its place, and is moved there when it is whole.

What is under way is a folder that names its run, and what is in its place holds a file that does: whoever was killed is
followed by one who finds what he left, and nothing is removed that somebody else made.
"""

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.domain.replication import NOT_LOWER
from aiprod_ops.ports import Rows
from aiprod_ops.units import Bytes, show

SIGNAL = "standby.signal"
_MARKER = "aiprod-ops.replica.json"
_SENDERS = 2  #: a base backup reads the files with one and the WAL with another
_ROOM = """
select current_setting('max_wal_senders')::int
         - (select count(*)::int from pg_stat_activity where backend_type = 'walsender') as senders,
       current_setting('max_replication_slots')::int - (select count(*)::int from pg_replication_slots) as slots,
       coalesce((select active from pg_replication_slots where slot_name = %(slot)s), false) as is_followed,
       exists (select from pg_replication_slots where slot_name = %(slot)s) as has_slot,
       (select coalesce(string_agg(spcname, ', '), '') from pg_tablespace where pg_tablespace_location(oid) <> '')
         as tablespaces,
       (select coalesce(sum(size), 0)::bigint from pg_ls_waldir())
         + (select sum(pg_database_size(oid))::bigint from pg_database) as size
/* aiprod-ops: room for one more standby */
"""
_FILED = """
with filed as (
    select name, setting, coalesce((select f.setting from pg_file_settings f
                                    where f.name = s.name and f.setting ~ '^[0-9]+$'
                                    order by seqno desc limit 1), boot_val) as filed
    from pg_settings s where name = any(%(names)s))
select name, setting, filed from filed where filed::int < setting::int
/* aiprod-ops: settings that its files have lower than it runs with */
"""
_PLACES = """
select current_setting('log_directory') as log, current_setting('external_pid_file') as pid_file /* aiprod-ops */
"""


@dataclass(frozen=True)
class Addition:
    """One server that is to be made. `ask` sends a statement to a member by its name; `has_sockets` says that the
    server is reached by its folder of sockets."""

    name: str
    server: PostgresServer
    has_sockets: bool
    ask: Callable[[str, str, Mapping[str, object]], Rows]

    def hinders(self, primary: str) -> Iterator[str]:
        """What speaks against making it from this primary, in words."""
        if not re.fullmatch(r"[a-z0-9_]{1,63}", self.name):
            yield f"{self.name} cannot name its slot: lower-case letters, digits and _ can"
        yield from self._place()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.server.port))
            except OSError as error:
                yield f"its port {self.server.port} cannot be had: {error.strerror}"
        yield from self._on(primary)

    def _place(self) -> Iterator[str]:
        data = self.server.data
        if not data.parent.is_dir():
            yield f"there is no folder {data.parent}"
        elif data.is_mount():
            yield f"{data} is a mount point: name a folder in it, which can be moved into its place when it is whole"
        elif data.exists() and (not data.is_dir() or any(data.iterdir())):
            yield f"{data} is not empty: what is there belongs to somebody"
        for run in self._runs():
            yield f"the run {run} has begun it: aiprod-ops resume {run}, or aiprod-ops rollback {run}"

    def _on(self, primary: str) -> Iterator[str]:
        row: dict[str, Any] = dict(self.ask(primary, _ROOM, {"slot": self.name})[0])
        if row["senders"] < _SENDERS:
            yield f"of max_wal_senders of {primary} {row['senders']} are left, a base backup needs {_SENDERS}"
        if row["is_followed"]:
            yield f"somebody reads from the slot {self.name} of {primary}: another server goes by its name"
        elif row["slots"] < 1 and not row["has_slot"]:  # one that lost its disk finds its slot
            yield f"max_replication_slots of {primary} are used up"
        if row["tablespaces"]:
            yield f"{primary} has tablespaces ({row['tablespaces']}), whose folders there can be once on a machine only"
        for each in self.ask(primary, _FILED, {"names": list(NOT_LOWER)}):
            yield (
                f"its setting would be lower: {each['name']} is {each['filed']} in the files of {primary}, which runs "
                f"with {each['setting']}"
            )
        if self.server.data.parent.is_dir():
            free, needs = Bytes(shutil.disk_usage(self.server.data.parent).free), Bytes(int(row["size"] * 1.2))
            if free < needs:
                yield f"{show(free, 'B')} are free in {self.server.data.parent}, about {show(needs, 'B')} needed"

    def maker(self) -> str | None:
        """The run that made it, or has begun to; '' where somebody else did; None where nothing is there."""
        if runs := self._runs():
            return runs[0]
        data = self.server.data
        if not data.exists() or (data.is_dir() and not any(data.iterdir())):
            return None
        return str(self._marked().get("run", ""))

    def build(self, primary: str, run: str, dsn: str, env: Mapping[str, str], settings: Mapping[str, str]) -> None:
        """Let its files be there, as those of a standby that is stopped. `settings` are how it finds the primary."""
        staging, data = self._staging(run), self.server.data
        if self._marked().get("run") == run:
            if staging.exists():
                self._end(staging)
            return
        self._end(staging)
        staging.mkdir(mode=0o700)
        self.server.programs.hand_over(staging)
        copy = staging / data.name
        replace(self.server, data=copy).base_backup(dsn, env=env, sync=True)
        places = self.ask(primary, _PLACES, {})[0]
        own = {"port": str(self.server.port), **settings}
        if self.has_sockets:
            own["unix_socket_directories"] = str(self.server.sockets)
        if places["pid_file"]:
            own["external_pid_file"] = f"{data}.pid"
        if Path(places["log"]).is_absolute():
            own["log_directory"] = "log"
        else:  # what the primary said is not what this one said
            for file in (copy / places["log"]).glob("*"):
                file.unlink()
        alter(copy / "postgresql.auto.conf", own)
        (copy / _MARKER).write_text(json.dumps({"name": self.name, "run": run, "was_there": data.is_dir()}))
        (copy / SIGNAL).touch(mode=0o600)
        self.server.programs.hand_over(copy)
        copy.rename(data)  # also onto an empty folder, and never onto one that is not
        staging.rmdir()

    @property
    def is_promoted(self) -> bool:
        """Whether it is whole, and no standby any more."""
        return bool(self._marked()) and not (self.server.data / SIGNAL).exists()

    def discard(self, run: str) -> None:
        """Remove what this run made; the server is stopped."""
        self._end(self._staging(run))
        marked, data, gone = self._marked(), self.server.data, self._staging(run, "gone")
        if marked.get("run") == run:
            data.rename(gone)
            if marked.get("was_there"):
                data.mkdir(mode=0o700)
                self.server.programs.hand_over(data)
        self._end(gone)

    def _marked(self) -> dict[str, Any]:
        """What its marker says; one that was copied along from another server says another name."""
        try:
            read = json.loads((self.server.data / _MARKER).read_text())
        except (OSError, ValueError):
            return {}
        return dict(read) if isinstance(read, dict) and read.get("name") == self.name else {}

    def _staging(self, run: str, what: str = "new") -> Path:
        return self.server.data.with_name(f"{self.server.data.name}.{what}-{run}")

    def _runs(self) -> list[str]:
        """Whose folders are beside its place."""
        place = self.server.data
        found = [each for what in ("new", "gone") for each in place.parent.glob(f"{escape(place.name)}.{what}-*")]
        return sorted(each.name.removeprefix(f"{place.name}.").partition("-")[2] for each in found)

    def _end(self, folder: Path) -> None:
        """Remove a folder, with a base backup that outlived its run."""
        if folder.exists():
            processes.end_below(folder)
            shutil.rmtree(folder)


def alter(path: Path, settings: Mapping[str, str]) -> None:
    """Write what `ALTER SYSTEM` would write, for a server that is stopped; an empty text takes a setting away."""
    kept = [line for line in path.read_text().splitlines() if line.partition("=")[0].strip() not in settings]
    lines = [f"{setting} = '{value.replace(chr(39), chr(39) * 2)}'" for setting, value in settings.items() if value]
    path.write_text("".join(f"{line}\n" for line in [*kept, *lines]))
