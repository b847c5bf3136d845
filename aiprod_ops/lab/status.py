"""What a fleet is doing: servers, lag, rows, and the workload's figures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.errors import Failed
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import postgres
from aiprod_ops.lab.cloudsql import background as emulator
from aiprod_ops.lab.data import TABLES

LAG = """
    SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint,
           coalesce(extract(epoch FROM replay_lag), 0)::float
    FROM pg_stat_replication
"""
ROWS = "SELECT relname, greatest(reltuples, 0)::bigint FROM pg_class WHERE relname = ANY(%(tables)s) AND relkind = 'r'"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server. `pid` is None when it is down; lag is None for a primary and for a replica that does not stream."""

    name: str
    role: str
    port: int
    dsn: str
    pid: int | None
    lag_bytes: int | None = None
    lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole fleet; `rows` are the planner's estimates by table, empty when the primary is down."""

    folder: str
    config: str
    servers: tuple[ServerStatus, ...]
    rows: dict[str, int]
    workload: dict[str, Any] | None
    phases: dict[str, float]
    cloudsql_url: str | None = None  #: of the emulator of Cloud SQL's API; None where none was started
    cloudsql_pid: int | None = None  #: None when it does not answer

    @property
    def is_up(self) -> bool:
        return all(server.pid is not None for server in self.servers)


def status(folder: Path) -> Status:
    """Look at the fleet of a folder. Raises Refused where there is none."""
    fleet = fleets.load(folder)
    servers_by_name = dict(zip(("primary", *postgres.REPLICAS), (fleet.primary, *fleet.replicas), strict=True))
    # A switchover exchanges roles, and names stay: each server is asked.
    primaries = [name for name, server in servers_by_name.items() if _is_primary(fleet, server)]
    lags: dict[str, tuple[int | None, float | None]] = {}
    rows: dict[str, int] = {}
    try:
        for name in primaries:
            probe = fleet.dsn("aiprod_probe", servers_by_name[name])
            lags |= {name: (size, seconds) for name, size, seconds in postgres.rows(probe, LAG)}
            rows |= dict(postgres.rows(probe, ROWS, {"tables": list(TABLES)}))
    except Failed:
        pass  # it went down or froze just now: the servers below say so
    roles = dict.fromkeys(primaries or ["primary"], "primary")
    servers = [
        *(
            _server(fleet, name, roles.get(name, "replica"), server, lags.get(name, (None, None)))
            for name, server in servers_by_name.items()
        ),
        ServerStatus(
            "redis", "redis", fleet.ports[3], fleet.redis.url, fleet.redis.pid if fleet.redis.is_running() else None
        ),
    ]
    found = emulator.find(fleet.folder)
    return Status(
        str(fleet.folder),
        str(fleet.config),
        tuple(servers),
        rows,
        _workload(fleet.folder),
        fleet.phases,
        found.url if found else None,
        found.pid if found else None,
    )


def _server(
    fleet: fleets.Fleet, name: str, role: str, server: PostgresServer, lag: tuple[int | None, float | None]
) -> ServerStatus:
    return ServerStatus(name, role, server.port, fleet.dsn("aiprod_probe", server), _pid(server), *lag)


def _is_primary(fleet: fleets.Fleet, server: PostgresServer) -> bool:
    """Whether a server answers and is not in recovery; a frozen one does not answer."""
    try:
        probe = f"{fleet.dsn('aiprod_probe', server)}&connect_timeout=2"
        return postgres.rows(probe, "SELECT pg_is_in_recovery()") == [(False,)]
    except Failed:
        return False


def _pid(server: PostgresServer) -> int | None:
    return server.pid if server.is_running() else None


def _workload(folder: Path) -> dict[str, Any] | None:
    try:
        figures: dict[str, Any] = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return figures
