"""What makes the video of a job: a port, found by a dotted name. Whoever renders knows nothing of rows and leases."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiprod_ops.domain.problems import BY_CODE, OF_JOBS
from aiprod_ops.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be rendered. `attempt` counts from 1; what was made by an attempt before may be used again."""

    job_id: str
    attempt: int
    preset: str
    prompt: str
    language: str
    duration_seconds: int
    aspect_ratio: str
    reference_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of it. The checksums are of the video's bytes: a bulk download tells them, and needs `crc32` before it
    has read anything (APPNOTE.TXT, 4.3.7)."""

    video_url: str
    thumbnail_url: str
    duration_seconds: int
    size_bytes: int
    quality_score: float
    crc32: int
    sha256: bytes


class RenderingFailed(Exception):
    """An attempt that came to nothing. `code` is one of the catalogue: it tells whether another may succeed."""

    def __init__(self, code: str, message: str = "") -> None:
        if code not in {kind.code for kind in OF_JOBS}:
            raise ValueError(f"{code!r} is no code of a job's failure, expected one of the catalogue's")
        self.code, self.message = code, message or BY_CODE[code].cause
        super().__init__(f"{code}: {self.message}")


class Renderer(Protocol):
    """Renders one job. It is cancelled (`asyncio.CancelledError`) where the job was, or took too long: it must not hold
    the event loop, so that the worker is heard of. An exception other than RenderingFailed is a PROCESSING_ERROR."""

    async def render(self, order: Order, report: Callable[[int], None]) -> Rendered:
        """Render; `report` takes the progress in percent, as often as one likes."""
        ...


def load(name: str) -> Renderer:
    """The renderer at `package.module:attribute`, an object or a class; raises ConfigurationError."""
    hint = "name it as package.module:attribute, and install its package beside aiprod-ops"
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"there is no renderer at {name!r}: {error}", hint=hint) from error
    made = found() if isinstance(found, type) else found
    if not callable(getattr(made, "render", None)):
        raise ConfigurationError(f"what is at {name!r} has no `render`", hint=hint)
    renderer: Renderer = made
    return renderer


class Nothing:
    """Renders nothing: of a worker that takes no jobs."""

    async def render(self, order: Order, report: Callable[[int], None]) -> Rendered:  # noqa: ARG002
        raise RenderingFailed("PROCESSING_ERROR", f"a worker without a renderer has job {order.job_id}")
