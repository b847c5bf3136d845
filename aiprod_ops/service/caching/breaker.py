"""Who asks a server that has failed pays once; then nobody asks until a probe in the background was answered.

The circuit breaker of Nygard, Release It! (2nd edition, chapter 5), with one change: half open, no request is let
through to try. A probe of our own does that, so that a server that hangs costs a request nothing.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiprod_ops.service.caching.patience import Patience
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delays:
    """The longest that one request waits for the server; the pause before the first probe, doubled after each that
    fails (and each time that the server fails again before it was `settled`), to the longest pause."""

    patience: Seconds = Seconds(0.05)
    first: Seconds = Seconds(0.05)
    longest: Seconds = Seconds(1.0)
    settled: Seconds = Seconds(5.0)

    def __post_init__(self) -> None:
        if not (self.patience > 0 and 0 < self.first <= self.longest and self.settled > 0):
            raise ValueError(f"expected patience, settled > 0 and 0 < first <= longest, in seconds: {self}")


class Breaker:
    """Of one server, in one event loop. `probe` asks the server in a way that proves that it serves; it is closed again
    when the probe returns. `failures` are the errors that say that it does not. `changed` is told each time whether it
    is closed."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        failures: tuple[type[Exception], ...],
        delays: Delays = Delays(),
        changed: Callable[[bool], None] | None = None,
    ) -> None:
        self.delays = delays
        self.why = ""  #: it is open; '' while it is closed
        self._probe, self._changed = probe, changed
        self._failures: tuple[type[Exception], ...] = (TimeoutError, *failures)
        self._pause, self._closed_at = delays.first, float("-inf")
        self._recovery: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the server is asked."""
        return not self.why

    def trip(self, why: str) -> None:
        """Open it: the server has failed. Does nothing where it is open."""
        if not self.is_closed:
            return
        loop = asyncio.get_running_loop()
        is_settled = loop.time() - self._closed_at > self.delays.settled
        self._pause = self.delays.first if is_settled else self._longer()
        self.why = why or "it failed"
        self._recovery = loop.create_task(self._recover(), name="aiprod-ops breaker")
        log.warning("Redis is left alone until it serves again: %s", self.why)
        self._tell()

    async def _recover(self) -> None:
        while True:
            # Not all processes at the same moment: a server that comes back is not met by all of them at once.
            await asyncio.sleep(self._pause * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                async with Patience(self.delays.patience):
                    await self._probe()
            except self._failures as error:
                self.why = told(error)
                self._pause = self._longer()
            else:
                break
        self.why, self._recovery = "", None
        self._closed_at = asyncio.get_running_loop().time()
        log.warning("Redis is asked again")
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self.is_closed)

    def _longer(self) -> Seconds:
        return Seconds(min(2 * self._pause, self.delays.longest))

    async def close(self) -> None:
        """End the probing."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})


def told(error: Exception) -> str:
    """An error in one line; most time-outs have no text.

    >>> told(TimeoutError()), told(OSError("no route"))
    ('TimeoutError', 'OSError: no route')
    """
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
