"""A renderer that makes the same bytes for the same job every time, and the folder-less store that holds them.

A prompt may ask for a bad day: `[takes 3]` seconds, `[fails RENDERING_ERROR]`, `[fails CONTENT_REFUSED]`, `[poison]`
(it kills its worker), `[hangs]`. Other prompts take no time.
"""

import asyncio
import hashlib
import os
import re
import signal
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from aiprod_ops.service.working.rendering import Order, Rendered, RenderingFailed

HOST = "videos.lab.invalid"
_CHUNK = 65_536
_ASKED = re.compile(r"\[(takes|fails|poison|hangs)(?: ([^\]]+))?\]")
_STEPS = 20


class Renderer:
    """The lab's. A video has 1,000 bytes a second."""

    async def render(self, order: Order, report: Callable[[int], None]) -> Rendered:
        for what, value in _ASKED.findall(order.prompt):
            await _misbehave(what, value, report)
        size = 1_000 * order.duration_seconds
        crc, digest = 0, hashlib.sha256()
        for chunk in content(order.job_id, 0, size):
            crc = zlib.crc32(chunk, crc)
            digest.update(chunk)
        url = f"https://{HOST}/{order.job_id}.mp4?size={size}"
        return Rendered(
            url, f"https://{HOST}/{order.job_id}.jpg", order.duration_seconds, size, 0.9, crc, digest.digest()
        )


async def _misbehave(what: str, value: str, report: Callable[[int], None]) -> None:
    if what == "takes":
        for step in range(_STEPS):
            report(100 * step // _STEPS)
            await asyncio.sleep(float(value) / _STEPS)
    elif what == "fails":
        raise RenderingFailed(value, "as the prompt asked")
    elif what == "hangs":
        await asyncio.Event().wait()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def content(name: str, begin: int, end: int) -> Iterator[bytes]:
    """The bytes from `begin` up to `end` of a video: a block for each 64 KB, made from its name and its number."""
    for number in range(begin // _CHUNK, -(-end // _CHUNK)):
        block = hashlib.sha256(f"{name} {number}".encode()).digest() * (_CHUNK // 32)
        yield block[max(0, begin - number * _CHUNK) : end - number * _CHUNK]


class Videos:
    """Where a bulk download reads them: made again, not kept."""

    async def read(self, url: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `begin` up to `end`."""
        parts = urlsplit(url)
        whole = int(parse_qs(parts.query)["size"][0])
        for chunk in content(parts.path.strip("/").removesuffix(".mp4"), begin, min(end, whole)):
            yield chunk
            await asyncio.sleep(0)
