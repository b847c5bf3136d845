"""Changes of the Admin API, begun and waited for; what was not answered is looked for before it is called unknown."""

from collections.abc import Callable
from dataclasses import dataclass

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.errors import OutcomeUnknown, TimedOut
from aiprod_ops.ports import Clock
from aiprod_ops.units import Seconds


@dataclass(frozen=True)
class Calls:
    """One project's changes. `longest` bounds the wait for each operation; it goes on afterwards all the same."""

    admin: CloudSqlAdmin
    clock: Clock
    longest: Seconds

    def done(self, begin: Callable[[], Operation], kind: str, target: str, report: Callable[[str], None]) -> Operation:
        """Begin something and wait until it has ended well. `kind` and `target` are Google's words for its operation.

        Raises what `begin` and `waiting.wait` raise.
        """
        since = self.clock.now()
        try:
            operation = begin()
        except (TimedOut, OutcomeUnknown):
            found = waiting.find(self.admin, kind, target, since)
            if found is None:
                raise
            operation = found
        report(f"{kind} on {target}: operation {operation.name}")
        return self.wait(operation.name)

    def wait(self, operation: str) -> Operation:
        """Wait for an operation, whoever began it."""
        return waiting.wait(self.admin, operation, self.clock, timeout=self.longest)

    def wait_for_others(self, target: str) -> None:
        """Whatever is under way on an instance comes to its end, well or not."""
        for operation in self.admin.operations(target):
            if not operation.is_done:
                self._ended(operation.name)

    def _ended(self, name: str) -> None:
        until = self.clock.monotonic() + self.longest
        while not self.admin.operation(name).is_done and self.clock.monotonic() < until:
            self.clock.sleep(Seconds(1))
