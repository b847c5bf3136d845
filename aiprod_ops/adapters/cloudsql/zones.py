"""The standby of a REGIONAL instance: the same disk, written in two zones, and a server that takes it over."""

from collections.abc import Callable

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.ports import Clock, Zoned
from aiprod_ops.units import Seconds

_GLANCE = Seconds(30)


class CloudSqlZones:
    """`primary` tells which instance it is now; `calls` is made when something is to be changed."""

    def __init__(
        self, primary: Callable[[], str], reading: CloudSqlAdmin, calls: Callable[[], Calls], clock: Clock
    ) -> None:
        self._primary, self._reading, self._calls, self._clock = primary, reading, calls, clock

    def where(self, instance: str = "") -> Zoned | None:
        """While a failover is under way nobody can tell: that is waited for for a while. Raises Held where it goes
        on."""
        name = instance or self._primary()
        waiting.settled(self._reading, name, ("FAILOVER",), self._clock, _GLANCE)
        found = self._reading.instance(name)
        if not found.is_regional:
            return None
        return Zoned(found.name, found.zone, found.secondary_zone)

    def fail_over(self, zoned: Zoned, report: Callable[[str], None]) -> None:
        if self.where(zoned.instance) == zoned.swapped:
            return
        calls = self._calls()
        version = calls.admin.instance(zoned.instance).settings_version
        calls.done(lambda: calls.admin.failover(zoned.instance, version), "FAILOVER", zoned.instance, report)
