"""Read replicas that are made, and taken back: instances that bear their run as a label.

The API takes a name once, so one that was begun is found again by it, and its label tells whose it is. Until its
creation has ended it can be neither used nor deleted: that is waited for.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.adapters.cloudsql.values import Instance
from aiprod_ops.errors import Failed, OutcomeUnknown, Refused, TimedOut
from aiprod_ops.ports import NewReplica
from aiprod_ops.units import Seconds

LABEL = "aiprod-ops-replica"
_NAME = r"[a-z]([-a-z0-9]{0,96}[a-z0-9])?"
_PENDING = ("PENDING_CREATE", "PENDING_DELETE")


@dataclass(frozen=True)
class Replicas:
    """`reading` refuses to change anything; `calls` is made when something is to be changed."""

    reading: CloudSqlAdmin
    calls: Callable[[], Calls]

    def hinders(self, new: NewReplica) -> Iterator[str]:
        """What the API would refuse, as far as it is to be seen before."""
        if not re.fullmatch(_NAME, new.name):
            yield f"{new.name} cannot name an instance: lower-case letters, digits and hyphens can"
        if self.reading.find(new.name) is not None:
            yield f"there is an instance {new.name} already"
        primary = self.reading.instance(new.primary)
        if primary.state != "RUNNABLE":
            yield f"{primary.name} is {primary.state}"
        if not (primary.backups.enabled and primary.backups.point_in_time):
            yield (
                f"{primary.name} has no automated backups with point-in-time recovery: gcloud sql instances patch "
                f"{primary.name} --backup-start-time=HH:MM --enable-point-in-time-recovery "
                f"--project={self.reading.project}"
            )
        region = new.region or primary.region
        if new.zone and not new.zone.startswith(f"{region}-"):
            yield f"the zone {new.zone} is not in the region {region}"
        for operation in self.reading.operations(primary.name):
            if not operation.is_done:
                yield f"{operation.type} is under way on {primary.name}: {self.reading.look(operation.name)}"

    def maker(self, name: str) -> str | None:
        """What its label says."""
        found = self.reading.find(name)
        return None if found is None else found.labels.get(LABEL, "")

    def add(self, new: NewReplica, run: str, report: Callable[[str], None]) -> None:
        """Begin it once, and wait until it is RUNNABLE."""
        calls = self.calls()
        found = calls.admin.find(new.name)
        if found is None:
            wanted = _like(calls.admin.instance(new.primary), new, run)
            try:
                calls.done(lambda: calls.admin.insert(wanted), "CREATE_REPLICA", new.primary, report)
            except (OutcomeUnknown, TimedOut):
                made = calls.admin.find(new.name)  # whose it is its label tells, whichever operation made it
                if made is None or made.labels.get(LABEL) != run:
                    raise
        elif found.labels.get(LABEL) != run:
            raise Refused(f"there is an instance {new.name}, and this run did not make it")
        found = self._settled(new.name, report)
        if found is None or found.state != "RUNNABLE":
            raise Failed(f"{new.name} is {found.state if found else 'not there any more'}")

    def needed(self, name: str) -> str:
        """What somebody has made of it."""
        found = self.reading.find(name)
        if found is None:
            return ""
        if not found.is_replica:
            return "it is no replica any more"
        if found.replicas:
            return f"{', '.join(found.replicas)} follow it"
        if (primary := self.reading.find(found.primary)) is not None and primary.dr_replica == name:
            return f"it is the designated DR replica of {found.primary}"
        return "somebody has protected it from deletion" if found.deletion_protected else ""

    def remove(self, name: str, run: str, report: Callable[[str], None]) -> None:
        """Delete it, unless somebody needs it by now."""
        found = self._settled(name, report)
        if found is None or found.labels.get(LABEL) != run:
            return
        if needed := self.needed(name):
            raise Refused(f"{name} is not removed: {needed}")
        calls = self.calls()
        calls.done(lambda: calls.admin.delete(name), "DELETE", name, report)

    def _settled(self, name: str, report: Callable[[str], None]) -> Instance | None:
        """An instance when it is neither being made nor deleted."""
        calls = self.calls()
        until = calls.clock.monotonic() + calls.longest
        while (found := calls.admin.find(name)) is not None and found.state in _PENDING:
            if calls.clock.monotonic() > until:
                raise TimedOut(f"{name} is {found.state}, for {calls.longest:g} s now")
            report(f"{name} is {found.state}")
            calls.clock.sleep(Seconds(1))
        return found


def _like(primary: Instance, new: NewReplica, run: str) -> NewInstance:
    """As its primary is, in what was not named."""
    region = new.region or primary.region
    settings = Settings(
        tier=new.tier or primary.tier or None,
        edition=primary.edition or None,
        availability="ZONAL",
        disk_gb=primary.disk_gb or None,
        deletion_protected=False,
        labels={LABEL: run},
        flags=primary.flags or None,
        private_network=primary.network or None,
        public_address=None if not primary.network else False,
        zone=new.zone or None,
    )
    key = primary.kms_key if region == primary.region else ""
    return NewInstance(new.name, primary.version, region, primary.name, kms_key=key, settings=settings)
