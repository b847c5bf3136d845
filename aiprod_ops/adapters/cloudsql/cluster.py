"""A Cloud SQL primary and its replicas, as they are moved through the Admin API: members are instances.

Google does the steps (stop, catch up, promote, bring the old one back); what is done here is to begin them once, to
wait for them, and to tell what became of them by asking the servers. While an operation goes on that somebody has
begun, us in a process that was killed among them, nobody can tell, and no other is begun.
Source: https://cloud.google.com/sql/docs/postgres/use-advanced-disaster-recovery
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.adapters.cloudsql.replicas import Replicas
from aiprod_ops.adapters.cloudsql.requests import Settings
from aiprod_ops.adapters.cloudsql.values import Instance, Operation
from aiprod_ops.errors import Failed, Missing, OpsError, Refused, TimedOut, Unreachable
from aiprod_ops.ports import Clock, Database, NewReplica, Place, Rows
from aiprod_ops.units import Seconds

MOVES = frozenset(
    {"SWITCHOVER", "SWITCHOVER_TO_REPLICA", "PROMOTE_REPLICA", "RECONFIGURE_OLD_PRIMARY"}
)  #: operations that change who is the primary
_IS_STANDBY = "select pg_is_in_recovery() as is_standby /* aiprod-ops */"
_HISTORY = """
select case when pg_is_in_recovery()
       then (select received_tli from pg_stat_wal_receiver where status = 'streaming')
       else ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int end as timeline
