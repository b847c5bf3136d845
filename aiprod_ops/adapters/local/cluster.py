"""Primary and standbys on this machine: fenced, promoted, repointed and brought back with PostgreSQL's own programs.

Each step looks at what is there first, so a switchover that was killed anywhere is finished by doing it again. There
are never two that write: the old primary is stopped with all its processes, and marked a standby on its disk, before
another is promoted; until then it can serve again.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.adding import Addition
from aiprod_ops.adapters.local.following import DROP, SLOT, Following
from aiprod_ops.adapters.local.members import IS_STANDBY, PAUSE, Member, Members
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.errors import Failed, Held, OpsError, Refused, TimedOut
from aiprod_ops.ports import Database, NewReplica, Place
from aiprod_ops.units import Bytes, Seconds, show

_SLEEPS = """
select setting::int > 500 as sleeps from pg_settings where name = 'wal_retrieve_retry_interval'
/* aiprod-ops: how long a standby waits before it looks for WAL again */
"""
_REPLAYED = "select pg_last_wal_replay_lsn() > %(lsn)s::pg_lsn as has_it /* aiprod-ops: the shutdown checkpoint */"
_ROOM = 32 * 1024**2  #: bytes: two segments of WAL; a promotion begins a new one
#: A record begins before the place that was replayed.
_HAS = "select (pg_last_wal_replay_lsn() - 1)::text as last /* aiprod-ops: how far a former primary had come */"
_HAS_SLOT = "select 1 as n from pg_replication_slots where slot_name = %(slot)s /* aiprod-ops */"
_BEHIND = "select application_name as name from pg_stat_replication /* aiprod-ops: who follows it */"


class LocalCluster:
    """`connect` opens a session that may write, with a DSN."""

    def __init__(self, members: Mapping[str, Member], connect: Callable[[str], Database]) -> None:
        self._members = Members(members, connect)
        self._following = Following(self._members)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def place(self, name: str) -> Place:
        return self._members[name].place

    # What is there

    def is_standby(self, name: str) -> bool | None:
        return self._members.is_standby(name)

    def is_fenced(self, name: str) -> bool:
        return not self._members[name].living or self.is_standby(name) is True

    def streams(self, name: str, upstream: str) -> bool:
        return self._following.streams(name, upstream)

    def is_down(self, name: str) -> bool:
        return not self._members[name].living

    def unlike(self, name: str, primary: str, position: int) -> str:
        if name not in self._members or primary not in self._members:
            return ""
        return self._members[name].unlike(self._members[primary], position)

    def against(self, name: str) -> tuple[str, ...]:
        """A disk that is all but full. What PostgreSQL would refuse is seen on its servers."""
        try:
            free = shutil.disk_usage(self._members[name].server.data / "pg_wal").free
        except (KeyError, OSError):  # not one of ours, or not there: it does not answer either
            return ()
        return (f"{show(Bytes(free), 'B')} are free on its disk: make room there",) if free < _ROOM else ()

    def needs(self, name: str) -> Mapping[str, int]:
        return self._members[name].needs if name in self._members else {}

    def lost(self, silent: Sequence[str]) -> str:
        """The only one whose files are a primary's. The mark of a fence on one tells only which of several was fenced
        before: a failover that went no further leaves it, too. One that has no files at all was never made; where no
        other could it be, its disk is lost with it."""
        found = [self._members[name] for name in silent if self._members[name].was_primary]
        made = [each for each in found if each.was_made] or found
        unmarked = [each for each in made if not each.is_marked]
        return next((each[0].name for each in (unmarked, made) if len(each) == 1), "") if len(unmarked) <= 1 else ""

    def written(self, name: str) -> int | None:
        return self._members[name].written

    # What is done

    def _prepare(self, old: str, new: str) -> None:
        """What takes time, while all can write: a checkpoint, and the other standbys behind the new primary: else one
        of them may have what the new one lacks, and diverge for good."""
        self._members.ask(old, "checkpoint /* aiprod-ops: before a switchover */")
        self._hurry(new)
        for name in self._members.standbys:
            if name not in (old, new):
                self._following.follow(name, new)

    def switch_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Where the new primary does not come as far in time the old one serves again; not any more once the new one
        was told to take its place, unless it is seen that it has not, and never will."""
        with self._alone():
            if self.is_standby(new) is False and self.is_fenced(old):
                return
            if self._woken(old, new, report):
                return
            if self.is_standby(old) is False:
                if not self.streams(new, old):  # a move that is taken back before the former primary came back
                    self._following.rejoin(new, old, patience, report)
                self._prepare(old, new)
            with self._members.session(new) as standby:
                standby.query(IS_STANDBY)  # it answers, before anybody has to wait for it
                try:
                    if self.is_standby(old) is not True:
                        self._members[old].fence(patience)
                        report(f"{old} is fenced")
                    self._await_all(old, standby, patience)
                    report(f"{new} has all of it")
                except OpsError:
                    if self._members[new].is_marked:
                        self._serve_again(old)
                    raise
                try:
                    self._promote(standby, patience)
                except OpsError:
                    if self._is_ended(new):
                        self._serve_again(old)
                        self._members[new].start()
                    raise

    def _woken(self, old: str, new: str, report: Callable[[str], None]) -> bool:
        """Start who died, as what it was; whether the new one has its role by that."""
        before, after = self._members[old], self._members[new]
        if not after.living and self.is_fenced(old):
            if after.last_checkpoint and not before.was_primary:
                self._serve_again(new)  # it was fenced by one who was killed, and nobody took its place
                return True
            report(f"{new} is down: it is started as what it was")
            after.start()
            if self.is_standby(new) is False:  # it was promoted before
                return True
        if not before.living and not before.is_marked and self.is_standby(new) is not False:
            report(f"{old} is down: it is started as what it was")
            before.start()
        return False

    def _is_ended(self, new: str) -> bool:
        """End a standby that was told to be the primary, and see whether it has become one: while its mark is there it
        has let nobody write, and once nothing of it lives it will not. Where the mark is gone it is left alone."""
        if not self._members[new].is_marked:
            return False
        self._members[new].kill(marks=False)
        if self._members[new].is_marked:
            return True
        self._members[new].start()
        return False

    def fail_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """The lost one is killed, with all its processes, first, and so is whoever else does not answer: it cannot be
        asked whether it takes writes."""
        with self._alone():
            self._take_over(old, new, patience, report)

    def _take_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        roles = {name: self.is_standby(name) for name in self._members if name not in (old, new)}
        if writes := [name for name, is_standby in roles.items() if is_standby is False]:
            raise Refused(f"{', '.join(writes)} takes writes: two that do are worse than none")
        for name in (old, *(name for name, is_standby in roles.items() if is_standby is None)):
            self._members[name].kill()
            report(f"{name} is fenced")
        if not self._members[new].living:
            report(f"{new} is down: it is started as what it was")
            self._members[new].start()
        if self.is_standby(new) is False:
            return
        for name in self._members.standbys:
            if name not in (old, new):
                self._following.follow(name, new)
        self._hurry(new)
        with self._members.session(new) as standby:
            self._promote(standby, patience)

    def kill(self, name: str) -> None:
        """End a member with all its processes; whoever starts it gets a standby."""
        self._members[name].kill()

    def rejoin(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        with self._alone():
            self._following.rejoin(old, new, patience, report)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else on this machine changes these servers, whichever state folder their run is in: a lock on each
        data directory, which ends with its process."""
        with ExitStack() as held:
            for name in sorted(self._members):
                data = self._members[name].server.data
                if not data.is_dir():
                    continue
                place = os.open(data, os.O_RDONLY)
                held.callback(os.close, place)
                try:
                    fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Held(f"another run is at work on {name} ({data})", hint="wait for its end") from error
            yield

    def _hurry(self, name: str) -> None:
        """PostgreSQL's default lets a promotion sleep for 5 s, until the next look for WAL."""
        if self._members.ask(name, _SLEEPS)[0]["sleeps"]:
            with self._members.session(name) as session:
                session.execute("alter system set wal_retrieve_retry_interval = '100ms'")
                session.query("select pg_reload_conf() /* aiprod-ops */")

    def _await_all(self, old: str, standby: Database, patience: Seconds) -> None:
        """Wait until a standby has replayed the last record of a stopped primary: then it lacks nothing. One that was
        started again meanwhile, as a standby, tells itself how far it had come."""
        if self.is_standby(old) is True:
            last = str(self._members.ask(old, _HAS)[0]["last"])
        else:
            last = self._members[old].last_checkpoint
        if not last:
            raise Failed(f"{old} was not shut down cleanly")
        deadline = time.monotonic() + patience
        while not standby.query(_REPLAYED, {"lsn": last})[0]["has_it"]:
            if time.monotonic() > deadline:
                raise Failed(f"the new primary has not replayed {last} after {patience:g} s")
            time.sleep(PAUSE)

    @staticmethod
    def _promote(standby: Database, patience: Seconds) -> None:
        standby.query("select pg_promote(false) /* aiprod-ops */")
        deadline = time.monotonic() + patience
        while standby.query(IS_STANDBY)[0]["is_standby"]:
            if time.monotonic() > deadline:
                raise TimedOut(f"the promotion has not ended after {patience:g} s")
            time.sleep(PAUSE)

    def _serve_again(self, name: str) -> None:
        """Take the fence away from a primary that nobody has replaced."""
        member = self._members[name]
        unmarked = [each for each in self._members if each != name and not self._members[each].is_marked]
        if others := [each for each in unmarked if self.is_standby(each) is False]:
            raise Refused(f"{name} stays fenced: {', '.join(others)} takes writes")
        if member.server.is_running():
            member.kill()
        member.unmark()
        member.configure({"primary_conninfo": "", "primary_slot_name": ""})
        member.start()
        for other in self._members.standbys:
            self._following.follow(other, name)

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
        conninfo = self._members.conninfo(new.name, new.primary)
        dsn, env = without_password(conninfo)
        report(f"copying {new.primary} to {member.server.data}")
        self._members.ask(new.primary, SLOT, {"slot": new.name})
        settings = {"primary_conninfo": conninfo, "primary_slot_name": new.name}
        addition.build(new.primary, run, dsn, env, settings)
        if not member.server.is_running():
            member.start()
        self._following.await_streaming(new.name, new.primary, new.patience)

    def needed(self, name: str) -> str:
        is_standby = self.is_standby(name)
        if is_standby is False or self._addition(name).is_promoted:
            return "it takes writes by now"
        behind = self._members.ask(name, _BEHIND) if is_standby else []
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
            self._members[name].kill()
        for other in self._members:
            if other != name and self.is_standby(other) is not None:
                self._drop_slot(other, name)
        addition.discard(run)

    def _drop_slot(self, on: str, slot: str) -> None:
        """Its sender may still have to notice that nobody is there any more."""
        ask = self._members.ask
        dropped = lambda: not ask(on, DROP, {"slots": [slot]}) and not ask(on, _HAS_SLOT, {"slot": slot})  # noqa: E731
        if not processes.wait_until(dropped, Seconds(10)):
            raise Failed(f"the slot {slot} of {on} is in use")

    def _addition(self, name: str) -> Addition:
        member = self._members[name]
        return Addition(name, member.server, member.place.host.startswith("/"), self._members.ask)
