"""Requests over kept connections, as many as a server answers:
`http_load.py PORT PATH CONNECTIONS SECONDS [AUTHORIZATION]`.

Prints responses a second and their median time in ms as JSON. Bare asyncio: a client that parses more would be the
slower end.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import cast

import uvloop


class Client(asyncio.Protocol):
    """One connection: the next request when a response has ended. A status other than 200 ends everything."""

    def __init__(self, request: bytes) -> None:
        self.times: list[float] = []
        self.request, self.buffer, self.ends = request, b"", 0.0
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.send()

    def send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.failed = head.decode()
            self.transport.close()
            return
        self.times.append(time.perf_counter() - self.began)
        self.buffer = body[length:]
        if time.perf_counter() < self.ends or not self.ends:
            self.send()


async def load(port: int, path: str, connections: int, seconds: float, authorization: str) -> dict[str, float]:
    who = f"authorization: {authorization}" if authorization else "x-api-key: ada"
    lines = (f"GET {path} HTTP/1.1", "host: bench", who, "accept: */*", "", "")
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Client("\r\n".join(lines).encode()), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(0.2)  # warm
    began = time.perf_counter()
    for each in made:
        each.times.clear()
        each.ends = began + seconds
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    if failed := [each.failed for each in made if each.failed]:
        sys.exit(failed[0])
    times = [one for each in made for one in each.times]
    for each in made:
        each.transport.close()
    return {"per_second": len(times) / took, "median_ms": statistics.median(times) * 1000}


if __name__ == "__main__":
    port, path, connections, seconds, *more = sys.argv[1:]
    print(json.dumps(uvloop.run(load(int(port), path, int(connections), float(seconds), "".join(more)))))
