"""A cluster that Patroni moves: it is asked once, and looked at until it is what was asked for, whatever it answers.

`patronictl` and the API say that a switchover failed where it is still going on, and that it was done where another
member was promoted. So the answer decides nothing here: who holds the lock does, and what each server itself says.
Source: Patroni manual, "Patroni REST API", "Pause/Resume mode", "Watchdog support"; `api.py` of Patroni 4.1.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from aiprod_ops.adapters.patroni.api import PatroniApi
from aiprod_ops.adapters.patroni.values import BROKEN, CREATING, DOWN, RUNNING, Said, Status, Timing, View
from aiprod_ops.errors import Failed, OpsError, Refused, TimedOut, Unreachable
from aiprod_ops.ports import Database, NewReplica, Place
from aiprod_ops.units import Seconds

_IS_STANDBY = "select pg_is_in_recovery() as is_standby /* aiprod-ops */"
_STREAMS = """
select exists (select from pg_stat_replication where application_name = %(name)s and state = 'streaming') as streams
/* aiprod-ops: whether a standby streams */
"""
_PAUSE = 0.2  #: between two looks: Patroni itself looks no more often than once a second
_KNOCK = 2  #: seconds for a port to answer
_LOOK = Seconds(2)
_SILENT = "silent"
_LONGEST = Seconds(4 * 3600)  #: for a member to be copied anew

Address = tuple[str, int]
Report = Callable[[str], None]


def address(url: str) -> Address:
    """Host and port of a URL.

    >>> address("https://10.0.0.1"), address("//[::1]:5432")
    (('10.0.0.1', 443), ('::1', 5432))
    """
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)


class PatroniCluster:
    """`places` are where a member's API and its PostgreSQL listen, by name; `connect` opens a session that reads with a
    member. With a `watchdog` on each, one that has lost the lock is fenced even where nothing of it can be reached.
    `look` is how long the cluster is looked at after Patroni has not answered, at the least."""

    def __init__(
        self,
        places: Mapping[str, tuple[Address, Address]],
        api: PatroniApi,
        connect: Callable[[str], Database],
        *,
        watchdog: bool = False,
        look: Seconds = _LOOK,
    ) -> None:
        self._places, self._api, self._connect, self._watchdog = dict(places), api, connect, watchdog
        self._look = look
        self._silent: set[str] = set()
        self._is_asked = False  #: and we have not seen yet what became of it
        self._away: dict[str, OpsError] = {}  #: who was waited for in vain, and may still come

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._places)

    def place(self, name: str) -> Place:
        return Place(*self._places[name][1])

    # What is there

    def is_standby(self, name: str) -> bool | None:
        """What its server says; where that does not answer, what its Patroni says of it. Raises TimedOut or Unreachable
        where it may become the primary any time, because somebody has asked for it: until then nobody can tell how that
        ends."""
        found = self._is_standby(name)
        if found is not False:
            self._refuse_unsettled()
        return found

    def _is_standby(self, name: str) -> bool | None:
        try:
            with self._session(name) as session:
                return bool(session.query(_IS_STANDBY)[0]["is_standby"])
        except OpsError:
            status = self._status(name)
        if status is None or status.state != RUNNING:
            return None
        return {"primary": False, "master": False, "replica": True, "standby_leader": True}.get(status.role)

    def _refuse_unsettled(self) -> None:
        """A request waits where Patroni keeps its state until the leader reads it: so it does as long as the leader's
        Patroni is silent. While nobody leads another is being elected, unless it is paused, or was lost. Of a member of
        which nothing lives nothing comes any more."""
        if self._is_asked:
            raise TimedOut("Patroni was asked to move the primary, and it may still come")
        seen = self._view()
        if seen.leader:
            if self._status(seen.leader) is None and not self._is_gone(seen.leader):
                raise Unreachable(f"Patroni of {seen.leader}, which leads, does not answer: it may still move it")
        elif not seen.is_paused and not any(self._is_gone(each) for each in self.names):
            raise TimedOut("nobody leads this cluster now: Patroni is about to promote somebody")

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
        """What its tags say."""
        listed = self._view(name).members.get(name)
        if listed is None:
            return ("Patroni lists no such member",)
        return () if listed.may_lead else ("its tags say that it must not lead",)

    def lost(self, silent: Sequence[str]) -> str:
        """Who holds the lock; where nobody does any more, who was promoted last, or the only one that is silent."""
        leader = self._view().leader
        if not leader:
            known = [self._last_leader(each) for each in self.names if each not in silent]
            leader = next((each for each in known if each), "")
        if not leader and len(silent) == 1:
            leader = silent[0]
        return leader if leader in silent else ""

    def written(self, name: str) -> None:
        """Nobody can tell of one that does not answer: its files are on its own machine."""

    def is_fenced(self, name: str) -> bool:
        """It is a standby, or its Patroni keeps it down while another leads, or nothing of it lives."""
        if (standby := self._is_standby(name)) is not None:
            return standby
        status = self._status(name)
        if status is not None:
            return status.state in DOWN and self._view(name).leader != name
        return self._is_gone(name)

    def streams(self, name: str, upstream: str) -> bool:
        """Also where a tag lets it follow another standby, which follows the leader. Raises Unreachable or TimedOut of
        one that was waited for in vain: it may be back any time."""
        if self._is_behind(name, upstream):
            return True
        if name in self._away:
            raise self._away[name]
        return False

    def _is_behind(self, name: str, upstream: str) -> bool:
        if self._is_standby(name) is not True:
            return False
        if self._streams_from(name, upstream):
            return True
        listed = self._view(upstream).members.get(name)
        return listed is not None and listed.follows not in ("", upstream) and listed.state == "streaming"

    # What is done

    def switch_over(self, old: str, new: str, patience: Seconds, report: Report) -> None:
        """Ask the leader's Patroni, unless it is being done, and look until the candidate leads and the old one is a
        standby. Raises TimedOut where that is not to be seen in time: it may still come."""
        began = time.monotonic()
        seen = self._view(new)
        said = Said(None, f"nobody leads, and {new} has not been promoted")
        if seen.leader == old:
            self._check_candidate(seen, old, new)
            self._tell_pause(seen, report)
            others = self._streaming(old)
            report(f"asking Patroni to switch over from {old} to {new}")
            said = self._api.change(old, "/switchover", {"leader": old, "candidate": new}, patience)
            self._is_asked = True
            report(f"Patroni: {said.text}")
        elif seen.leader == new:
            others = self._streaming(new)
        elif seen.leader:
            raise Refused(f"{seen.leader} leads this cluster, and not {old}")
        else:
            others = []
        self._await_leader(old, new, max(began + patience, time.monotonic() + self._look), said)
        self._await_others([each for each in others if each not in (old, new)], new, patience, report)

    def fail_over(self, old: str, new: str, patience: Seconds, report: Report) -> None:
        """Ask for a failover once it is sure that nothing of the old one writes, and wait for the lock: Patroni gives
        it to nobody before its time has ended."""
        timing = self._timing(new)
        longest = patience + timing.ttl + timing.loop_wait
        deadline = time.monotonic() + longest
        asked: Said | None = None
        while (seen := self._view(new)).leader != new or self._is_standby(new) is not False:
            if seen.leader not in ("", old, new):
                raise Failed(
                    f"Patroni has promoted {seen.leader} by itself, and not {new}",
                    hint="nothing more is to be promoted; look at it with: aiprod-ops check replication",
                )
            if asked is None and seen.leader != new and self._cannot_write(old, seen):
                self._tell_pause(seen, report)
                report(f"nothing of {old} takes writes; asking Patroni to fail over to {new}")
                asked = self._api.change(new, "/failover", {"candidate": new}, self._look)
                self._is_asked = True
                self._refuse_declined(asked, new)
                report(f"waiting for the lock of {old}, which holds {timing.ttl:g} s without it")
                deadline = time.monotonic() + longest
            if time.monotonic() > deadline:
                raise self._too_late(old, new, asked)
            time.sleep(_PAUSE)
        self._is_asked = False
        self._await_others([each for each in self.names if each not in (old, new)], new, patience, report)

    def rejoin(self, old: str, new: str, patience: Seconds, report: Report) -> None:
        """Patroni brings a member back by itself. Where it has given that up the member is made anew, once; not in a
        pause, where somebody may have stopped it on purpose."""
        started = began = time.monotonic()
        is_anew, last = False, ""
        while not self._is_behind(old, new):
            waited = time.monotonic() - began
            status = self._status(old)
            state = status.state if status else _SILENT
            if state != last:
                report(f"{old} behind {new}: Patroni says {state}")
            last = state
            is_late = time.monotonic() - started > _LONGEST
            if state in BROKEN and waited > patience / 2 and not (is_anew or is_late or self._view(new).is_paused):
                report(f"{old} does not come by itself ({state}): it is to be copied anew, what it had is thrown away")
                said = self._api.change(old, "/reinitialize", {}, patience)
                report(f"Patroni: {said.text}")
                is_anew = "already in progress" not in said.text  # it rewinds it, and says stopped meanwhile
                began = time.monotonic()
            elif is_late or (waited > patience and state != CREATING):
                raise self._not_back(old, new, state)
            time.sleep(_PAUSE)
        self._await_others([each for each in self.names if each not in (old, new)], new, patience, report)

    # One more, and one less: Patroni makes a member wherever somebody starts it

    def hinders(self, new: NewReplica) -> tuple[str, ...]:
        return (f"Patroni makes its members by itself: start it with the name {new.name} on a machine of its own",)

    def maker(self, name: str) -> str | None:
        return "" if name in self._places else None

    def add(self, new: NewReplica, run: str, report: Report) -> None:  # noqa: ARG002
        """Raises Refused."""
        raise Refused(*self.hinders(new))

    def needed(self, name: str) -> str:  # noqa: ARG002
        return "Patroni runs it: stop that there"

    def remove(self, name: str, run: str, report: Report) -> None:
        """Nothing of it is ours."""

    # Details

    def _check_candidate(self, seen: View, old: str, new: str) -> None:
        """Raises Refused where it would lose something, or where Patroni would choose another."""
        listed = seen.members.get(new)
        if listed is None:
            raise Refused(f"Patroni lists no member {new}; there are {', '.join(seen.members)}")
        if not listed.may_lead:
            raise Refused(f"the tags of {new} say that it must not lead")
        if seen.scheduled:
            raise Refused(f"a switchover is scheduled {seen.scheduled}", hint="patronictl flush CLUSTER switchover")
        if self._status(old) is None:
            raise Refused(f"Patroni of {old}, which has to hand over, does not answer")
        if not self._streams_from(new, old):
            raise Refused(f"{new} does not stream from {old} now: what it lacks would be lost")

    @staticmethod
    def _tell_pause(seen: View, report: Report) -> None:
        if seen.is_paused:
            report("the cluster is paused: Patroni moves it when asked to, and promotes and restarts nothing by itself")

    def _await_leader(self, old: str, new: str, deadline: float, said: Said) -> None:
        while True:
            seen = self._view(new)
            if seen.leader == new and self._is_standby(new) is False and self.is_fenced(old):
                self._is_asked = False
                return
            if seen.leader not in ("", old, new):
                self._is_asked = False
                raise Failed(f"Patroni has promoted {seen.leader}, and not {new}: {said.text}")
            if seen.leader == old:
                self._refuse_declined(said, new)
            if time.monotonic() > deadline:
                holds = f"{seen.leader} leads" if seen.leader else "nobody leads"
                raise TimedOut(
                    f"{new} has not taken over from {old} in time, {holds}, and it may still come: {said.text}"
                )
            time.sleep(_PAUSE)

    def _refuse_declined(self, said: Said, new: str) -> None:
        """Raises Failed for an answer that says no; that nobody knows is another one.

        Source: `poll_failover_result` of Patroni, whose 503 is `failed` or `status unknown`.
        """
        if said.status is not None and said.status >= 400 and "unknown" not in said.text:
            self._is_asked = False
            raise Failed(f"Patroni does not move to {new}: {said.status} {said.text}")

    def _await_others(self, names: list[str], new: str, patience: Seconds, report: Report) -> None:
        """Those that answer follow the new leader at their next look. One that does not is for the verification."""
        deadline = time.monotonic() + patience
        while left := [each for each in names if self._is_standby(each) is not None and not self.streams(each, new)]:
            if time.monotonic() > deadline:
                report(f"not behind {new} yet: {', '.join(left)}")
                return
            time.sleep(_PAUSE)

    def _not_back(self, old: str, new: str, state: str) -> OpsError:
        look = f"look into Patroni's log on {old}"
        if state in BROKEN and self._view(new).is_paused:
            start = "end the pause: patronictl resume CLUSTER"
            said = f"{old} does not stream from {new}: Patroni says {state}, and starts nothing in a pause; {start}"
            self._away[old] = TimedOut(said, hint=start)
        elif state in BROKEN:
            return Failed(f"{old} does not stream from {new}: Patroni says {state}", hint=look)
        elif state == _SILENT:
            start = f"start it there: it brings {old} back by itself"
            self._away[old] = Unreachable(f"Patroni of {old} does not answer; {start}", hint=start)
        else:
            self._away[old] = TimedOut(f"{old} does not stream from {new} yet: Patroni says {state}", hint=look)
        return self._away[old]

    def _cannot_write(self, old: str, seen: View) -> bool:
        """Whether a lost primary is surely one. Raises Refused where it lives; false where nobody can tell yet."""
        if self._is_standby(old) is False:
            raise Refused(f"{old} takes writes: it is not lost")
        status = self._status(old)
        if status is not None and status.state == RUNNING and seen.leader == old:
            raise Refused(f"Patroni of {old} says that it runs: it is not lost")
        return self.is_fenced(old)

    def _too_late(self, old: str, new: str, asked: Said | None) -> OpsError:
        if asked is not None:
            return TimedOut(f"Patroni has not promoted {new} in time, and it may still come: {asked.text}")
        return Refused(
            f"whether {old} still takes writes cannot be known, so {new} is not promoted",
            hint=f"make sure that {old} is down (power it off); `watchdog = true` says that a lost lock does so",
        )

    def _is_gone(self, name: str) -> bool:
        """Whether nothing listens where a member's Patroni and its server do. One that is silent may only be frozen, or
        cut off: then its watchdog has to have ended it, where it does not hold the lock any more."""
        if not any(_may_listen(place) for place in self._places[name]):
            return True
        if not self._watchdog or self._status(name) is not None:
            return False
        seen = self._view()
        return seen.leader != name and not seen.is_paused  # in a pause Patroni lets no watchdog act

    def _streaming(self, upstream: str) -> list[str]:
        return [each for each in self.names if each != upstream and self.streams(each, upstream)]

    def _streams_from(self, name: str, upstream: str) -> bool:
        try:
            with self._session(upstream) as session:
                return bool(session.query(_STREAMS, {"name": name})[0]["streams"])
        except (Unreachable, Failed, TimedOut):
            return False

    def _status(self, name: str) -> Status | None:
        """What its Patroni says; None where it does not answer."""
        try:
            return self._api.status(name)
        except (Unreachable, TimedOut, Failed):
            return None

    def _last_leader(self, name: str) -> str:
        try:
            return self._api.last_leader(name)
        except (Unreachable, TimedOut, Failed):
            return ""

    def _timing(self, name: str) -> Timing:
        try:
            return self._api.timing(name)
        except (Unreachable, TimedOut, Failed):
            return Timing()

    def _view(self, first: str = "") -> View:
        """The cluster as the first member that answers reads it; those that did not answer are asked last. Raises
        Unreachable where none does."""
        reasons = []
        for name in sorted(self._places, key=lambda each: (each in self._silent, each != first)):
            try:
                seen = self._api.view(name)
            except (Unreachable, TimedOut, Failed) as error:
                self._silent.add(name)
                reasons.append(error.message)
            else:
                self._silent.discard(name)
                return seen
        raise Unreachable(f"no Patroni of this cluster tells who leads: {'; '.join(reasons)}")

    @contextmanager
    def _session(self, name: str) -> Iterator[Database]:
        session = self._connect(name)
        try:
            yield session
        finally:
            session.close()


def _may_listen(place: Address) -> bool:
    """Whether somebody may listen there: only a refusal says that nobody does."""
    try:
        with socket.create_connection(place, _KNOCK):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
