"""Changes of the Admin API, begun and waited for; what was not answered is looked for before it is called unknown."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aiprod_ops.adapters.cloudsql import waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.errors import Failed, Missing, OutcomeUnknown, TimedOut
from aiprod_ops.ports import Clock, Operations
from aiprod_ops.units import Seconds


@dataclass(frozen=True)
class Calls:
    """One project's changes. `longest` bounds the wait for each operation; it goes on afterwards all the same.

    Its name is told to `operations` as soon as the API has told it to us.
    """

    admin: CloudSqlAdmin
    clock: Clock
    longest: Seconds
    operations: Operations

    def done(self, begin: Callable[[], Operation], kind: str, target: str, report: Callable[[str], None]) -> Operation:
        """Begin something and wait until it has ended well. `kind` and `target` are Google's words for its operation.

        Raises what `begin` and `waiting.wait` raise, and OSError where its name cannot be kept.
        """
        since = self.clock.now()
        try:
            operation = begin()
        except (TimedOut, OutcomeUnknown):
            found = waiting.find(self.admin, kind, target, since)
            if found is None:
                raise
            operation = found
        self.operations.begun(f"{kind} on {target}", operation.name)
        report(f"{kind} on {target}: operation {operation.name}")
        return self._end(operation.name, report)

    def attach(self, operation: str, report: Callable[[str], None]) -> None:
        """Wait until an operation has ended, well or not, whoever began it. Raises what `waiting.wait` raises else."""
        with suppress(Failed, Missing):
            self._end(operation, report)

    def _end(self, operation: str, report: Callable[[str], None]) -> Operation:
        try:
            ended = waiting.wait(self.admin, operation, self.clock, timeout=self.longest, trouble=report)
        except (Failed, Missing):
            self.operations.ended(operation)
            raise
        self.operations.ended(operation)
        return ended

    def wait_for_others(self, target: str) -> None:
        """Whatever is under way on an instance comes to its end, well or not."""
        for operation in self.admin.operations(target):
            if not operation.is_done:
                self._ended(operation.name)

    def _ended(self, name: str) -> None:
        until = self.clock.monotonic() + self.longest
        while not self.admin.operation(name).is_done and self.clock.monotonic() < until:
            self.clock.sleep(Seconds(1))
