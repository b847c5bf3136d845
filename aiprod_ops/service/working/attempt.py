"""One attempt at one job: the renderer under a time limit, and what comes of it as a value."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import RowMapping

from aiprod_ops.service.working.claims import Held
from aiprod_ops.service.working.rendering import Order, Rendered, Renderer, RenderingFailed
from aiprod_ops.units import Seconds

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """A job that is in work here. `row` is what was claimed; `told` is the progress that events have
    told; one that is ending has been rendered, and is not disturbed any more."""

    row: RowMapping
    task: "asyncio.Task[None] | None" = None
    progress: int = 0
    told: int = 0
    is_ending: bool = False

    @property
    def job_id(self) -> str:
        return str(self.row["id"])

    @property
    def held(self) -> Held:
        return Held(self.job_id, self.row["attempts"], self.progress)

    def report(self, percent: int) -> None:
        """Progress never goes back, and 100 is for a job that is completed."""
        self.progress = max(self.progress, min(99, int(percent)))

    def order(self) -> Order:
        """What is to be rendered."""
        row = self.row
        return Order(
            self.job_id, row["attempts"], row["preset"], row["prompt"], row["language"], row["duration_seconds"],
            row["aspect_ratio"], tuple(row["reference_urls"]),
        )  # fmt: skip


async def rendered(renderer: Renderer, order: Order, report: Callable[[int], None], longest: Seconds) -> Rendered:
    """What came of an attempt; raises RenderingFailed, whatever else the renderer raised."""
    try:
        async with asyncio.timeout(longest):
            return await renderer.render(order, report)
    except RenderingFailed:
        raise
    except TimeoutError as error:
        message = f"attempt {order.attempt} took more than {longest:g} s"
        raise RenderingFailed("PROVIDER_TIMEOUT", message) from error
    except Exception as error:  # a stranger's exception becomes a job's failure
        log.error("job %s: the renderer raised %s", order.job_id, type(error).__name__, exc_info=error)
        raise RenderingFailed("PROCESSING_ERROR") from error
