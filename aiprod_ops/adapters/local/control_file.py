"""What a server's control file says of it, whether it runs or not. Source: PostgreSQL manual, pg_controldata."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.domain.replication import NOT_LOWER

#: How pg_controldata names what a standby may not have lower.
_NEEDS = {name: name for name in NOT_LOWER} | {
    "max_prepared_transactions": "max_prepared_xacts", "max_locks_per_transaction": "max_locks_per_xact",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ControlFile:
    """`state` is PostgreSQL's word; `checkpoint` is where the last one is, `redo` where a recovery begins; `needs` is
    what a standby may not have lower, by the setting's name: the primary's, as their WAL told."""

    state: str
    checkpoint: str
    redo: str
    timeline: int
    needs: Mapping[str, int]

    @property
    def is_primary(self) -> bool:
        """Whether it ended, or goes on, as a primary."""
        return self.state in ("in production", "shut down", "shutting down", "in crash recovery")

    @property
    def is_shut_down(self) -> bool:
        """Whether it ended as a server should, as a primary or as a standby."""
        return self.state in ("shut down", "shut down in recovery")


def read(server: PostgresServer) -> ControlFile:
    """Raises Failed where it is damaged or not there."""
    said = server.programs.run("pg_controldata", f"--pgdata={server.data}", cwd=server.data.parent)
    found = dict(re.findall(r"^(.+?):\s+(.*)$", said, re.MULTILINE))
    return ControlFile(
        state=found.get("Database cluster state", ""),
        checkpoint=found.get("Latest checkpoint location", ""),
        redo=found.get("Latest checkpoint's REDO location", ""),
        timeline=int(found.get("Latest checkpoint's TimeLineID", 0)),
        needs={name: int(found[f"{words} setting"]) for name, words in _NEEDS.items() if f"{words} setting" in found},
    )
