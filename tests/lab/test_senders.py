"""The port Sender, with each client: what strangers' servers do, and where they would have us go."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from receivers import Receiver, receiving

from aiprod_ops.adapters.aiohttp_sender import AiohttpSender
from aiprod_ops.adapters.pycurl_sender import PycurlSender
from aiprod_ops.domain.exchanges import LARGEST_KEPT, Exchange, NoAnswer, Outgoing, TimeLimits
from aiprod_ops.lab import ports
from aiprod_ops.ports import Sender
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab
SHORT = TimeLimits(connect=Seconds(1), read=Seconds(1), whole=Seconds(2))
PUBLIC = "93.184.215.14"
KINDS = [AiohttpSender, PycurlSender]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(params=KINDS, ids=["aiohttp", "pycurl"])
def kind(request: pytest.FixtureRequest) -> type[AiohttpSender] | type[PycurlSender]:
    return request.param


def sent(make: Callable[[], Sender], *urls: str) -> list[Exchange]:
    """What comes of POSTs to these URLs, all at once."""

    async def run() -> list[Exchange]:
        sender = make()
        try:
            given = [Outgoing(url, {"X-One": "1", "Content-Type": "application/json"}, b'{"a": 1}') for url in urls]
            return await asyncio.gather(*(sender.send(each) for each in given))
        finally:
            await sender.close()

    return asyncio.run(run())


def test_a_request_as_it_comes(kind, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    [found] = sent(lambda: kind(SHORT, private=True), receiver.url("/plain?a=b%20c"))
    taken = receiver.taken[-1]
    assert (found.status, found.error, found.body) == (204, None, b"")
    assert (taken.path, taken.body, taken.headers["x-one"]) == ("/plain?a=b%20c", b'{"a": 1}', "1")
    assert "cookie" not in taken.headers


def test_servers_that_behave_badly(kind, receiver: Receiver) -> None:
    free = ports.free(Path(__file__), taken=[receiver.port])[0]
    wanted = {
        "/moved": (301, None), "/gone": (410, None), "/busy": (429, None), "/short": (200, None),
        "/gigabyte": (200, None), "/trickled-body": (200, None), "/hang": (None, NoAnswer.TIMEOUT),
        "/trickle": (None, NoAnswer.TOO_SLOW), "/closes": (None, NoAnswer.CLOSED), "/garbled": (None, NoAnswer.GARBLED),
        "/five-digits": (None, NoAnswer.GARBLED), "/nought": (None, NoAnswer.GARBLED),
    }  # fmt: skip
    receiver.statuses |= {"/five-digits": 99999, "/nought": 0}
    before, began = receiver.sent_bytes, time.monotonic()

    async def run() -> list[Exchange]:
        sender = kind(SHORT, private=True)
        headers = {"webhook-id": f"msg-{kind.__name__}"}
        try:
            urls = [*map(receiver.url, wanted), f"http://127.0.0.1:{free}/"]
            return await asyncio.gather(*(sender.send(Outgoing(url, headers, b"{}")) for url in urls))
        finally:
            await sender.close()

    *found, nobody = asyncio.run(run())
    got = {path: (each.status, each.error) for path, each in zip(wanted, found, strict=True)}
    # Where a head breaks off in its first line, clients differ in whether that was HTTP at all.
    if got["/closes"] == (None, NoAnswer.GARBLED):
        got["/closes"] = wanted["/closes"]
    assert got == wanted
    assert nobody.error is NoAnswer.REFUSED
    assert time.monotonic() - began < 20, "each ends with its time limits"
    by_path = dict(zip(wanted, found, strict=True))
    assert by_path["/busy"].retry_after == "2"
    assert by_path["/gone"].body == b"gone"
    assert by_path["/short"].body == b"begun"
    assert by_path["/gigabyte"].body == b"g" * LARGEST_KEPT
    assert receiver.sent_bytes - before < 50_000_000, "of a gigabyte, what fits into buffers"


def test_literal_addresses_and_plain_http(kind, receiver: Receiver) -> None:
    before = len(receiver.taken)
    bad = [
        receiver.url(), "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "https://2130706433/",
        "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/", "https://[fd00:ec2::254]/",
        "https://localhost/", "ftp://example.org/", "file:///etc/passwd", "https://a b/", "",
    ]  # fmt: skip
    assert {each.error for each in sent(lambda: kind(SHORT), *bad)} == {NoAnswer.URL}
    assert len(receiver.taken) == before


def test_the_address_is_judged_when_it_is_connected_to(monkeypatch: pytest.MonkeyPatch, kind) -> None:
    """Also where the rules of the URL's text would have let it through."""
    from aiprod_ops.domain import urls

    monkeypatch.setattr(urls, "uncallable", lambda url, private=False: "")
    places = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "10.0.0.1", "[::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]"]
    found = sent(lambda: kind(SHORT), *(f"https://{place}/" for place in places))
    assert {each.error for each in found} == {NoAnswer.PRIVATE_ADDRESS}


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"])
def test_a_name_that_leads_to_us(address: str) -> None:
    def pinned() -> Sender:
        place = f"[{address}]" if ":" in address else address
        return PycurlSender(SHORT, resolved={"evil.example.org": place})

    for make in (lambda: AiohttpSender(SHORT, resolve=_answering(address)), pinned):
        [found] = sent(make, "https://evil.example.org/")
        assert found.error is NoAnswer.PRIVATE_ADDRESS


def test_a_name_that_is_public_when_it_is_registered_and_leads_to_us_when_it_is_called() -> None:
    """DNS rebinding: each look at the name answers something else."""
    looks = count()

    async def changing(_: str) -> list[str]:
        return [PUBLIC] if next(looks) == 0 else [PUBLIC, "127.0.0.1"]

    async def run() -> Exchange:
        from aiprod_ops.service.destinations import destination

        assert (await destination("https://evil.example.org/", changing)).addresses == (PUBLIC,)
        sender = AiohttpSender(SHORT, resolve=changing)
        try:
            return await sender.send(Outgoing("https://evil.example.org/", {}, b""))
        finally:
            await sender.close()

    assert asyncio.run(run()).error is NoAnswer.PRIVATE_ADDRESS


def test_a_name_that_is_none(kind) -> None:
    [found] = sent(lambda: kind(SHORT), "https://a-name-that-is-none.example.com./".replace("./", "/"))
    assert found.error in (NoAnswer.DNS, NoAnswer.CONNECT_TIMEOUT)


def test_tls(kind, tmp_path: Path) -> None:
    """A certificate is the name's, of an authority that counts, or nothing is sent."""
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", ports.free(tmp_path)[0]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> list[Exchange]:
        async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context):
            found = []
            for authorities, host in ((None, "localhost"), (certificate, "127.0.0.1"), (certificate, "localhost")):
                sender = kind(SHORT, private=True, authorities=authorities)
                found.append(await sender.send(Outgoing(f"https://{host}:{port}/", {}, b"{}")))
                await sender.close()
            return found

    unknown, another, good = asyncio.run(run())
    assert (unknown.error, another.error, good.status) == (NoAnswer.TLS, NoAnswer.TLS, 204)
    assert len(taken) == 1


def test_many_at_once(kind, receiver: Receiver) -> None:
    before = receiver.most_at_once["/many?ms=200"]
    found = sent(lambda: kind(SHORT, private=True), *[receiver.url("/many?ms=200")] * 100)
    assert {each.status for each in found} == {204}
    assert receiver.most_at_once["/many?ms=200"] - before > 50 or before


def _answering(address: str) -> Callable[[str], Awaitable[list[str]]]:
    async def resolve(_: str) -> list[str]:
        return [address]

    return resolve
