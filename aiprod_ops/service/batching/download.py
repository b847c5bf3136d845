"""The videos of a batch as one ZIP stream: laid out from the table, so that any part of it can be sent by itself.

`SHA256SUMS` stands after the videos (`sha256sum -c SHA256SUMS` checks them). Rows are read in parts, each on a
connection that is given back before anything is sent: a slow client holds none, and memory does not grow.
"""

import logging
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from aiprod_ops.domain import archives
from aiprod_ops.domain.archives import File
from aiprod_ops.domain.jobs import Status
from aiprod_ops.service.batching.videos import Videos
from aiprod_ops.service.http.problems import RETRY_SECONDS, Problem
from aiprod_ops.service.tables import jobs, results

log = logging.getLogger(__name__)

_LOOKED_AT = 2  #: a header, and the first bytes of a video
SUMS = "SHA256SUMS"
_PART = 1_000


@dataclass(frozen=True, slots=True)
class Video:
    """One file, where its bytes are, and their checksum."""

    file: File
    url: str
    sha256: bytes

    @property
    def line(self) -> bytes:
        """Its line of SHA256SUMS."""
        return f"{self.sha256.hex()}  {self.file.name}\n".encode()


@dataclass(frozen=True, slots=True)
class Layout:
    """How large the archive and its parts are, in bytes."""

    files: int
    videos_bytes: int  #: with their headers
    sums: File
    directory_bytes: int

    @property
    def directory_at(self) -> int:
        """Where the directory begins."""
        return self.videos_bytes + len(archives.local_header(self.sums)) + self.sums.size_bytes

    @property
    def ending(self) -> bytes:
        """The last bytes."""
        return archives.ending(self.files + 1, self.directory_bytes, self.directory_at)

    @property
    def size_bytes(self) -> int:
        """Of the whole archive."""
        return self.directory_at + self.directory_bytes + len(self.ending)


async def videos_of(engine: AsyncEngine, batch_id: str) -> AsyncIterator[Video]:
    """The videos of a batch that has ended, in the order of its items."""
    after = 0
    while True:
        query = (
            select(jobs.c.batch_position, results)
            .join(results, results.c.job_id == jobs.c.id)
            .where(jobs.c.batch_id == batch_id, jobs.c.status == Status.COMPLETED, jobs.c.batch_position > after)
            .where(results.c.crc32.is_not(None))
            .order_by(jobs.c.batch_position)
            .limit(_PART)
        )
        async with engine.connect() as connection:
            found = (await connection.execute(query)).all()
        for row in found:
            name = f"{row.batch_position:06d}-{row.job_id}.mp4"
            yield Video(File(name, row.size_bytes, row.crc32), row.video_url, bytes(row.sha256))
        if len(found) < _PART:
            return
        after = found[-1].batch_position


async def lay_out(engine: AsyncEngine, batch_id: str) -> Layout:
    """Sizes and checksums, from the table alone."""
    files = at = crc = sums = directory = 0
    async for video in videos_of(engine, batch_id):
        files += 1
        directory += len(archives.central_header(video.file, at))
        at += len(archives.local_header(video.file)) + video.file.size_bytes
        crc, sums = zlib.crc32(video.line, crc), sums + len(video.line)
    listed = File(SUMS, sums, crc)
    return Layout(files, at, listed, directory + len(archives.central_header(listed, at)))


async def begun(content: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The same bytes, when the first of a video's are there: a store that does not answer is told as a problem, and not
    by an answer that breaks off. Raises Problem SERVICE_UNAVAILABLE."""
    first = []
    try:
        async for piece in content:
            first.append(piece)
            if len(first) == _LOOKED_AT:
                break
    except OSError as error:
        log.warning("the store of videos does not answer: %s: %s", type(error).__name__, error)
        detail = "The store of the videos does not answer."
        raise Problem("SERVICE_UNAVAILABLE", detail, headers={"Retry-After": str(RETRY_SECONDS)}) from error

    async def whole() -> AsyncIterator[bytes]:
        for piece in first:
            yield piece
        async for piece in content:
            yield piece

    return whole()


async def stream(
    engine: AsyncEngine, batch_id: str, layout: Layout, videos: Videos, begin: int, end: int
) -> AsyncGenerator[bytes, None]:
    """The archive's bytes from `begin` up to `end`. What is not asked for is not read. Raises OSError, which cuts the
    answer off, where the store gives another number of bytes than the table says: the client goes on from there."""
    at = 0

    def cut(content: bytes) -> bytes:
        """What is asked for of a piece that begins at `at`."""
        return content[max(0, begin - at) : max(0, end - at)]

    if begin < layout.videos_bytes:
        async for video in videos_of(engine, batch_id):
            if at >= end:
                return
            header, size = archives.local_header(video.file), video.file.size_bytes
            if piece := cut(header):
                yield piece
            at += len(header)
            first, last = max(0, begin - at), min(size, end - at)
            if first < last:
                read = 0
                async for chunk in videos.read(video.url, first, last):
                    read += len(chunk)
                    yield chunk
                if read != last - first:
                    raise OSError(f"{video.file.name}: {read} bytes were read, {last - first} expected")
            at += size
    at = layout.videos_bytes
    if piece := cut(archives.local_header(layout.sums)):
        yield piece
    at += len(archives.local_header(layout.sums))
    if begin < layout.directory_at:
        async for video in videos_of(engine, batch_id):
            if at >= end:
                return
            if piece := cut(video.line):
                yield piece
            at += len(video.line)
    at, offset = layout.directory_at, 0
    async for video in videos_of(engine, batch_id):
        if at >= end:
            return
        entry = archives.central_header(video.file, offset)
        offset += len(archives.local_header(video.file)) + video.file.size_bytes
        if piece := cut(entry):
            yield piece
        at += len(entry)
    last_pieces = archives.central_header(layout.sums, offset) + layout.ending
    if piece := cut(last_pieces):
        yield piece
