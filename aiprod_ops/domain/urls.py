"""URLs that strangers give us to call: what they may look like, and which addresses they may lead to. Pure.

Looking at the name alone is not enough: it may lead to a private address, or to another one a second later (DNS
rebinding). Whoever calls it resolves it right then, lets `leading` judge every address, and connects to one of those:
the senders below `adapters` do. Source: OWASP, "Server-Side Request Forgery Prevention Cheat Sheet".
"""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

LONGEST = 2_048  #: characters
#: A name with a top-level domain of letters, so that no form of an IP address fits: 127.1, 0x7f.1, 2130706433, [::1].
_NAMED = r"^https://([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}(:443)?"
PATTERN = _NAMED + r"(/[!-\[\]-~]*)?$"
_PATH = r"(/([A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?$"
#: The same where we send something to: without a fragment, and with no character that has to be encoded (RFC 3986).
ENDPOINT_PATTERN = _NAMED + _PATH
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
#: And in a lab: http too, a name of any network or an address, and any port.
LAB_PATTERN = rf"^https?://({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?{_PATH}"
_PATTERN, _ENDPOINT, _LAB = map(re.compile, (PATTERN, ENDPOINT_PATTERN, LAB_PATTERN))
#: Names that lead into a network of ours whatever they resolve to. Source: RFC 6761, RFC 6762, RFC 8375, RFC 9476;
#: cloud providers' metadata servers.
OURS = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa", "svc",
    "consul", "test", "invalid", "onion",
)  # fmt: skip
#: The same for the OpenAPI document: URLs that must not match.
OURS_PATTERN = rf"^https://([^/]*\.)?({'|'.join(re.escape(name) for name in OURS)})(:443)?(/|$)"
#: Addresses that hold an IPv4 address: IPv4-compatible, NAT64, Teredo, 6to4.
_EMBEDDING = tuple(map(ipaddress.ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))
#: What only newer versions of the standard library know. Source: IANA, special-purpose address registries.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "3fff::/20", "5f00::/16")))
#: Metadata servers at addresses that look public. Source: Microsoft, "What is IP address 168.63.129.16?".
_METADATA = (ipaddress.ip_network("168.63.129.16/32"),)


def wrong(url: str) -> tuple[str, str] | None:
    """The rule that a URL breaks, and what was seen; None where it may be asked for.

    >>> wrong("https://example.org/a?b=c"), wrong("http://example.org/")
    (None, ('https', 'it does not begin with https://'))
    >>> wrong("https://[::1]/")[0], wrong("https://user@example.org/")[0], wrong("https://api.internal/")[0]
    ('host', 'userinfo', 'private_name')
    """
    if len(url) > LONGEST:
        return _too_long(url)
    if not url.lower().startswith("https://"):
        return "https", "it does not begin with https://"
    if _has_userinfo(url):
        return _USERINFO
    if not _PATTERN.fullmatch(url):
        return "host", "its host is not a public DNS name on port 443, or it has characters that a URL cannot have"
    host = (urlsplit(url).hostname or "").rstrip(".")
    if any(host == name or host.endswith(f".{name}") for name in OURS):
        return "private_name", f"the name {host} is reserved for private networks"
    return None


def uncallable(url: str, *, private: bool = False) -> tuple[str, str] | None:
    """The rule that a URL breaks which we would send something to, and what was seen; None where it breaks none.
    `private` is a lab's: http, and any host and port.

    >>> uncallable("https://example.org/"), uncallable("http://127.0.0.1:80/")
    (None, ('https', 'it does not begin with https://'))
    >>> uncallable("http://127.0.0.1:80/", private=True), uncallable("http://[::1", private=True)[0]
    (None, 'pattern')
    """
    if private:
        return _wrong_in_a_lab(url)
    if (found := wrong(url)) is not None:
        return found
    return None if _ENDPOINT.fullmatch(url) else ("pattern", f"it has {_NOT_ENCODED}")


_USERINFO = ("userinfo", "it has a user name or a password before the host")
_NOT_ENCODED = "a fragment, or characters that have to be encoded"


def _too_long(url: str) -> tuple[str, str]:
    return "max_length", f"it has {len(url)} characters"


def _has_userinfo(url: str) -> bool:
    return "@" in re.split(r"[/?#\\]", url.partition("://")[2], maxsplit=1)[0]


def _wrong_in_a_lab(url: str) -> tuple[str, str] | None:
    if len(url) > LONGEST:
        return _too_long(url)
    if not url.startswith(("http://", "https://")):
        return "scheme", "it does not begin with http:// or https://"
    if _has_userinfo(url):
        return _USERINFO
    if not _LAB.fullmatch(url):
        return "pattern", f"it has no host, or one that is neither a name nor an address, or {_NOT_ENCODED}"
    try:
        parts = urlsplit(url)
        if "[" in parts.netloc:
            ipaddress.IPv6Address(parts.hostname or "")
    except ValueError:
        return "host", "it has something in brackets that is no IPv6 address"
    number = parts.netloc.rpartition("]")[2].partition(":")[2]
    return None if 0 < int(number or 80) < 65_536 else ("port", "it has a port that is not from 1 to 65535")


def leading(host: str, addresses: Iterable[str], *, private: bool = False) -> str:
    """Why no request goes to a name that leads to these addresses; "" where one may. Any of them, not all: whoever
    controls the name would have us try again until we take the wrong one.

    >>> leading("example.org", ["93.184.215.14", "10.0.0.1"])
    'example.org leads to 10.0.0.1: it is private'
    """
    if not private:
        for address in addresses:
            if reason := forbidden(address):
                return f"{host} leads to {address}: {reason}"
    return ""


def forbidden(address: str) -> str:
    """Why no request of ours may go to an IP address; "" where one may.

    >>> forbidden("93.184.215.14"), forbidden("169.254.169.254"), forbidden("::ffff:10.0.0.1")
    ('', 'it is link-local', 'it is private')
    >>> forbidden("fd00:ec2::254"), forbidden("64:ff9b::7f00:1"), forbidden("100.64.0.1")
    ('it is private', 'it embeds an IPv4 address', 'it is not global')
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    kinds = (
        (found.is_unspecified, "it is unspecified"),
        (found.is_loopback, "it is loopback"),
        (found.is_link_local, "it is link-local"),
        (found.is_multicast, "it is multicast"),
        (_among(found, _METADATA), "it is a metadata server's"),
        (_among(found, _EMBEDDING), "it embeds an IPv4 address"),
        (found.is_private, "it is private"),
        (found.is_reserved or _among(found, _SPECIAL), "it is reserved"),
        (not found.is_global, "it is not global"),
    )
    return next((reason for holds, reason in kinds if holds), "")


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _among(address: _Address, networks: tuple[_Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