/* aiprod-ops: the history that a server writes, or is sent now */
"""
_PLUS = "ENTERPRISE_PLUS"
_LEAST = Seconds(60)  #: for Google's own steps, whatever patience says
GLANCE = Seconds(30)  #: so long the end of a move that is under way is waited for before it is called somebody's


class CloudSqlCluster:
    """The instance that is named, its primary and all of its replicas. `reading` refuses to change anything, `calls` is
    made when something is to be changed. `reach` opens a session that reads, with the host and the port of a DSN;
    `ways` are those of instances that are not reached at the address that the API tells. `longest` bounds a wait."""

    def __init__(
        self,
        instance: str,
        reading: CloudSqlAdmin,
        calls: Callable[[], Calls],
        clock: Clock,
        reach: Callable[[str], Database],
        ways: Mapping[str, str],
        longest: Seconds,
    ) -> None:
        self._instance, self._reading, self._calls, self._clock = instance, reading, calls, clock
        self._reach, self._ways, self._glance = reach, ways, min(longest, GLANCE)
        self._replicas = Replicas(reading, calls)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members())

    def places(self) -> dict[str, str]:
        """The host and the port of each member, as a DSN has them."""
        return {name: self._place(each) for name, each in self._members().items()}

    def place(self, name: str) -> Place:
        """Where the API, or the configuration, says that it is."""
        found = self._members().get(name)
        if found is None:
            raise Missing(f"the API knows no instance {name}")
        where = parse_dsn(self._place(found))
        return Place(where.get("host", ""), int(where.get("port", 5432)))

    # What is there

    def is_standby(self, name: str) -> bool | None:
        """Whether a member is in recovery; None where it does not answer. While the API moves it nobody can tell: that
        is waited for for a while. Raises Held where it goes on."""
        waiting.settled(self._reading, name, MOVES, self._clock, self._glance)
        return self._is_standby(name)

    def is_fenced(self, name: str) -> bool:
        """Whether a member is a standby; or does not answer, and the API says that it is one, is stopped, or is not
        there. While something is done to it, it may be on its way up."""
        if (standby := self._is_standby(name)) is not None:
            return standby
        found = self._reading.find(name)
        return found is None or ((found.is_replica or found.is_down) and not self._open(name))

    def streams(self, name: str, upstream: str) -> bool:
        """Whether a member is a replica of another by the API, and is sent that one's history now."""
        found = self._reading.find(name)
        if found is None or found.primary != upstream or self._is_standby(name) is not True:
            return False
        told = [row["timeline"] for each in (name, upstream) for row in self._ask(each, _HISTORY)]
        return len(told) == 2 and told[0] is not None and told[0] == told[1]

    def lost(self, silent: Sequence[str]) -> str:
        """The only one that the API does not call a replica."""
        known = self._members()
        found = [name for name in silent if name in known and not known[name].is_replica]
        return found[0] if len(found) == 1 else ""

    def written(self, name: str) -> None:
        """Nobody can tell of one that does not answer: its files are Google's."""

    def is_down(self, name: str) -> bool:  # noqa: ARG002
        """Nobody can tell from here; who runs these servers starts them again."""
        return False

    def needs(self, name: str) -> Mapping[str, int]:  # noqa: ARG002
        """Whoever runs these servers keeps their settings alike."""
        return {}

    def unlike(self, name: str, primary: str, position: int) -> str:  # noqa: ARG002
        """Nothing: the files of these servers are not here."""
        return ""

    def against(self, name: str) -> tuple[str, ...]:
        """What the API would refuse to promote a replica for, with what mends it."""
        known = self._members()
        replica = known.get(name)
        if replica is None or not replica.is_replica:
            return (f"the API knows no replica {name}",)
        primary = known.get(replica.primary)
        if primary is None:
            return (f"the API does not tell its primary {replica.primary}",)
        return tuple(self._lacks(primary, replica))

    def _lacks(self, primary: Instance, replica: Instance) -> Iterator[str]:
        project = self._reading.project
        for each in (primary, replica):
            if each.edition != _PLUS:
                how = f"gcloud sql instances patch {each.name} --edition={_PLUS} --tier=TIER --project={project}"
                edition = each.edition or "ENTERPRISE"
                yield f"{each.name} is {edition}, a primary and its DR replica have to be {_PLUS}: {how}"
        if replica.region == primary.region:
            yield f"it is in the region of {primary.name}, {primary.region}: a DR replica is in another"
        elif primary.dr_replica != replica.name:
            now = f"{primary.dr_replica} is" if primary.dr_replica else "none is"
            how = self._reading.designation(primary.name, replica.name)
            yield f"it is not the designated DR replica of {primary.name} ({now}): {how}"
        if not primary.backups.point_in_time:
            yield (
                f"{primary.name} has no point-in-time recovery: gcloud sql instances patch {primary.name} "
                f"--enable-point-in-time-recovery --project={project}"
            )
        if replica.state != "RUNNABLE":
            yield f"it is {replica.state}"
        for each in (primary, replica):
            for operation in self._open(each.name):
                if operation.type not in MOVES:  # those are waited for
                    yield f"{operation.type} is under way on {each.name}: {self._reading.look(operation.name)}"

    # What is done

    def switch_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Exchange the roles: without loss, or the operation fails, and the old primary serves again."""
        if self.is_standby(new) is False and self.is_fenced(old):
            return
        limit = Seconds(max(patience, _LEAST))
        calls = self._calls()
        calls.done(lambda: calls.admin.switchover(new, timeout=limit), "SWITCHOVER", new, report)

    def fail_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Promote the DR replica in the place of a primary that is lost, which is stopped through the API first.

        Google reconfigures the old one in an operation of its own, later: until then it would take writes, if it came
        back. So nothing is promoted where the API cannot stop it. Where the promotion fails it is started again.
        """
        if self.is_standby(new) is False and self.is_fenced(old):
            return
        self._fence(old, new, patience, report)
        report(f"{old} is fenced")
        calls = self._calls()
        try:
            calls.done(lambda: calls.admin.promote(new, failover=True), "PROMOTE_REPLICA", new, report)
        except Failed:
            if self.is_standby(new) is True:
                try:
                    self._start(old, report)
                except OpsError as error:
                    report(f"{old} stays stopped: {error.message}")
            raise

    def rejoin(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Google makes the old primary a replica by itself: start it where it was stopped, and wait until it streams.
        While an operation is under way on it that is waited for, and so long as `patience` after it."""
        idle_since = self._clock.monotonic()
        while not self.streams(old, new):
            found = self._reading.find(old)
            if found is None:
                raise Failed(f"{old} is not there any more", hint=self._anew(old, new))
            if found.primary == new and found.state == "RUNNABLE" and found.activation == "NEVER":
                self._start(old, report)
            if operations := self._open(old):
                report(f"{operations[0].type} is under way on {old}")
                self._calls().wait_for_others(old)
                idle_since = self._clock.monotonic()
            elif self._clock.monotonic() - idle_since > max(patience, _LEAST):
                raise Failed(self._not_back(found, new), hint=self._anew(old, new))
            self._clock.sleep(Seconds(0.5))

    # One more, and one less

    def hinders(self, new: NewReplica) -> tuple[str, ...]:
        return tuple(self._replicas.hinders(new))

    def maker(self, name: str) -> str | None:
        return self._replicas.maker(name)

    def add(self, new: NewReplica, run: str, report: Callable[[str], None]) -> None:
        """RUNNABLE is no proof that it serves: it has to be sent what its primary writes."""
        self._replicas.add(new, run, report)
        until = self._clock.monotonic() + new.patience
        while not self.streams(new.name, new.primary):
            if self._clock.monotonic() > until:
                raise Failed(f"{new.name} is made, and does not stream after {new.patience:g} s")
            self._clock.sleep(Seconds(0.5))

    def needed(self, name: str) -> str:
        return self._replicas.needed(name)

    def remove(self, name: str, run: str, report: Callable[[str], None]) -> None:
        self._replicas.remove(name, run, report)

    # Details

    def _fence(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        if self._is_standby(old) is False:
            raise Refused(f"{old} answers, and takes writes: it is not lost")
        if self.is_fenced(old):
            return
        report(f"stopping {old}, which may be alive where nobody sees it")
        calls = replace(self._calls(), longest=Seconds(max(patience, 5 * _LEAST)))
        try:
            calls.done(lambda: calls.admin.patch(old, Settings(activation="NEVER")), "UPDATE", old, report)
            why = (
                "" if self.is_fenced(old) else f"{old} may take writes: the API says that it is stopped, and it is not"
            )
        except OpsError as error:
            why = error.message
        if why:
            by_hand = f"gcloud sql instances promote-replica {new} --failover --project={self._reading.project}"
            raise Refused(
                f"{old} cannot be stopped, so {new} is not promoted ({why}). Two primaries are worse than none: only "
                f"who knows that nothing can write to {old} any more does it by hand: {by_hand}"
            )

    def _start(self, name: str, report: Callable[[str], None]) -> None:
        calls = self._calls()
        calls.done(lambda: calls.admin.patch(name, Settings(activation="ALWAYS")), "UPDATE", name, report)

    def _open(self, name: str) -> list[Operation]:
        return [each for each in self._reading.operations(name) if not each.is_done]

    def _not_back(self, found: Instance, new: str) -> str:
        if found.primary == new:
            return f"{found.name} is a replica of {new} now, and does not stream"
        stopped = "; it stays stopped, for it would take writes" if found.is_down else ""
        return f"Google has not made {found.name} a replica of {new} yet{stopped}"

    def _anew(self, old: str, new: str) -> str:
        project = self._reading.project
        return (
            f"gcloud sql operations list --instance={old} --project={project}; where nothing is under way: "
            f"gcloud sql instances create NAME --master-instance-name={new} --project={project}"
        )

    def _members(self) -> dict[str, Instance]:
        """All instances that belong together, primaries first."""
        known = {each.name: each for each in self._reading.instances()}
        if self._instance not in known:
            raise Missing(f"the API knows no instance {self._instance} in the project {self._reading.project}")
        group, kin = {self._instance}, [_kin(each) & known.keys() for each in known.values()]
        while more := {name for names in kin if names & group for name in names} - group:
            group |= more
        return {name: known[name] for name in sorted(group, key=lambda each: (known[each].is_replica, each))}

    def _place(self, instance: Instance) -> str:
        return self._ways.get(instance.name) or f"host={instance.host} port={instance.port}"

    def _is_standby(self, name: str) -> bool | None:
        rows = self._ask(name, _IS_STANDBY)
        return bool(rows[0]["is_standby"]) if rows else None

    def _ask(self, name: str, sql: str) -> Rows:
        """What a server answers; nothing where it does not."""
        found = self._reading.find(name)  # whether the API answers is another question
        if found is None:
            return []
        session = self._reach(self._place(found))
        try:
            with suppress(Unreachable, Failed, TimedOut):
                return session.query(sql)
        finally:
            session.close()
        return []


def _kin(instance: Instance) -> set[str]:
    return {instance.name, instance.primary, instance.dr_replica, *instance.replicas}
