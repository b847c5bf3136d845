"""Primary and standbys on this machine: fenced, promoted, repointed and brought back with PostgreSQL's own programs.

Each step looks at what is there first, so a switchover that was killed anywhere is finished by doing it again. There
are never two that write: the old primary is stopped with all its processes, and marked a standby on its disk, before
another is promoted; until then it can serve again.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.adding import SIGNAL as _SIGNAL
from aiprod_ops.adapters.local.adding import Addition, alter
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.errors import Failed, OpsError, Refused, TimedOut, Unreachable
from aiprod_ops.ports import Database, NewReplica, Place, Rows
from aiprod_ops.units import Seconds

_IS_STANDBY = "select pg_is_in_recovery() as is_standby /* aiprod-ops */"
_STREAMS = """
select exists (select from pg_stat_replication where application_name = %(name)s and state = 'streaming') as streams,
       pg_walfile_name(pg_current_wal_flush_lsn()) as segment /* aiprod-ops: whether a standby streams */
"""
_TIMELINE = """
select greatest(received_tli, (select max(('x' || left(name, 8))::bit(32)::int) from pg_ls_waldir()
                               where name ~ '^[0-9A-F]+$' and length(name) = 24)) as timeline
from pg_stat_wal_receiver /* aiprod-ops: which timeline it receives, or has */
"""
_SLEEPS = """
select setting::int > 500 as sleeps from pg_settings where name = 'wal_retrieve_retry_interval'
/* aiprod-ops: how long a standby waits before it looks for WAL again */
"""
_REPLAYED = "select pg_last_wal_replay_lsn() > %(lsn)s::pg_lsn as has_it /* aiprod-ops: the shutdown checkpoint */"
_SLOT = """
select pg_create_physical_replication_slot(%(slot)s, true)
where not exists (select from pg_replication_slots where slot_name = %(slot)s) /* aiprod-ops: a slot for a standby */
"""
_DROP = """
select pg_drop_replication_slot(slot_name) from pg_replication_slots
where slot_type = 'physical' and not active and slot_name = any(%(slots)s) /* aiprod-ops: slots of former standbys */
"""
_HAS_SLOT = "select 1 as n from pg_replication_slots where slot_name = %(slot)s /* aiprod-ops */"
_BEHIND = "select application_name as name from pg_stat_replication /* aiprod-ops: who follows it */"
_OWN = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")  #: pg_rewind takes the source's
_PAUSE = 0.005  #: between two looks while nobody can write


@dataclass(frozen=True)
class Member:
    """One server of the cluster. `admin` is a superuser's DSN that leads to it alone; `upstream` is what a standby
    needs beside host and port to stream from it (user, passfile). Its slot and application name are its own name."""

    name: str
    server: PostgresServer
    admin: str
    upstream: str


class LocalCluster:
    """`connect` opens a session that may write, with a DSN."""

    def __init__(self, members: Mapping[str, Member], connect: Callable[[str], Database]) -> None:
        self._members, self._connect = dict(members), connect

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def place(self, name: str) -> Place:
        """As its admin's DSN has it."""
        where = parse_dsn(self._members[name].admin)
        return Place(where.get("host", ""), int(where.get("port", 5432)))

    # What is there

    def is_standby(self, name: str) -> bool | None:
        """Whether a member is in recovery; None where it does not answer."""
        try:
            return bool(self._ask(name, _IS_STANDBY)[0]["is_standby"])
        except (Unreachable, Failed, TimedOut):
            return None

    def is_fenced(self, name: str) -> bool:
        """Whether nothing of a member lives, or it is a standby: it cannot acknowledge a write."""
        return not self._living(name) or self.is_standby(name) is True

    def against(self, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: what PostgreSQL would refuse is seen on its servers."""
        return ()

    def lost(self, silent: Sequence[str]) -> str:
        """The only one whose files are a primary's. The mark of a fence on one tells only which of several was fenced
        before: a failover that went no further leaves it, too. One that has no files at all was never made; where no
        other could it be, its disk is lost with it."""
        found = [name for name in silent if self._was_primary(name)]
        made = [name for name in found if (self._members[name].server.data / "PG_VERSION").exists()] or found
        unmarked = [name for name in made if not (self._members[name].server.data / _SIGNAL).exists()]
        return next((each[0] for each in (unmarked, made) if len(each) == 1), "") if len(unmarked) <= 1 else ""

    def _was_primary(self, name: str) -> bool:
        """As its control file says; where that cannot be read, by the mark of a standby."""
        server = self._members[name].server
        try:
            said = server.programs.run("pg_controldata", f"--pgdata={server.data}", cwd=server.data.parent)
        except (OpsError, OSError):
            return not (server.data / _SIGNAL).exists()
        state = r"^Database cluster state:\s+(in production|shut down|shutting down|in crash recovery)$"
        return re.search(state, said, re.MULTILINE) is not None

    def written(self, name: str) -> int | None:
        """As its files tell, which a server that is frozen or dead has left."""
        server = self._members[name].server
        try:
            said = server.programs.run("pg_controldata", f"--pgdata={server.data}", cwd=server.data.parent)
            begins = re.search(r"^Latest checkpoint's REDO location:\s+(\S+)$", said, re.MULTILINE)
            timeline = re.search(r"^Latest checkpoint's TimeLineID:\s+(\d+)$", said, re.MULTILINE)
            if begins is None or timeline is None:
                return None
            newest, start = self._newest_timeline(name, int(timeline[1]), begins[1])
            place = (f"--path={server.data / 'pg_wal'}", f"--timeline={newest}", f"--start={start}")
            server.programs.run("pg_waldump", "--quiet", *place, cwd=server.data.parent)
        except Failed as error:  # it always ends with what it found instead of a record
            ends = re.findall(r"at ([0-9A-F]+)/([0-9A-F]+)", error.told)
            return max((int(high, 16) << 32) + int(low, 16) for high, low in ends) if ends else None
        except (OpsError, OSError):
            return None
        return None

    def _newest_timeline(self, name: str, checkpointed: int, start: str) -> tuple[int, str]:
        """The timeline that a server wrote last, and where in it to begin: one that was promoted a moment ago has its
        last checkpoint on the timeline before."""
        folder = self._members[name].server.data / "pg_wal"
        named = [each.name for each in folder.iterdir() if re.fullmatch(r"[0-9A-F]{24}", each.name)]
        newest = max((int(each[:8], 16) for each in named), default=checkpointed)
        if newest <= checkpointed:
            return checkpointed, start
        lines = (folder / f"{newest:08X}.history").read_text().split("\n")
        forks = [line.split()[1] for line in lines if line[:1].isdigit()]
        return newest, forks[-1] if forks else start

    # What is done

    def _prepare(self, old: str, new: str) -> None:
        """What takes time, while all can write: a checkpoint, and the other standbys behind the new primary: else one
        of them may have what the new one lacks, and diverge for good."""
        self._ask(old, "checkpoint /* aiprod-ops: before a switchover */")
        self._hurry(new)
        for name in self._standbys():
            if name not in (old, new):
                self.follow(name, new)

    def switch_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Exchange the roles. Where the new primary does not come as far in time the old one serves again."""
        if self.is_standby(new) is False and self.is_fenced(old):
            return
        if self.is_standby(old) is True and not self._members[new].server.is_running():
            self.serve_again(new)  # it was fenced by one who was killed, and nobody took its place
            return
        if self.is_standby(old) is False:
            if self.is_standby(new) is None:  # a move that is taken back before the former primary came back
                self.rejoin(new, old, patience, report)
            self._prepare(old, new)
        with self._session(new) as standby:
            try:
                self.fence(old, patience)
                report(f"{old} is fenced")
                self._await_all(old, standby, patience)
                report(f"{new} has all of it")
                self._promote(standby, patience)
            except OpsError:
                if self._is_unpromoted(new):
                    self.serve_again(old)
                raise

    def fail_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Promote a standby in the place of a primary that is lost: it is killed, with all its processes, first, and so
        is whoever else does not answer: it cannot be asked whether it takes writes."""
        roles = {name: self.is_standby(name) for name in self._members if name not in (old, new)}
        if writes := [name for name, is_standby in roles.items() if is_standby is False]:
            raise Refused(f"{', '.join(writes)} takes writes: two that do are worse than none")
        for name in (old, *(name for name, is_standby in roles.items() if is_standby is None)):
            self.kill(name)
            report(f"{name} is fenced")
        if self.is_standby(new) is False:
            return
        for name in self._standbys():
            if name not in (old, new):
                self.follow(name, new)
        self._hurry(new)
        with self._session(new) as standby:
            self._promote(standby, patience)

    def _hurry(self, name: str) -> None:
        """PostgreSQL's default lets a promotion sleep for 5 s, until the next look for WAL."""
        if self._ask(name, _SLEEPS)[0]["sleeps"]:
            with self._session(name) as session:
                session.execute("alter system set wal_retrieve_retry_interval = '100ms'")
                session.query("select pg_reload_conf() /* aiprod-ops */")

    def fence(self, name: str, patience: Seconds) -> None:
        """Stop a primary: its standbys get all that it wrote, and its last record. Raises Failed where it does not end
        in time, or anything of it lives on; then it is as it was, or stopping."""
        member = self._members[name]
        (member.server.data / _SIGNAL).touch(mode=0o600)  # whoever starts it gets a standby
        member.server.programs.hand_over(member.server.data / _SIGNAL)
        if (pid := member.server.pid) is not None and member.server.is_running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)  # a fast shutdown. Source: PostgreSQL manual, "Shutting Down the Server"
        deadline = time.monotonic() + patience
        while member.server.is_running() or self._living(name):
            if time.monotonic() > deadline:
                raise Failed(f"{name} has not stopped after {patience:g} s")
            time.sleep(_PAUSE)

    def kill(self, name: str) -> None:
        """End a primary that may be frozen or half dead: its postmaster and every process of it, with SIGKILL."""
        member = self._members[name]
        if member.server.data.is_dir():
            (member.server.data / _SIGNAL).touch(mode=0o600)
            member.server.programs.hand_over(member.server.data / _SIGNAL)
        deadline = time.monotonic() + 10
        while living := self._living(name):
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise Failed(f"processes of {name} do not end, even when killed: {', '.join(map(str, living))}")
            time.sleep(_PAUSE)
        # Its number may be a zombie's that nobody reaps, or another process's by now: no server would start here.
        (member.server.data / "postmaster.pid").unlink(missing_ok=True)
        (member.server.sockets / f".s.PGSQL.{member.server.port}.lock").unlink(missing_ok=True)

    def serve_again(self, name: str) -> None:
        """Take the fence away from a primary that nobody has replaced."""
        member = self._members[name]
        others = [each for each in self._members if each != name and self.is_standby(each) is False]
        if others:
            raise Refused(f"{name} stays fenced: {', '.join(others)} takes writes")
        if member.server.is_running():
            self.kill(name)
        (member.server.data / _SIGNAL).unlink(missing_ok=True)
        self._configure(name, {"primary_conninfo": "", "primary_slot_name": ""})
        member.server.start()
        for other in self._standbys():
            self.follow(other, name)

    def follow(self, name: str, upstream: str) -> None:
        """Let a standby stream from another member, at once where it runs."""
        member = self._members[name]
        self._ask(upstream, _SLOT, {"slot": name})
        settings = {"primary_conninfo": self._conninfo(name, upstream), "primary_slot_name": name}
        if member.server.is_running():
            with self._session(name) as session:
                for setting, value in settings.items():
                    session.execute(f"alter system set {setting} = '{value.replace(chr(39), chr(39) * 2)}'")
                session.query("select pg_reload_conf() /* aiprod-ops */")
        else:
            self._configure(name, settings)
            (member.server.data / _SIGNAL).touch(mode=0o600)
            member.server.programs.hand_over(member.server.data / _SIGNAL)
            member.server.start()

    def rejoin(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Bring a fenced primary back as a standby: as it is, else rewound, else copied anew."""
        if self.streams(old, new):
            return
        ways = (self._as_it_is, self._rewound, self._copied)
        # One that was not shut down cleanly has what nobody else has, so it is rewound at least.
        gentle = (self.is_standby(old) is True or self._stands_still(old)) and not self._forked(old, new)
        for way in ways if gentle else ways[1:]:
            report(f"{old} behind {new}: {way.__name__.strip('_').replace('_', ' ')}")
            try:
                way(old, new)
                self._await_streaming(old, new, patience)
            except (Failed, TimedOut, Unreachable) as error:
                report(f"{old} does not follow so: {error.told}")
                self.kill(old)
                continue
            self._ask(old, _DROP, {"slots": list(self._members)})
            return
        raise Failed(f"{old} does not stream from {new}", hint=f"look into {self._members[old].server.log}")

    # One more, and one less

    def hinders(self, new: NewReplica) -> tuple[str, ...]:
        """What would make it fail, or belongs to somebody."""
        if new.name not in self._members:
            return (f"no server {new.name} is declared: [targets.TARGET.servers.{new.name}] data_directory, admin",)
        return tuple(self._addition(new.name).hinders(new.primary))

    def maker(self, name: str) -> str | None:
        return self._addition(name).maker() if name in self._members else None

    def add(self, new: NewReplica, run: str, report: Callable[[str], None]) -> None:
        """Its slot first, so that what is written during the base backup is kept for it."""
        member, addition = self._members[new.name], self._addition(new.name)
        if addition.maker() not in (None, run):
            raise Refused(f"{new.name} was not made by this run")
        dsn, env = without_password(self._conninfo(new.name, new.primary))
        report(f"copying {new.primary} to {member.server.data}")
        self._ask(new.primary, _SLOT, {"slot": new.name})
        settings = {"primary_conninfo": self._conninfo(new.name, new.primary), "primary_slot_name": new.name}
        addition.build(new.primary, run, dsn, env, settings)
        if not member.server.is_running():
            member.server.start()
        self._await_streaming(new.name, new.primary, new.patience)

    def needed(self, name: str) -> str:
        is_standby = self.is_standby(name)
        if is_standby is False or self._addition(name).is_promoted:
            return "it takes writes by now"
        behind = self._ask(name, _BEHIND) if is_standby else []
        return f"{', '.join(row['name'] for row in behind)} follow it" if behind else ""

    def remove(self, name: str, run: str, report: Callable[[str], None]) -> None:
        """Stop it, drop its slots, remove its files: while these are there one sees whose it was."""
        addition = self._addition(name)
        if addition.maker() != run:
            return
        if needed := self.needed(name):
            raise Refused(f"{name} is not removed: {needed}")
        report(f"removing {name}")
        if self._members[name].server.data.is_dir():
            self.kill(name)
        for other in self._members:
            if other != name and self.is_standby(other) is not None:
                self._drop_slot(other, name)
        addition.discard(run)

    def _drop_slot(self, on: str, slot: str) -> None:
        """Its sender may still have to notice that nobody is there any more."""
        dropped = lambda: not self._ask(on, _DROP, {"slots": [slot]}) and not self._ask(on, _HAS_SLOT, {"slot": slot})  # noqa: E731
        if not processes.wait_until(dropped, Seconds(10)):
            raise Failed(f"the slot {slot} of {on} is in use")

    def _addition(self, name: str) -> Addition:
        member = self._members[name]
        has_sockets = parse_dsn(member.admin).get("host", "").startswith("/")
        return Addition(name, member.server, has_sockets, self._ask)

    def streams(self, name: str, upstream: str) -> bool:
        """Whether a member streams what another writes now: one that has what the other lacks streams the timeline
        before, and goes no further: its own WAL tells."""
        try:
            if not self.is_standby(name):
                return False
            seen, receives = self._ask(upstream, _STREAMS, {"name": name})[0], self._ask(name, _TIMELINE)
            return bool(seen["streams"] and receives) and receives[0]["timeline"] == int(str(seen["segment"])[:8], 16)
        except (Unreachable, Failed, TimedOut):
            return False

    # Details

    def _as_it_is(self, old: str, new: str) -> None:
        self.follow(old, new)

    def _rewound(self, old: str, new: str) -> None:
        member = self._members[old]
        source = self._members[new]
        self.kill(old)
        conf = {each: (member.server.data / each).read_bytes() for each in _OWN}
        arguments = [f"--target-pgdata={member.server.data}", f"--source-server={source.admin}"]
        # A server that was killed is recovered first, alone, and stopped: pg_rewind does that by itself.
        (member.server.data / _SIGNAL).unlink(missing_ok=True)
        member.server.programs.run("pg_rewind", *arguments, cwd=member.server.data.parent)
        for path in self._forked(old, new):  # it leaves them behind, and one would think that this one is still there
            path.unlink()
        for each, content in conf.items():
            (member.server.data / each).write_bytes(content)
        (member.server.data / _SIGNAL).touch(mode=0o600)
        member.server.programs.hand_over(member.server.data)
        self.follow(old, new)

    def _copied(self, old: str, new: str) -> None:
        """The old files stay beside until the new ones stream: nobody asked to throw them away."""
        member = self._members[old]
        conf = {each: (member.server.data / each).read_bytes() for each in _OWN if (member.server.data / each).exists()}
        aside = member.server.data.with_name(f"{member.server.data.name}.before-{new}")
        shutil.rmtree(aside, ignore_errors=True)
        member.server.data.rename(aside)
        dsn, env = without_password(self._conninfo(old, new))
        try:
            member.server.base_backup(dsn, env=env, sync=True)
        except OpsError:
            shutil.rmtree(member.server.data, ignore_errors=True)
            aside.rename(member.server.data)
            raise
        for each, content in conf.items():
            (member.server.data / each).write_bytes(content)
        member.server.programs.hand_over(member.server.data)
        self.follow(old, new)

    def _promote(self, standby: Database, patience: Seconds) -> None:
        standby.query("select pg_promote(false) /* aiprod-ops */")
        deadline = time.monotonic() + patience
        while standby.query(_IS_STANDBY)[0]["is_standby"]:
            if time.monotonic() > deadline:
                raise TimedOut(f"the promotion has not ended after {patience:g} s")
            time.sleep(_PAUSE)

    def _is_unpromoted(self, name: str) -> bool:
        """A promotion takes the signal file away before it lets anybody write: while it is there, nobody was let."""
        return (self._members[name].server.data / _SIGNAL).exists() and self.is_standby(name) is not False

    def _await_all(self, old: str, standby: Database, patience: Seconds) -> None:
        """Wait until a standby has replayed the last record of a stopped primary: then it lacks nothing."""
        last = self._shut_down(old)
        if not last:
            raise Failed(f"{old} was not shut down cleanly")
        deadline = time.monotonic() + patience
        while not standby.query(_REPLAYED, {"lsn": last})[0]["has_it"]:
            if time.monotonic() > deadline:
                raise Failed(f"the new primary has not replayed {last} after {patience:g} s")
            time.sleep(_PAUSE)

    def _stands_still(self, name: str) -> bool:
        """Whether a stopped server may have nothing that others lack: it was shut down cleanly, or is a standby."""
        try:
            return bool(self._shut_down(name)) or not self._was_primary(name)
        except OpsError:  # its files are damaged, or not there
            return False

    def _forked(self, name: str, upstream: str) -> list[Path]:
        """What a member has of timelines after the one that another writes."""
        written = str(self._ask(upstream, _STREAMS, {"name": name})[0]["segment"])[:8]
        found = (self._members[name].server.data / "pg_wal").glob("*")
        return [path for path in found if re.fullmatch(r"[0-9A-F]{24}", path.name) and path.name[:8] > written]

    def _shut_down(self, name: str) -> str:
        """Where the last checkpoint of a server is that was shut down cleanly as a primary; '' for any other."""
        server = self._members[name].server
        said = server.programs.run("pg_controldata", f"--pgdata={server.data}", cwd=server.data.parent)
        found = re.search(r"^Latest checkpoint location:\s+(\S+)$", said, re.MULTILINE)
        is_clean = re.search(r"^Database cluster state:\s+shut down$", said, re.MULTILINE)
        return found[1] if found and is_clean else ""

    def _await_streaming(self, name: str, upstream: str, patience: Seconds) -> None:
        deadline = time.monotonic() + patience
        while not self.streams(name, upstream):
            if time.monotonic() > deadline or not self._members[name].server.is_running():
                raise Failed(f"{name} does not stream from {upstream}")
            time.sleep(0.05)

    def _configure(self, name: str, settings: Mapping[str, str]) -> None:
        """What `ALTER SYSTEM` would write, for a server that is stopped."""
        path = self._members[name].server.data / "postgresql.auto.conf"
        alter(path, settings)
        self._members[name].server.programs.hand_over(path)

    def _conninfo(self, name: str, upstream: str) -> str:
        server = self._members[upstream].server
        host = parse_dsn(self._members[upstream].admin).get("host", "")
        return f"host={_quoted(host)} port={server.port} {self._members[name].upstream} application_name={name}".strip()

    def _standbys(self) -> list[str]:
        return [name for name in self._members if self.is_standby(name)]

    def _living(self, name: str) -> list[int]:
        return [each.pid for each in processes.below(self._members[name].server.data)]

    @contextmanager
    def _session(self, name: str) -> Iterator[Database]:
        session = self._connect(self._members[name].admin)
        try:
            yield session
        finally:
            session.close()

    def _ask(self, name: str, sql: str, values: Mapping[str, object] | None = None) -> Rows:
        with self._session(name) as session:
            return session.query(sql, values or {})


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
