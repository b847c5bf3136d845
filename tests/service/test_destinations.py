"""Where a stranger's URL leads: every form of a private address is refused, and the address that was judged is used."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aiprod_ops.domain import urls
from aiprod_ops.errors import Refused, Unreachable
from aiprod_ops.service.destinations import destination, reachable
from aiprod_ops.service.validation import violations

PUBLIC = "93.184.215.14"


def leading_to(*addresses: str) -> Callable[[str], Awaitable[list[str]]]:
    async def resolve(_: str) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::7f00:1", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_no_request_goes_to(address: str) -> None:
    assert urls.forbidden(address)
    with pytest.raises(Refused, match="leads to"):
        asyncio.run(destination("https://example.org/", leading_to(PUBLIC, address)))


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are_public(address: str) -> None:
    found = asyncio.run(destination("https://Example.org/a", leading_to(address)))
    assert (found.host, found.addresses) == ("example.org", (address,))


@pytest.mark.parametrize(
    "text",
    [
        "", "https://", "http://example.org/", "ftp://example.org/", "//example.org", "https://127.0.0.1/", "https://[::1]/",
        "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://localhost/",
        "https://a.localhost/", "https://example.org:8080/", "https://example.org:22/", "https://user@example.org/",
        "https://user:pass@example.org/", "https://example.org\\@10.0.0.1/", "https://example.org#@10.0.0.1/",
        "https://example.org/a b", "https://example.org/\r\nHost: x", "https://exa\u3002mple.org/", "https://\u24d4xample.org/",
        "https://metadata.google.internal/", "https://printer.local/", "https://example.org./", "https://-a.org/",
        "https://example..org/", "https://" + "a" * 64 + ".org/", "https://example.org/" + "a" * 3_000,
        "https://example.org/\u202e", "javascript:alert(1)", "https://example.org%2f@10.0.0.1/",
    ],
)  # fmt: skip
def test_urls_that_are_refused(text: str) -> None:
    assert urls.wrong(text) is not None
    with pytest.raises(Refused, match="not called"):
        asyncio.run(destination(text, leading_to(PUBLIC)))


def test_a_name_without_an_address() -> None:
    with pytest.raises(Unreachable):
        asyncio.run(destination("https://example.org/", leading_to()))


def test_as_a_rule() -> None:
    [found] = asyncio.run(violations(reachable("url", leading_to("10.0.0.1")), "https://example.org/"))
    assert (found.rule, found.message) == ("private_address", "example.org leads to 10.0.0.1: it is private.")
    assert asyncio.run(violations(reachable("url", leading_to(PUBLIC)), "https://example.org/")) == ()
