"""One moment of a server, and whether a copy is of just that one."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from aiprod_ops.ports import Database


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a server: what its snapshot sees (as pg_current_snapshot prints it), which of the last LATEST
    transactions it sees committed, and its LSN, '' where it is not told (by a standby).
    """

    seen: str
    committed: tuple[int, ...]
    lsn: str

    @property
    def unseen(self) -> tuple[int, list[int]]:
        """The first transaction that had not begun, and those that had not ended."""
        _, first, running = self.seen.split(":")
        return int(first), [int(each) for each in running.split(",") if each]


LATEST = 10_000
_MOMENT = """
select pg_current_snapshot()::text as seen,
       array(select x from generate_series(
                 greatest(3, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - %(latest)s),
                 pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) as x
             where pg_visible_in_snapshot(x::text::xid8, pg_current_snapshot())
               and pg_xact_status(x::text::xid8) = 'committed') as committed,
       case when pg_is_in_recovery() then '' else pg_current_wal_flush_lsn()::text end as lsn /* aiprod-ops: a moment */
"""


@contextmanager
def one_moment(database: Database, tries: int = 50) -> Iterator[tuple[Moment, Database]]:
    """A session that sees one moment. One in which nobody was writing is best: its LSN is exactly what it sees; of
    `tries` none may be. It is one alone: a server that others use is read while the copy is made and looked at, which
    takes longer."""
    with closing(database.another()) as session:
        moment, held = _quiet_moment(session, tries)
        with held:
            yield moment, session


def _quiet_moment(session: Database, tries: int) -> tuple[Moment, ExitStack]:
    for attempt in range(tries):
        held = ExitStack()
        held.enter_context(session.moment())
        row = session.query(_MOMENT, {"latest": LATEST})[0]
        moment = Moment(row["seen"], tuple(row["committed"]), row["lsn"])
        if not moment.unseen[1] or attempt == tries - 1:
            break
        held.close()
    return moment, held


_COMMITTED = """
with ends as (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as first)
select (select count(*) from ends, unnest(%(committed)s::bigint[]) x
        where x >= ends.first or pg_xact_status(x::text::xid8) is distinct from 'committed') as missing,
       (select count(*) from ends, (select unnest(%(running)s::bigint[]) union
                                    select generate_series(%(first)s::bigint, ends.first - 1) from ends) as t(x)
        where x < ends.first and pg_xact_status(x::text::xid8) = 'committed') as more
/* aiprod-ops: whether this is the same moment */
"""


def is_same(copy: Database, moment: Moment) -> bool:
    """Whether a copy has just what a moment's snapshot sees: every transaction that it sees, and none that it does not.

    A commit is written a little before others see it, so the LSN alone does not tell. WAL has an order: a copy that has
    the last transactions has those before them.
    """
    first, running = moment.unseen
    row = copy.query(_COMMITTED, {"running": running, "first": first, "committed": list(moment.committed)})[0]
    return not row["missing"] and not row["more"]
