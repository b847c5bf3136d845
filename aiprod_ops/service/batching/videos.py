"""Where a bulk download reads the videos: a port, found by a dotted name; without one they are got over HTTP."""

import importlib
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Protocol

from aiprod_ops.errors import ConfigurationError

_CHUNK = 65_536


class Videos(Protocol):
    """Reads what a renderer has stored."""

    def read(self, url: str, begin: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `begin` up to `end` of the video at a `video_url`; raises OSError where they are not there."""
        ...


class OverHttp:
    """From a web server or a bucket, by ranges."""

    async def read(self, url: str, begin: int, end: int) -> AsyncIterator[bytes]:
        import aiohttp

        patience = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
        asked = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        async with aiohttp.ClientSession(timeout=patience) as session, session.get(url, headers=asked) as answer:
            if answer.status != 206:
                raise OSError(f"the store answered {answer.status} to a range of a video, expected 206")
            async for chunk in answer.content.iter_chunked(_CHUNK):
                yield chunk


@lru_cache
def load(name: str) -> Videos:
    """The store at `package.module:attribute`, an object or a class; raises ConfigurationError."""
    if not name:
        return OverHttp()
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "name it as package.module:attribute"
        raise ConfigurationError(f"there is no store of videos at {name!r}: {error}", hint=hint) from error
    made: Videos = found() if isinstance(found, type) else found
    return made
