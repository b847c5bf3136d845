"""The actor's session of a run: opened when it is first needed, on the database that was planned for, held by one."""

from aiprod_ops.domain.plans import Identity
from aiprod_ops.engine.journal import Journal
from aiprod_ops.engine.runbook import Context
from aiprod_ops.engine.world import World
from aiprod_ops.errors import Held, Refused, Unreachable
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds

_ORPHAN = 60  # seconds to wait for the server to end the session of a process that was killed


class Actor:
    """One session at a time; closed, the next use opens another."""

    def __init__(self, world: World, planned: Identity, journal: Journal, *, without_primary: bool = False) -> None:
        self._world, self._planned, self._journal = world, planned, journal
        self._without_primary = without_primary
        self._session: Database | None = None
        self._is_lost = False

    @property
    def context(self) -> Context:
        """The context with the actor's session. Raises Refused in another database, Held where another machine or user
        acts on this instance."""
        if self._is_lost:
            return self._world.context
        if self._session is None:
            session = self._world.open_actor(self._journal.run)
            try:
                self._refuse_elsewhere(session)
                self._hold(session)
            except Unreachable:
                if not self._without_primary:
                    raise
                session.close()  # what is done goes by the platform; the lease of the store still holds
                self._is_lost = True  # to ask it before each step costs the time of a time-out each time
                return self._world.context
            self._session = session
        return self._world.acting(self._session, self._journal.opening.get("of") or self._journal.run)

    def close(self) -> None:
        """End the session, and what it holds."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _hold(self, session: Database) -> None:
        key = f"aiprod-ops:{self._planned.system_identifier}"
        # A fresh run is refused at once. One that goes on may find its own dead session still ending in the server.
        patience = _ORPHAN if any(r.kind in ("intended", "undoing") for r in self._journal.records) else 0
        for _ in range(patience):
            if session.hold(key):
                return
            self._world.context.report("waiting for another session of this tool to end in the server")
            self._world.context.clock.sleep(Seconds(1))
        if not session.hold(key):
            session.close()
            raise Held("another run, from another machine or user, holds this instance", hint="aiprod-ops runs list")

    def _refuse_elsewhere(self, session: Database) -> None:
        server, planned = session.server(), self._planned
        if (server.system_identifier, server.database) != (planned.system_identifier, planned.database):
            session.close()
            raise Refused(
                f"the actor is in the database {server.database} of system {server.system_identifier}, "
                f"the plan is for {planned.database} of system {planned.system_identifier}",
                hint="mend the actor's DSN",
            )
