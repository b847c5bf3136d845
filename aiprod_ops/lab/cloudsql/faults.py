"""Faults on demand: what the API does to its callers on a bad day.

    POST /lab/faults  {"kind": "answer", "status": 503, "count": 2, "only": "sql.instances.clone"}

Calls (`only` is a method's id, `*` matches parts of it):
  answer               answer `status` instead of doing anything
  hang                 accept the request and never answer; with `after_work` it is done first
  drop                 close the connection instead of answering; with `after_work` the request is done first
  expire-credentials   answer 401 to everything from now on, whatever `count` says
Operations (`only` is a type such as CLONE):
  fail                 end DONE with an error `code` and `message`, without having done anything
  never-end            do the work and stay RUNNING
  slow                 take `seconds` instead of the usual time
  broken-copy          a CLONE, CREATE or RESTORE_VOLUME that ends DONE, and whose server does not start
"""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from threading import Event, Lock
from typing import Any, Literal

import msgspec

Kind = Literal["answer", "hang", "drop", "expire-credentials", "fail", "never-end", "slow", "broken-copy"]
CALLS = frozenset({"answer", "hang", "drop", "expire-credentials"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble, for the next `count` calls or operations that it fits."""

    kind: Kind
    count: int = 1
    only: str = "*"
    status: int = 503
    after_work: bool = False
    seconds: float = 60.0
    code: str = "INTERNAL_ERROR"
    message: str = "An internal error occurred."


class Faults:
    """What is still to go wrong. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[Fault] = []
        self._cleared = Event()

    def add(self, fault: Fault) -> None:
        """From now on."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more; calls that hang are dropped, operations that never end do."""
        with self._lock:
            self._waiting.clear()
            self._cleared.set()
            self._cleared = Event()

    @property
    def waiting(self) -> list[Fault]:
        with self._lock:
            return list(self._waiting)

    def of_call(self, method: str) -> Fault | None:
        """What happens to this call; it is used up by that."""
        return self._take(lambda fault: fault.kind in CALLS and fnmatchcase(method, fault.only))

    def of_operation(self, kind: str) -> Fault | None:
        """What happens to this operation; it is used up by that."""
        return self._take(lambda fault: fault.kind not in CALLS and fnmatchcase(kind, fault.only))

    def until_cleared(self) -> Event:
        """Set when somebody clears the faults."""
        with self._lock:
            return self._cleared

    def _take(self, fits: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            found = next((fault for fault in self._waiting if fits(fault)), None)
            if found is None or found.kind == "expire-credentials":
                return found
            self._waiting.remove(found)
            if found.count > 1:
                self._waiting.insert(0, replace(found, count=found.count - 1))
            return found


def read(body: bytes) -> Fault:
    """A fault as it was posted. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(body, type=Fault)


def inject(url: str, fault: Fault) -> None:
    """Make something go wrong in the emulator at `url`, from any process."""
    _call(url, "POST", msgspec.json.encode(fault))


def clear(url: str) -> None:
    """Take all faults of the emulator at `url` back."""
    _call(url, "DELETE", None)


def _call(url: str, verb: str, body: bytes | None) -> Any:
    request = urllib.request.Request(f"{url}/lab/faults", body, {"Content-Type": "application/json"}, method=verb)  # noqa: S310
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        return json.load(response)
