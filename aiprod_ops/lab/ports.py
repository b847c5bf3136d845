"""Ports for the lab's servers: below the ephemeral ones, where a client could connect to itself or take their place."""

import socket
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

from aiprod_ops.errors import Failed

PORTS = range(20_000, 32_000)


def free(folder: Path, count: int = 1, taken: Collection[int] = ()) -> list[int]:
    """Free ports, from a place of this folder's own on: two labs seldom meet, and a lab keeps its ports."""
    first = crc32(str(folder).encode()) % (len(PORTS) - 8)
    found: list[int] = []
    for port in (*PORTS[first:], *PORTS[:first]):
        if port not in taken and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"there are not {count} free ports from {PORTS.start} to {PORTS.stop}")


def is_free(port: int) -> bool:
    """Whether nobody listens there on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
