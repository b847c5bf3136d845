"""A lab whose primary is moved while others write: what that cost is measured, and the roles are put back."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from aiprod_ops.adapters.local.cluster import LocalCluster
from aiprod_ops.adapters.local.members import Member
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.engine.runbook import Measured
from aiprod_ops.errors import Failed
from aiprod_ops.lab import plots, postgres
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.writers import TABLE, Writes, writing
from aiprod_ops.units import Seconds

_PATIENCE = Seconds(30)
_BESIDE = 1.0  #: seconds that others write before and after, so that one sees what is usual


def cluster(fleet: Fleet) -> LocalCluster:
    """The lab's servers, as they are moved."""
    upstream = f"user=aiprod_backup passfile='{fleet.folder / 'replication.pgpass'}'"
    servers = zip(("primary", *postgres.REPLICAS), (fleet.primary, *fleet.replicas), strict=True)
    return LocalCluster(
        {name: Member(name, server, fleet.dsn("postgres", server), upstream) for name, server in servers},
        lambda dsn: PostgresDatabase(dsn, writes=True, application_name="aiprod-lab"),
    )


def primary(moved: LocalCluster) -> str:
    """Who takes writes. Raises Failed where that is none, or more than one."""
    found = [name for name in moved.names if moved.is_standby(name) is False]
    if len(found) != 1:
        raise Failed(f"of {', '.join(moved.names)} these take writes: {', '.join(found) or 'none'}")
    return found[0]


def put_back(fleet: Fleet) -> None:
    """Let the first server of the lab be its primary again, and all others follow it."""
    moved = cluster(fleet)
    first, now = moved.names[0], primary(moved)
    for name in moved.names:
        if name != now:
            moved.rejoin(name, now, _PATIENCE, lambda _: None)
    if now != first:
        moved.switch_over(now, first, _PATIENCE, lambda _: None)
        moved.rejoin(now, first, _PATIENCE, lambda _: None)


@contextmanager
def under_writes(fleet: Fleet) -> Iterator[Callable[[], Measured]]:
    """Writers at work, until what it gives is called: that looks for each write that was acknowledged."""
    moved = cluster(fleet)
    ask(fleet, moved, f"CREATE TABLE IF NOT EXISTS {TABLE} (n bigserial PRIMARY KEY, writer int)")
    try:
        with tempfile.TemporaryDirectory(prefix="aiprod-writers-") as folder, writing(fleet, Path(folder)) as writers:

            def measured() -> Measured:
                time.sleep(_BESIDE)
                writes = writers.stop()
                there = {int(str(row["n"])) for row in ask(fleet, moved, f"SELECT n FROM {TABLE}")}  # noqa: S608 - our own name
                return measure(writes, there)

            time.sleep(_BESIDE)
            yield measured
    finally:
        put_back(fleet)
        ask(fleet, moved, f"DROP TABLE {TABLE}")


def ask(fleet: Fleet, moved: LocalCluster, text: str) -> list[dict[str, object]]:
    """Send a statement to whoever takes writes."""
    server = dict(zip(moved.names, (fleet.primary, *fleet.replicas), strict=True))[primary(moved)]
    session = PostgresDatabase(fleet.dsn("postgres", server), writes=True, application_name="aiprod-lab")
    try:
        if text.startswith("SELECT"):
            return [dict(row) for row in session.query(text)]
        session.execute(text)
        return []
    finally:
        session.close()


def measure(writes: Writes, there: set[int]) -> Measured:
    """The figures of a move: how long writes stopped, and what of the acknowledged ones is not there any more."""
    lost = writes.lost(there)
    moments = writes.moments
    # The stop: the longest time in which nobody was acknowledged anything.
    begins = max(pairwise(moments), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))[0]
    figures = {
        "write_stop_ms": round(writes.longest_stop * 1000),
        "write_stop_median_ms": round(writes.median_stop * 1000),
        "lost_writes": len(lost),
        "acknowledged_writes": len(moments),
        "rpo_s": round(begins - lost[0][0], 3) if lost else 0.0,
    }
    return Measured(figures, {"writes.svg": plots.writes(moments, begins)})
