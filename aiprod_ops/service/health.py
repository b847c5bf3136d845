"""Whether the service works, and what of it does not: `/health/live`, `/health/ready`, `/health/detailed`.

Every part is looked at beside the others, each with a deadline, and what was found counts for a second: however many
probes ask, the database is asked once. A part that hangs is not asked again before it has answered. Nothing here waits
for the pool that serves requests: a service whose pool is used up can still say so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fastapi import APIRouter, Response

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.health import Health, Part, unknown
from aiprod_ops.units import Seconds

PREFIX, PATHS = "/health", ("live", "ready", "detailed")
Look = Callable[[], Awaitable[Iterable[Finding]]]


@dataclass(frozen=True, slots=True)
class Check:
    """How one part is looked at, and how long that may take. Whatever `look` raises makes the part UNKNOWN."""

    name: str
    look: Look
    deadline: Seconds = Seconds(0.5)
    is_vital: bool = False


@dataclass(slots=True)
class HealthReport:
    """Looks at all parts at once, at most once in `keep`."""

    checks: Sequence[Check]
    vital: "HealthReport" = field(
        init=False
    )  #: the same of the vital parts alone: those are all that readiness waits for
    keep: Seconds = Seconds(1)
    clock: Callable[[], float] = time.monotonic
    _last: tuple[float, Health] | None = None
    _looking: asyncio.Task[Health] | None = None
    _hanging: dict[str, asyncio.Task[Part]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vital = tuple(each for each in self.checks if each.is_vital)
        self.vital = self if len(vital) == len(self.checks) else HealthReport(vital, self.keep, self.clock)

    async def now(self) -> Health:
        """What is known, or a new look that all who ask meanwhile share."""
        if self._last is not None and self.clock() - self._last[0] < self.keep:
            return self._last[1]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Health:
        parts = await asyncio.gather(*(self._part(each) for each in self.checks))
        health = Health(tuple(parts), datetime.now(UTC))
        self._last = (self.clock(), health)
        return health

    async def _part(self, check: Check) -> Part:
        began = self.clock()
        task = self._hanging.pop(check.name, None)
        if task is None:
            task = asyncio.create_task(self._found(check))
        done, _ = await asyncio.wait([task], timeout=check.deadline)
        took = Seconds(self.clock() - began)
        if not done:  # cancelling may hang as well; it ends when it ends, and until then nobody else is sent
            self._hanging[check.name] = task
            return unknown(check.name, f"no answer within {check.deadline:g} s", took, is_vital=check.is_vital)
        return task.result()

    async def _found(self, check: Check) -> Part:
        began = self.clock()
        try:
            findings = tuple(await check.look())
        except Exception as error:  # noqa: BLE001 whatever it is, the part is not known to work; its text may hold a secret
            return unknown(check.name, type(error).__name__, Seconds(self.clock() - began), is_vital=check.is_vital)
        return Part(check.name, findings, Seconds(self.clock() - began), check.is_vital)


def router(report: HealthReport) -> APIRouter:
    """The three paths. They need no key: whoever asks may be a load balancer, and the database that knows the keys may
    be what is down. What they tell names no host and no user; keep them from the outside all the same."""
    made = APIRouter(prefix=PREFIX, tags=["health"], include_in_schema=False)

    @made.get("/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @made.get("/ready", summary="Whether requests should be sent here")
    async def ready(response: Response) -> dict[str, str]:
        health = await report.vital.now()
        response.status_code = 200 if health.is_ready else 503
        response.headers["Cache-Control"] = "no-store"
        return {"status": "ready" if health.is_ready else "unhealthy"}

    @made.get("/detailed", summary="Every part: database, replicas, cache, queue, webhooks, disk, backups")
    async def detailed(response: Response) -> dict[str, object]:
        health = await report.now()
        response.status_code = 200 if health.is_ready else 503
        response.headers["Cache-Control"] = "no-store"
        return health.as_json()

    return made
