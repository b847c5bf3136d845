"""The standby of a REGIONAL instance: the same disk, written in two zones, and a server that takes it over."""

from collections.abc import Callable

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.errors import Held
from aiprod_ops.ports import Zoned


class CloudSqlZones:
    """`primary` tells which instance it is now; `calls` is made when something is to be changed."""

    def __init__(self, primary: Callable[[], str], reading: CloudSqlAdmin, calls: Callable[[], Calls]) -> None:
        self._primary, self._reading, self._calls = primary, reading, calls

    def where(self, instance: str = "") -> Zoned | None:
        """Raises Held while a failover is under way: nobody can tell then."""
        found = self._reading.instance(instance or self._primary())
        for each in self._reading.operations(found.name):
            if not each.is_done and each.type == "FAILOVER":
                raise Held(
                    f"FAILOVER is under way on {found.name}: operation {each.name}",
                    hint=f"wait for its end: {self._reading.look(each.name)}",
                )
        if not found.is_regional:
            return None
        return Zoned(found.name, found.zone, found.secondary_zone)

    def fail_over(self, zoned: Zoned, report: Callable[[str], None]) -> None:
        if self.where(zoned.instance) == zoned.swapped:
            return
        calls = self._calls()
        version = calls.admin.instance(zoned.instance).settings_version
        calls.done(lambda: calls.admin.failover(zoned.instance, version), "FAILOVER", zoned.instance, report)
