"""Waiting for operations of the Admin API, and finding one whose name was never told.

An operation goes on whether anybody waits or not. Nothing here cancels one: a deadline ends the waiting, and says so.
"""

from collections.abc import Callable, Container, Iterable
from datetime import datetime, timedelta

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.values import Operation
from aiprod_ops.errors import Failed, Held, OutcomeUnknown, PermissionMissing, Throttled, TimedOut, Unreachable
from aiprod_ops.ports import Clock
from aiprod_ops.units import Seconds

LONGEST_PAUSE = Seconds(15)
SKEW = Seconds(5)  #: how far our clock and Google's may be apart


class OperationFailed(Failed):
    """An operation ended, and Google says that it failed."""


def wait(
    admin: CloudSqlAdmin,
    name: str,
    clock: Clock,
    *,
    timeout: Seconds = Seconds(3600),
    pause: Seconds = Seconds(1),
    report: Callable[[Operation], None] = lambda _: None,
    trouble: Callable[[str], None] = lambda _: None,
) -> Operation:
    """Poll an operation until it is done; any process may, by its name alone. Answers it when it went well.

    Pauses grow by half, up to 15 s. What makes a poll fail for a while (throttled, no contact) is told to `trouble` and
    waited out.
    Raises OperationFailed with Google's words when the operation failed, TimedOut at the deadline (it goes on),
    OutcomeUnknown when the credentials ended meanwhile (it goes on, too), Missing when there is no such operation.
    """
    deadline = clock.monotonic() + timeout
    last = "not seen yet"
    while True:
        try:
            operation = admin.operation(name)
        except (Throttled, Unreachable, TimedOut) as error:
            last = error.message
            trouble(f"waiting for {name}, which goes on without us: {error.message}")
        except PermissionMissing as error:
            message = f"{error.message}; the operation {name} goes on without us"
            raise OutcomeUnknown(message, hint=f"{error.hint}; then: {admin.look(name)}") from error
        else:
            report(operation)
            if operation.is_done:
                return _succeeded(admin, operation)
            last = f"{operation.type} on {operation.target} is {operation.status}"
        left = deadline - clock.monotonic()
        if left <= 0:
            text = f"the operation {name} is not done after {timeout:g} s ({last}); it goes on, nothing was cancelled"
            raise TimedOut(text, hint=f"look at it with: {admin.look(name)}")
        clock.sleep(Seconds(min(pause, left)))
        pause = Seconds(min(pause * 1.5, LONGEST_PAUSE))


def _succeeded(admin: CloudSqlAdmin, operation: Operation) -> Operation:
    if operation.problems:
        said = "; ".join(f"{problem.code}: {problem.message}" for problem in operation.problems)
        what = f"{operation.type} on {operation.target} (operation {operation.name})"
        raise OperationFailed(f"{what} failed: {said}", hint=admin.look(operation.name))
    return operation


def settled(admin: CloudSqlAdmin, instance: str, kinds: Container[str], clock: Clock, longest: Seconds) -> None:
    """Wait until no operation of these kinds is under way on an instance: before that nobody can tell what it is.
    Raises Held where one goes on for longer."""
    until = clock.monotonic() + longest
    while going := [each for each in admin.operations(instance) if not each.is_done and each.type in kinds]:
        if clock.monotonic() > until:
            raise Held(
                f"{going[0].type} is under way on {instance}: operation {going[0].name}",
                hint=f"wait for its end: {admin.look(going[0].name)}",
            )
        clock.sleep(Seconds(1))


def find(
    admin: CloudSqlAdmin, kind: str, target: str, since: datetime, until: datetime | None = None
) -> Operation | None:
    """The operation that a call began whose answer was lost; None when none was begun (yet).

    `target` is what Google calls so: of CREATE_REPLICA the primary, of CLONE the new instance. Raises OutcomeUnknown
    when several could be it.
    """
    found = matching(admin.operations(target), kind, since, until)
    if len(found) > 1:
        names = ", ".join(operation.name for operation in found)
        raise OutcomeUnknown(
            f"{len(found)} operations {kind} on {target} since {since:%H:%M:%S} could be ours: {names}"
        )
    return found[0] if found else None


def matching(
    operations: Iterable[Operation], kind: str, since: datetime, until: datetime | None = None
) -> list[Operation]:
    """Operations of a kind that were inserted within a time, give or take the clocks' difference; oldest first."""
    skew = timedelta(seconds=SKEW)
    found = [
        each
        for each in operations
        if each.type == kind
        and each.inserted is not None
        and since - skew <= each.inserted
        and (until is None or each.inserted <= until + skew)
    ]
    return sorted(found, key=lambda each: (each.inserted, each.name))
