"""A lab that is there already: found by its configuration, and reached as drills reach it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Self

from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.config import Settings
from aiprod_ops.engine.runbook import Measured
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import switching, workload
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.ports import Database


class KnownLab(Fleet):
    """A fleet, with what a runbook's drill hook may do to it: implements `engine.runbook.Lab`."""

    __slots__ = ()

    @classmethod
    def of(cls, fleet: Fleet) -> Self:
        """The same fleet, as a lab for drills."""
        return cls(**{field.name: getattr(fleet, field.name) for field in fields(fleet)})

    @contextmanager
    def connect(self, role: str) -> Iterator[Database]:
        """A session with the primary that may write; it ends with the context, or before."""
        session = PostgresDatabase(self.following(role), writes=True, application_name="aiprod-api", identity=role)
        try:
            yield session
        finally:
            session.close()

    def work(self, rounds: int) -> None:
        """Send each of the application's statements so many times, in the foreground."""
        workload.run(self.following("aiprod_app"), self.scale, rounds)

    def under_writes(self) -> AbstractContextManager[Callable[[], Measured]]:
        """Writers, what a move costs them, and the roles put back."""
        return switching.under_writes(self)

    def lose_primary(self) -> None:
        """Kill whoever takes writes, with all its processes."""
        moved = switching.cluster(self)
        moved.kill(switching.primary(moved))

    def backup(self, label: str) -> str:
        """Take a backup of the primary into the lab's own folder."""
        return self.repository.take(label)


def of_config(settings: Settings) -> KnownLab:
    """The lab that a configuration belongs to. Raises Refused where it is not a lab's."""
    return KnownLab.of(fleets.load(settings.state.parent))
