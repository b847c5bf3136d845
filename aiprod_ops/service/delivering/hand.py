"""What a worker has in hand: leased, and what came of it not written yet."""

import time
from collections.abc import Iterable, Sequence

from aiprod_ops.service.delivering.allowance import Allowance
from aiprod_ops.service.delivering.leases import Due
from aiprod_ops.units import Seconds

_MOST_FAILING = 10_000  #: endpoints that are remembered
_RESERVED = 1 / 4  #: of the slots
_NONE = Seconds(0)


class Hand:
    """One worker's. An endpoint whose last answer was none, or a bad one, gets one delivery at a time until it takes
    one: a hundred that hang do not fill all slots. Nobody knows so before the first of them times out: therefore the
    last quarter of the slots is for endpoints that have nothing in hand, one delivery each. An endpoint that asks for a
    pause (`Retry-After`) gets nothing until then."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._reserved = int(slots * _RESERVED)
        self._since: dict[str, float] = {}
        self._endpoints: dict[str, str] = {}  #: of what is in hand
        self._lost: set[str] = set()
        self._failing: set[str] = set()
        self._paused: dict[str, float] = {}  #: until when, by the monotonic clock
        self.returning: list[str] = []  #: for others, as soon as the database is told

    def __len__(self) -> int:
        return len(self._since)

    @property
    def room(self) -> int:
        return self._slots - len(self._since)

    @property
    def allowance(self) -> Allowance:
        now = time.monotonic()
        self._paused = {each: until for each, until in self._paused.items() if until > now}
        paused = dict.fromkeys(self._paused, 0)
        if (free := self.room - self._reserved) > 0:
            return Allowance(free, self._slots, dict.fromkeys(self._failing, 1) | paused)
        return Allowance(self.room, 1, dict.fromkeys(self._endpoints.values(), 0) | paused)

    def take(self, dues: Iterable[Due]) -> list[Due]:
        """Those that are new: what was answered while the database was away may have been leased again."""
        now, new = time.monotonic(), []
        for due in dues:
            if due.id not in self._since:
                self._since[due.id] = now
                self._endpoints[due.id] = due.endpoint_id
                new.append(due)
        return new

    def holds(self, due: Due) -> bool:
        """Whether it is still this worker's."""
        return due.id in self._since and due.id not in self._lost

    def may_send(self, due: Due) -> bool:
        """Whether it is this worker's, and its endpoint wants something."""
        return self.holds(due) and self._paused.get(due.endpoint_id, 0.0) <= time.monotonic()

    def long_held(self, age: Seconds) -> list[str]:
        """Whose lease is to be renewed."""
        before = time.monotonic() - age
        return [each for each, since in self._since.items() if since < before and each not in self._lost]

    def keep(self, asked: Sequence[str], renewed: set[str]) -> int:
        """What was asked for and not renewed is another's. Answers how many."""
        lost = {each for each in asked if each in self._since and each not in renewed}
        self._lost |= lost
        return len(lost)

    def answered(self, endpoint_id: str, is_delivered: bool, pause: Seconds = _NONE) -> None:
        """`pause` is what the endpoint asked for."""
        if is_delivered:
            self._failing.discard(endpoint_id)
        elif len(self._failing) < _MOST_FAILING:
            self._failing.add(endpoint_id)
        if pause > 0 and len(self._paused) < _MOST_FAILING:
            self._paused[endpoint_id] = time.monotonic() + pause

    def release(self, ids: Iterable[str]) -> None:
        for each in ids:
            self._since.pop(each, None)
            self._endpoints.pop(each, None)
            self._lost.discard(each)

    def give_back(self, dues: Iterable[Due]) -> None:
        ids = [due.id for due in dues if self.holds(due)]
        self.returning += ids
        self.release(ids)
