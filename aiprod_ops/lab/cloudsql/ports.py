"""Ports for servers: below the ephemeral ones, where a client could connect to itself or take a server's place."""

import socket
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

from aiprod_ops.errors import Failed

PORTS = range(20_000, 32_000)


def free(folder: Path, taken: Collection[int] = ()) -> int:
    """A free port, beginning at a place of this folder's own: two emulators seldom meet."""
    first = crc32(str(folder).encode()) % len(PORTS)
    candidates: list[int] = [*PORTS[first:], *PORTS[:first]]
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise Failed(f"there is no free port from {PORTS.start} to {PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether nobody listens there on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
