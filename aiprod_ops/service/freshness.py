"""How stale a read from a replica would be, and until when it may be read from. Pure: no clock, no session.

Staleness is the time since the moment whose data the replica surely has. It grows by a second in a second at the most,
so that a measurement tells until when it is under a limit, whatever happens to the replica meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aiprod_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a primary's WAL was flushed at a time of its own clock (seconds since 1970): bytes since 0/0."""

    flushed: int
    clock: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """How far a replica has replayed, and when the newest transaction that it replayed was committed, by the primary's
    clock; None where it replayed none since it was started."""

    position: int
    committed: float | None


def staleness(primary: Progress, replica: Replayed, before: Iterable[Progress] = ()) -> Seconds | None:
    """Of a replica that was asked after its primary; None where nothing bounds it.

    A replica that has all that was flushed is not stale, however long ago the last transaction was: an idle primary is
    no lag. Of what the primary said `before` the newest that the replica has bounds it as well: a load that commits
    seldom is no lag either.

    >>> staleness(Progress(100, 50.0), Replayed(100, 10.0))
    0.0
    >>> staleness(Progress(100, 50.0), Replayed(90, 48.5))
    1.5
    >>> staleness(Progress(100, 50.0), Replayed(90, 10.0), [Progress(90, 49.0)])
    1.0
    """
    if replica.position >= primary.flushed:
        return Seconds(0.0)
    known = [each.clock for each in before if replica.position >= each.flushed]
    known += [] if replica.committed is None else [replica.committed]
    return Seconds(max(0.0, primary.clock - max(known))) if known else None


def fresh_until(asked: float, stale: Seconds | None, limit: Seconds) -> float:
    """Until when a replica may be read from, on the clock that tells when its primary was asked.

    >>> fresh_until(100.0, Seconds(1.5), Seconds(5))
    103.5
    """
    return asked - 1.0 if stale is None else asked + limit - stale


def position(token: str) -> int | None:
    """Bytes since 0/0 of an LSN as PostgreSQL writes it; None where it is none.

    >>> position("1/A0"), position("0/g"), position("")
    (4294967456, None, None)
    """
    high, _, low = token.partition("/")
    try:
        found = (_hex(high) << 32) + _hex(low)
    except ValueError:
        return None
    return found


def _hex(text: str) -> int:
    if not 1 <= len(text) <= 8 or not set(text) <= set("0123456789abcdefABCDEF"):
        raise ValueError(text)
    return int(text, 16)
