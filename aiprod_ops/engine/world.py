"""What a run needs from outside: the store, the identities, the wish to stop. The CLI builds it and hands it inward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from aiprod_ops.engine.journal import Journal, OperationLog
from aiprod_ops.engine.runbook import Context
from aiprod_ops.ports import Database, Delivery, Store


@dataclass
class Stop:
    """The wish to stop, set by a signal handler. The run finishes or undoes what it is doing, then ends.

    `is_acting` is set by the run when it holds its lease: until then nothing has to be finished.
    """

    signal: int = 0
    is_acting: bool = False


@dataclass(frozen=True)
class World:
    """`context` has the probe identity. `open_actor` is not called before the gate; `open_probe` gives the watch a
    session of its own. `operations` is what the platform tells its operations to. `delivery` is where a verified run's
    files are wanted, if anywhere."""

    context: Context
    store: Store
    open_actor: Callable[[str], Database]
    open_probe: Callable[[], Database]
    by: str
    version: str
    why: str = ""
    trigger: str = "command"
    stop: Stop = field(default_factory=Stop)
    delivery: Delivery | None = None
    operations: OperationLog = field(default_factory=OperationLog)

    def acting(self, actor: Database, run: str = "") -> Context:
        """The context of actions: the same world with the actor's session."""
        return replace(self.context, db=actor, run=run)

    @contextmanager
    def journalled(self, journal: Journal) -> Iterator[None]:
        """While this lasts the platform's operations are written to a journal. What a killed process began there comes
        to its end first. Raises what `Platform.attach` raises."""
        with self.operations.kept_in(journal):
            for operation in journal.open_operations:
                self.context.report(f"waiting for the operation {operation}, which was begun before")
                self.context.platform.attach(operation, self.context.report)
            yield
