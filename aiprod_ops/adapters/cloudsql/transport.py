"""One HTTP exchange with the Admin API, sent once.

httplib2 sends a request again, whatever it is, when the connection closes without an answer (`BadStatusLine` at the
first attempt, httplib2 0.32 `_conn_request`): a backup would be taken twice. Here that is an error, `Unanswered`. And
each call has a connection of its own: a kept one may have been closed by the other side, which looks the same.
"""

import http.client
import ipaddress
from typing import Any
from urllib.parse import urlsplit

import google_auth_httplib2
import httplib2

from aiprod_ops.units import Seconds


class Unanswered(ConnectionError):
    """The connection was closed after the request was sent, and before an answer came."""


class _Once(httplib2.HTTPConnectionWithTimeout):  # type: ignore[misc]  # httplib2 is untyped
    def getresponse(self) -> http.client.HTTPResponse:
        return _answer(super().getresponse)


class _OnceTls(httplib2.HTTPSConnectionWithTimeout):  # type: ignore[misc]
    def getresponse(self) -> http.client.HTTPResponse:
        return _answer(super().getresponse)


def _answer(get: Any) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = get()
    except (http.client.BadStatusLine, ConnectionResetError) as error:
        raise Unanswered("the connection was closed before an answer came") from error
    return response


class _SentOnce(httplib2.Http):  # type: ignore[misc]
    def request(self, uri: str, *arguments: Any, connection_type: Any = None, **named: Any) -> Any:
        once = _OnceTls if urlsplit(uri).scheme == "https" else _Once
        return super().request(uri, *arguments, connection_type=connection_type or once, **named)


def exchange(credentials: Any, endpoint: str, timeout: Seconds) -> Any:
    """Something to give to `execute(http=…)`, for one call. No proxy stands between us and this machine."""
    proxy = {"proxy_info": None} if is_loopback(endpoint) else {}
    plain = _SentOnce(timeout=timeout, **proxy)
    # A 401 renews the credentials and sends again, which is safe: it was refused. Where there is nothing to renew it
    # is the answer.
    again = () if is_anonymous(credentials) else (401,)
    return google_auth_httplib2.AuthorizedHttp(credentials, http=plain, refresh_status_codes=again)


def is_anonymous(credentials: Any) -> bool:
    """Whether nothing is sent that says who we are."""
    from google.auth.credentials import AnonymousCredentials

    return isinstance(credentials, AnonymousCredentials)


def is_loopback(endpoint: str) -> bool:
    """Whether an endpoint is plain HTTP on this machine: a lab's, which asks for no credentials.

    >>> is_loopback("http://127.0.0.1:20123/"), is_loopback("http://localhost:1"), is_loopback("http://10.0.0.1/")
    (True, True, False)
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        return False
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"
