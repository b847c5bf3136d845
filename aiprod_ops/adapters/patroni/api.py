"""Patroni's REST API through urllib3: the one place that imports it.

Each call goes out once. A call that changes something and was not answered is *unknown*: `Said.status` is None, and
whoever called looks at the cluster. Credentials are for these calls alone, and read when the first is made.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as Slow
from urllib3.util import Timeout, make_headers

from aiprod_ops.adapters.patroni.values import Said, Status, Timing, View, last_leader
from aiprod_ops.errors import ConfigurationError, Failed, OpsError, PermissionMissing, TimedOut, Unreachable
from aiprod_ops.units import Seconds, show

_PATIENCE = Seconds(3)  #: for a member to say something


class PatroniApi:
    """The APIs of the members of one cluster, by name. `login` answers user and password, ('', '') where none is asked.

    Every method raises Unreachable (nobody took it), TimedOut (taken, and not answered in time), Failed or
    PermissionMissing.
    """

    def __init__(
        self, urls: Mapping[str, str], login: Callable[[], tuple[str, str]], *, ca: str = "",
        patience: Seconds = _PATIENCE,
    ) -> None:  # fmt: skip
        self._urls, self._login, self._patience = dict(urls), login, patience
        trusted: dict[str, Any] = {"ca_certs": ca} if ca else {}
        # A kept connection may have been closed by the other side, which looks as if a call was taken.
        self._pool = urllib3.PoolManager(retries=False, headers={"Connection": "close"}, **trusted)

    def view(self, name: str) -> View:
        """The cluster as this member reads it now: one that has lost contact to the others' state does not answer."""
        return View.of(self._read(name, "/cluster"))

    def status(self, name: str) -> Status:
        """What a member says of itself. Raises ConfigurationError where it is another than the one that is meant."""
        found = Status.of(self._read(name, "/patroni"))
        if found.name and found.name != name:
            raise ConfigurationError(
                f"{self._urls[name]} is the API of {found.name}, and the configuration calls it {name}"
            )
        return found

    def timing(self, name: str) -> Timing:
        return Timing.of(self._read(name, "/config"))

    def last_leader(self, name: str) -> str:
        """Who was promoted last, as this member reads it; '' where nobody was."""
        return last_leader(self._read(name, "/history"))

    def change(self, name: str, path: str, body: Mapping[str, Any], patience: Seconds) -> Said:
        """Ask a member to change something, once. Raises Unreachable or PermissionMissing where it was not begun."""
        user, password = self._login()
        headers = make_headers(basic_auth=f"{user}:{password}") if user else {}
        headers |= {"Content-Type": "application/json", "Connection": "close"}
        try:
            response = self._pool.request(
                "POST", self._urls[name] + path, body=json.dumps(body), headers=headers,
                timeout=Timeout(connect=self._patience, read=patience),
            )  # fmt: skip
        except (NewConnectionError, ConnectTimeoutError, SSLError) as error:
            raise self._no_contact(name, error) from error
        except HTTPError as error:
            return Said(None, f"{self._urls[name]} took it and did not answer ({type(error).__name__})")
        text = response.data[:500].decode("utf-8", "replace").strip()
        if response.status in (401, 403):
            raise PermissionMissing(
                f"Patroni of {name} refused us: {response.status} {text}",
                hint="user and password of [targets.NAME.patroni] are those of restapi.authentication there",
            )
        return Said(response.status, text)

    def _read(self, name: str, path: str) -> Any:
        try:
            response = self._pool.request("GET", self._urls[name] + path, timeout=Timeout(total=self._patience))
        except (NewConnectionError, ConnectTimeoutError, SSLError) as error:
            raise self._no_contact(name, error) from error
        except Slow as error:
            raise TimedOut(f"Patroni of {name} does not answer within {show(self._patience, 's')}") from error
        except HTTPError as error:
            raise Unreachable(f"Patroni of {name} closed the connection without an answer") from error
        try:
            return json.loads(response.data)
        except ValueError as error:
            # A member that is no leader or not healthy answers 503, and still tells its state.
            raise Failed(f"{self._urls[name]}{path} answered {response.status}, and no JSON") from error

    def _no_contact(self, name: str, error: Exception) -> OpsError:
        if isinstance(error, SSLError):
            return Unreachable(
                f"the certificate of {self._urls[name]} is not trusted", hint="`ca` names the file to trust"
            )
        return Unreachable(f"no contact to Patroni of {name} at {self._urls[name]}")
