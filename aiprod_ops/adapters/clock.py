"""The machine's own clock."""

import time
from datetime import UTC, datetime

from aiprod_ops.units import Seconds


class SystemClock:
    """Implements `ports.Clock`."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, duration: Seconds) -> None:
        time.sleep(duration)
