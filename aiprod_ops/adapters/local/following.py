"""One member streams from another: pointed at it, rewound, or copied anew, as gently as its files allow."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.adding import SIGNAL
from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.local.members import Member, Members
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.errors import Failed, OpsError, TimedOut, Unreachable
from aiprod_ops.units import Seconds

_STREAMS = """
select exists (select from pg_stat_replication where application_name = %(name)s and state = 'streaming') as streams,
       pg_walfile_name(pg_current_wal_flush_lsn()) as segment,
       (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint as flushed /* aiprod-ops: whether a standby streams */
"""
_TIMELINE = """
select coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed,
       greatest(received_tli, (select max(('x' || left(name, 8))::bit(32)::int) from pg_ls_waldir()
                               where name ~ '^[0-9A-F]+$' and length(name) = 24)) as timeline
from pg_stat_wal_receiver /* aiprod-ops: which timeline it receives, or has */
"""
_REPLAYED = "select coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed /* aiprod-ops */"
SLOT = """
select pg_create_physical_replication_slot(%(slot)s, true)
where not exists (select from pg_replication_slots where slot_name = %(slot)s) /* aiprod-ops: a slot for a standby */
"""
DROP = """
select pg_drop_replication_slot(slot_name) from pg_replication_slots
where slot_type = 'physical' and not active and slot_name = any(%(slots)s) /* aiprod-ops: slots of former standbys */
"""
_CLOSED = 0o701  #: no server starts in a folder that others may enter. Source: PostgreSQL, checkDataDir


@dataclass(frozen=True)
class Following:
    """Each step looks at what is there first, and can be done again."""

    members: Members

    def streams(self, name: str, upstream: str) -> bool:
        """Whether a member streams what another writes now: one that has what the other lacks streams the timeline
        before, and goes no further, or one of the same number: its own WAL tells."""
        try:
            if not self.members.is_standby(name):
                return False
            seen, receives = self.members.ask(upstream, _STREAMS, {"name": name})[0], self.members.ask(name, _TIMELINE)
            if not (seen["streams"] and receives and receives[0]["timeline"] == int(str(seen["segment"])[:8], 16)):
                return False
            return not self._unlike(name, upstream, receives[0]["replayed"])
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
            member.start()

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
        for way in self._ways(old, new):
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
        if self.members[old].is_marked and not self.members[old].was_interrupted:  # a sound one serves on as it was
            with suppress(Failed, OSError):
                self.members[old].start()
        raise Failed(f"{old} does not stream from {new}", hint=f"look into {self.members[old].server.log}")

    def _ways(self, old: str, new: str) -> tuple[Callable[[str, str], None], ...]:
        """The gentlest first. One that was not shut down cleanly has what nobody else has, so it is rewound at least;
        pg_rewind sees nothing to do where the timelines have the same number, whatever was written on them."""
        member, ways = self.members[old], (self._as_it_is, self._rewound, self._copied)
        if not member.was_made:
            return ways[2:]
        if member.was_interrupted:  # in the midst of a rewind: its files are of both
            return ways[1:]
        is_standby = self.members.is_standby(old) is True
        replayed = self.members.ask(old, _REPLAYED)[0]["replayed"] if is_standby else member.written
        if replayed and self._unlike(old, new, replayed):
            return ways[2:]
        has_more = self._forked(old, new) or member.beyond(self.members[new], int(str(replayed or 0)))
        return ways if (is_standby or member.stands_still) and not has_more else ways[1:]

    def _unlike(self, name: str, upstream: str, has: object) -> bool:
        """Whether a member's WAL is not that of another of the same timeline: it differs where both have some, or goes
        on where the other ends."""
        flushed = int(str(self.members.ask(upstream, _STREAMS, {"name": name})[0]["flushed"]))
        seen = int(str(has))
        own, theirs = self.members[name], self.members[upstream]
        return bool(own.unlike(theirs, min(seen, flushed))) or (seen > flushed and own.timeline == theirs.timeline)

    def _as_it_is(self, old: str, new: str) -> None:
        self.follow(old, new)

    def _rewound(self, old: str, new: str) -> None:
        """From the first step to the last nobody can start it: it is a standby until pg_rewind takes the mark away,
        and a server refuses a folder that others may look into."""
        member = self.members[old]
        member.kill()
        self._keep_lost(old, new)
        if not member.is_shut_down:
            self._recovered(member)
        source, env = without_password(self.members[new].admin)
        line = [f"--target-pgdata={member.server.data}", f"--source-server={source}", "--no-ensure-shutdown"]
        rewind = partial(
            member.server.programs.run, "pg_rewind", *line, cwd=member.server.data, env=env, timeout=LONGEST
        )
        if not member.was_interrupted:
            rewind("--dry-run")  # where it cannot begin nothing is touched
        member.keep_conf()
        member.server.data.chmod(_CLOSED)
        control = member.server.data / "global" / "pg_control"
        before = control.read_bytes()
        rewind()
        if control.read_bytes() == before:  # nothing of its tables: what it had more it has not replayed
            member.cut(self.members[new])
        for path in self._forked(old, new):  # it leaves them behind, and one would think that this one is still there
            path.unlink()
        member.restore_conf()
        member.mark()
        member.server.programs.hand_over(member.server.data)
        member.server.data.chmod(0o700)
        self.follow(old, new)

    @staticmethod
    def _recovered(member: Member) -> None:
        """Let a server that was killed replay what it has, as a standby that follows nobody: pg_rewind's own way starts
        it as a primary."""
        member.mark()
        # The history of a timeline that it may not follow may be there already.
        member.configure({"primary_conninfo": "", "primary_slot_name": "", "recovery_target_timeline": "current"})
        member.start()
        member.server.stop()
        member.configure({"recovery_target_timeline": ""})

    def _keep_lost(self, old: str, new: str) -> None:
        """Rewinding overwrites what only this one had, and that was acknowledged. Its WAL from the fork on is kept
        beside: a backup that is restored to the end of this timeline has it all."""
        member = self.members[old]
        kept = member.beside(f"lost-{new}")
        segments = member.beyond(self.members[new], member.written or 0)
        if not segments or kept.exists():  # of an earlier try
            return
        staging = member.beside(f"lost-{new}.part")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        for path in segments:
            shutil.copy2(path, staging)
        staging.rename(kept)

    def _copied(self, old: str, new: str) -> None:
        """A copy grows beside and is moved into its place when it is whole, and a standby. The old files stay beside:
        nobody asked to throw them away."""
        member = self.members[old]
        data, staging = member.server.data, member.beside("copy")
        copy = staging / data.name
        if data.is_mount():
            raise Failed(
                f"{data} is a mount point: its files cannot be kept beside, nor a copy be moved into its place"
            )
        processes.end_below(staging)
        if data.exists() or not (copy / SIGNAL).exists():  # else it is whole, and whoever made it was killed
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            member.server.programs.hand_over(staging)
            dsn, env = without_password(self.members.conninfo(old, new))
            replace(member.server, data=copy).base_backup(dsn, env=env, sync=True)
            member.copy_conf(copy)
            (copy / SIGNAL).touch(mode=0o600)
            member.server.programs.hand_over(copy)
        if data.is_dir():
            member.kill()
            data.rename(member.aside(new))
        copy.rename(data)
        staging.rmdir()
        member.forget_conf()
        self.follow(old, new)

    def _forked(self, name: str, upstream: str) -> list[Path]:
        """What a member has of timelines after the one that another writes."""
        written = str(self.members.ask(upstream, _STREAMS, {"name": name})[0]["segment"])[:8]
        return [path for path in self.members[name].segments if path.name[:8] > written]
