"""Primary and replicas: attach, promote, exchange roles. All of it happens on real servers.

A standby is promoted only when it has all that the primary wrote (switchover), or when somebody said that what it lacks
may be lost (failover of a replica). Siblings follow the candidate before it is promoted: else one may diverge for good.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiprod_ops.errors import Failed
from aiprod_ops.lab.cloudsql.ledger import Instance
from aiprod_ops.lab.cloudsql.servers import Servers
from aiprod_ops.units import Seconds

STREAMS = "SELECT 1 FROM pg_stat_replication WHERE application_name = %(slot)s AND state = 'streaming'"
REPLAYED = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), %(lsn)s::pg_lsn) > 0"
RECEIVED = """
    SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn)::bigint
"""
PATIENCE = Seconds(30)


@dataclass(frozen=True, slots=True)
class Replication:
    """What is done to several servers at once."""

    servers: Servers

    def create(self, replica: Instance, primary: Instance) -> None:
        """Make a replica from a base backup, and wait until it streams."""
        self.servers.receive(replica, primary)
        self.servers.follow(replica, primary)
        self._await_streaming(replica, primary, PATIENCE)

    def detach(self, replica: Instance, primary: Instance) -> None:
        """Forget a replica that is gone or on its own now."""
        if self.servers.of(primary).is_running():
            self.servers.drop_slots(primary, replica.slot)

    def promote(self, replica: Instance) -> None:
        """Make a replica a primary that archives, and wait until it is one."""
        self.servers.make_room(replica)
        answer = self.servers.ask(replica, "SELECT pg_promote(true, 60)")
        if answer != [(True,)]:
            raise Failed(f"{replica.name} was not promoted within 60 s")
        self.servers.configure(replica)
        self.servers.reload(replica)

    def switch(self, primary: Instance, replica: Instance, siblings: Sequence[Instance], timeout: Seconds) -> None:
        """Exchange the roles. When the replica does not catch up, the primary serves again and Failed is raised."""
        if not self.servers.ask(primary, STREAMS, {"slot": replica.slot}):
            raise Failed(f"{replica.name} does not stream from {primary.name}")
        self.servers.ask(primary, "CHECKPOINT")
        for sibling in siblings:
            self.servers.follow(sibling, replica)
        try:
            self.servers.of(primary).stop("fast", timeout)
            self._await_all(primary, replica, timeout)
            self.promote(replica)
        except Failed:
            # A promotion takes the signal file away before it lets anybody write: as long as it is there, the primary
            # may serve again.
            if self.servers.follows(replica):
                self._serve_again(primary, siblings)
            raise

    def _serve_again(self, primary: Instance, siblings: Sequence[Instance]) -> None:
        server = self.servers.of(primary)
        server.stop("immediate")  # it may still be waiting for the replica
        server.start(Seconds(600))
        for sibling in siblings:
            self.servers.follow(sibling, primary)

    def take_over(self, primary: Instance, replica: Instance, siblings: Sequence[Instance]) -> list[Instance]:
        """Promote a replica in its primary's place, which is fenced first: what the replica lacks is lost. Answers the
        siblings that have some of that, and cannot follow as they are."""
        self.servers.of(primary).stop("immediate")
        has = self._has(replica)
        ahead = [sibling for sibling in siblings if self._has(sibling) > has]
        for sibling in siblings:
            if sibling not in ahead:
                self.servers.follow(sibling, replica)
        self.promote(replica)
        return ahead

    def _has(self, replica: Instance) -> int:
        return int(self.servers.ask(replica, RECEIVED)[0][0])

    def rejoin(self, old: Instance, new: Instance, *, is_clean: bool) -> None:
        """Make the stopped old primary a replica of the new one: as it is, else rewound, else copied again."""
        if is_clean and self._tried(old, new):
            return
        self.servers.of(old).stop("immediate")
        if self._rewound(old, new) and self._tried(old, new):
            return
        self.create(old, new)

    def _tried(self, old: Instance, new: Instance) -> bool:
        try:
            self.servers.follow(old, new)
            self._await_streaming(old, new, Seconds(10))
        except Failed:
            return False
        self.servers.drop_slots(old)
        return True

    def _rewound(self, old: Instance, new: Instance) -> bool:
        server = self.servers.of(new)
        arguments = [f"--target-pgdata={old.data}", f"--source-server={server.dsn('postgres', 'postgres')}"]
        env = {"PGPASSWORD": new.password} if new.password else {}
        try:
            self.servers.programs.run("pg_rewind", *arguments, "--no-sync", cwd=self.servers.folder, env=env)
        except Failed:
            return False
        self.servers.programs.hand_over(self.servers.of(old).data)
        return True

    def _await_streaming(self, replica: Instance, primary: Instance, timeout: Seconds) -> None:
        deadline = time.monotonic() + timeout
        while not self.servers.ask(primary, STREAMS, {"slot": replica.slot}):
            if time.monotonic() > deadline:
                raise Failed(f"{replica.name} does not stream from {primary.name} after {timeout:.0f} s")
            time.sleep(0.05)

    def _await_all(self, primary: Instance, replica: Instance, timeout: Seconds) -> None:
        """Wait until the replica has replayed the stopped primary's shutdown checkpoint: then it lacks nothing."""
        said = self.servers.programs.run("pg_controldata", f"--pgdata={primary.data}", cwd=self.servers.folder)
        found = re.search(r"^Latest checkpoint location:\s+(\S+)$", said, re.MULTILINE)
        if found is None or "shut down" not in said:
            raise Failed(f"{primary.name} was not shut down cleanly")
        deadline = time.monotonic() + timeout
        while self.servers.ask(replica, REPLAYED, {"lsn": found[1]}) != [(True,)]:
            if time.monotonic() > deadline:
                raise Failed(f"{replica.name} has not replayed {found[1]} after {timeout:.0f} s: nothing was changed")
            time.sleep(0.02)
