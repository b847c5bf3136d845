"""One member streams from another: pointed at it, rewound, or copied anew, as gently as its files allow."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiprod_ops.adapters.local.members import Members
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.errors import Failed, OpsError, TimedOut, Unreachable
from aiprod_ops.units import Seconds

_STREAMS = """
select exists (select from pg_stat_replication where application_name = %(name)s and state = 'streaming') as streams,
       pg_walfile_name(pg_current_wal_flush_lsn()) as segment /* aiprod-ops: whether a standby streams */
"""
_TIMELINE = """
select greatest(received_tli, (select max(('x' || left(name, 8))::bit(32)::int) from pg_ls_waldir()
                               where name ~ '^[0-9A-F]+$' and length(name) = 24)) as timeline
from pg_stat_wal_receiver /* aiprod-ops: which timeline it receives, or has */
"""
SLOT = """
select pg_create_physical_replication_slot(%(slot)s, true)
where not exists (select from pg_replication_slots where slot_name = %(slot)s) /* aiprod-ops: a slot for a standby */
"""
DROP = """
select pg_drop_replication_slot(slot_name) from pg_replication_slots
where slot_type = 'physical' and not active and slot_name = any(%(slots)s) /* aiprod-ops: slots of former standbys */
"""
_OWN = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")  #: pg_rewind takes the source's


@dataclass(frozen=True)
class Following:
    """Each step looks at what is there first, and can be done again."""

    members: Members

    def streams(self, name: str, upstream: str) -> bool:
        """Whether a member streams what another writes now: one that has what the other lacks streams the timeline
        before, and goes no further: its own WAL tells."""
        try:
            if not self.members.is_standby(name):
                return False
            seen, receives = self.members.ask(upstream, _STREAMS, {"name": name})[0], self.members.ask(name, _TIMELINE)
            return bool(seen["streams"] and receives) and receives[0]["timeline"] == int(str(seen["segment"])[:8], 16)
        except (Unreachable, Failed, TimedOut):
            return False

    def follow(self, name: str, upstream: str) -> None:
        """Let a standby stream from another member, at once where it runs."""
        member = self.members[name]
        self.members.ask(upstream, SLOT, {"slot": name})
        settings = {"primary_conninfo": self.members.conninfo(name, upstream), "primary_slot_name": name}
        if member.server.is_running():
            with self.members.session(name) as session:
                for setting, value in settings.items():
                    session.execute(f"alter system set {setting} = '{value.replace(chr(39), chr(39) * 2)}'")
                session.query("select pg_reload_conf() /* aiprod-ops */")
        else:
            member.configure(settings)
            member.mark()
            member.server.start()

    def await_streaming(self, name: str, upstream: str, patience: Seconds) -> None:
        """Raises Failed where it does not stream in time, or stops."""
        deadline = time.monotonic() + patience
        while not self.streams(name, upstream):
            if time.monotonic() > deadline or not self.members[name].server.is_running():
                raise Failed(f"{name} does not stream from {upstream}")
            time.sleep(0.05)

    def rejoin(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Bring a fenced primary back as a standby: as it is, else rewound, else copied anew."""
        if self.streams(old, new):
            return
        ways = (self._as_it_is, self._rewound, self._copied)
        # One that was not shut down cleanly has what nobody else has, so it is rewound at least.
        keeps = self.members.is_standby(old) is True or self.members[old].stands_still
        for way in ways if keeps and not self._forked(old, new) else ways[1:]:
            report(f"{old} behind {new}: {way.__name__.strip('_').replace('_', ' ')}")
            try:
                way(old, new)
                self.await_streaming(old, new, patience)
            except (Failed, TimedOut, Unreachable, OSError) as error:
                why = error.told if isinstance(error, OpsError) else str(error)
                report(f"{old} does not follow so: {why}")
                self.members[old].kill()
                continue
            self.members.ask(old, DROP, {"slots": list(self.members)})
            return
        raise Failed(f"{old} does not stream from {new}", hint=f"look into {self.members[old].server.log}")

    def _as_it_is(self, old: str, new: str) -> None:
        self.follow(old, new)

    def _rewound(self, old: str, new: str) -> None:
        member = self.members[old]
        member.kill()
        conf = {each: (member.server.data / each).read_bytes() for each in _OWN}
        arguments = [f"--target-pgdata={member.server.data}", f"--source-server={self.members[new].admin}"]
        # A server that was killed is recovered first, alone, and stopped: pg_rewind does that by itself.
        member.unmark()
        member.server.programs.run("pg_rewind", *arguments, cwd=member.server.data.parent)
        for path in self._forked(old, new):  # it leaves them behind, and one would think that this one is still there
            path.unlink()
        for each, content in conf.items():
            (member.server.data / each).write_bytes(content)
        member.mark()
        member.server.programs.hand_over(member.server.data)
        self.follow(old, new)

    def _copied(self, old: str, new: str) -> None:
        """The old files stay beside until the new ones stream: nobody asked to throw them away."""
        member = self.members[old]
        conf = {each: (member.server.data / each).read_bytes() for each in _OWN if (member.server.data / each).exists()}
        aside = member.server.data.with_name(f"{member.server.data.name}.before-{new}")
        shutil.rmtree(aside, ignore_errors=True)
        member.server.data.rename(aside)
        dsn, env = without_password(self.members.conninfo(old, new))
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

    def _forked(self, name: str, upstream: str) -> list[Path]:
        """What a member has of timelines after the one that another writes."""
        written = str(self.members.ask(upstream, _STREAMS, {"name": name})[0]["segment"])[:8]
        return [path for path in self.members[name].segments if path.name[:8] > written]
