"""The adapter of the Admin API, without an emulator: how answers are read, what each failure becomes, what is sent."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import httplib2
import pytest

from aiprod_ops.adapters.cloudsql import failures, transport, values, waiting
from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.failures import Call
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.adapters.cloudsql.values import Instance, Operation
from aiprod_ops.errors import (
    ConfigurationError,
    Exit,
    Failed,
    Held,
    Missing,
    OpsError,
    OutcomeUnknown,
    PermissionMissing,
    Refused,
    Stale,
    Throttled,
    TimedOut,
    Unreachable,
)
from aiprod_ops.units import Seconds

READ = Call("instances.get", "instance aiprod of project acme", False, "gcloud sql operations list")
CHANGE = Call("instances.clone", "instance aiprod of project acme", True, "gcloud sql operations list")
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def body(status: int, reason: str, message: str = "Words of Google.") -> bytes:
    """An error as Google writes it."""
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return json.dumps({"error": {"code": status, "message": message, "errors": errors}}).encode()


@pytest.mark.parametrize(
    ("call", "status", "reason", "expected", "code"),
    [
        (CHANGE, 409, "operationInProgress", Held, Exit.HELD),
        (CHANGE, 409, "instanceAlreadyExists", Failed, Exit.UNDONE),
        (READ, 403, "notAuthorized", PermissionMissing, Exit.PERMISSION),
        (READ, 403, "rateLimitExceeded", Throttled, Exit.REFUSED),
        (READ, 401, "authError", PermissionMissing, Exit.PERMISSION),
        (READ, 404, "instanceDoesNotExist", Missing, Exit.REFUSED),
        (CHANGE, 412, "staleData", Stale, Exit.REFUSED),
        (CHANGE, 400, "invalidRequest", Failed, Exit.UNDONE),
        (CHANGE, 429, "rateLimitExceeded", Throttled, Exit.REFUSED),
        (READ, 500, "internalError", Unreachable, Exit.REFUSED),
        (READ, 503, "backendError", Unreachable, Exit.REFUSED),
        (CHANGE, 503, "backendError", OutcomeUnknown, Exit.UNKNOWN),
        (CHANGE, 500, "internalError", OutcomeUnknown, Exit.UNKNOWN),
    ],
)
def test_each_status_is_one_error(call: Call, status: int, reason: str, expected: type[OpsError], code: Exit) -> None:
    error = failures.of_status(call, status, body(status, reason))
    assert type(error) is expected
    assert error.exit_code is code
    assert str(status) in error.message
    assert reason in error.message
    assert "Words of Google." in error.message
    assert "aiprod" in error.message
    assert error.hint


@pytest.mark.parametrize("content", [b"", b"<html>502 Bad Gateway</html>", b"[]", b'{"error": "no"}', b"\xff\xfe"])
def test_an_answer_that_is_not_googles_is_read_too(content: bytes) -> None:
    error = failures.of_status(READ, 502, content)
    assert isinstance(error, Unreachable)
    assert "502" in error.message


def test_an_instance_is_read() -> None:
    found = Instance.of(
        {
            "name": "aiprod",
            "state": "RUNNABLE",
            "masterInstanceName": "example.com:acme:main",
            "replicaNames": ["acme:r1", "r2"],
            "ipAddresses": [
                {"type": "PRIMARY", "ipAddress": "34.0.0.1"},
                {"type": "OUTGOING", "ipAddress": "34.0.0.2"},
                {"type": "PRIVATE", "ipAddress": "10.1.2.3"},
            ],
            "settings": {
                "settingsVersion": "123",
                "dataDiskSizeGb": "10",
                "availabilityType": "REGIONAL",
                "backupConfiguration": {
                    "enabled": True,
                    "backupRetentionSettings": {"retainedBackups": 7, "retentionUnit": "COUNT"},
                },
                "maintenanceWindow": {"day": 7, "hour": 3},
                "databaseFlags": [{"name": "max_connections", "value": "200"}, {"name": "port", "value": "20123"}],
            },
        }
    )
    assert (found.primary, found.replicas) == ("main", ("r1", "r2"))
    assert found.is_replica
    assert found.is_regional
    assert (found.settings_version, found.disk_gb) == (123, 10)
    assert (found.host, found.port) == ("10.1.2.3", 20123)
    assert found.flags == {"max_connections": "200"}
    assert (found.backups.retained, found.backups.point_in_time) == (7, False)
    assert found.maintenance == (7, 3)


def test_an_instance_that_says_nothing_is_read() -> None:
    found = Instance.of({"name": "bare"})
    assert (found.port, found.host, found.settings_version, found.backups.retained) == (5432, "", 0, None)


def test_what_is_not_named_is_not_sent() -> None:
    assert Settings().body() == {}
    assert Settings(labels={"a": None}).body() == {"userLabels": {"a": None}}
    assert Settings(disk_gb=20).body() == {"dataDiskSizeGb": "20"}
    assert Settings(retained_backups=30).body() == {
        "backupConfiguration": {"backupRetentionSettings": {"retainedBackups": 30, "retentionUnit": "COUNT"}}
    }
    new = NewInstance("a", root_password="secret")
    assert "secret" not in repr(new)
    assert new.body()["rootPassword"] == "secret"


def operation(name: str, kind: str, seconds: float) -> Operation:
    return Operation(name, kind, "DONE", "aiprod", inserted=NOON + timedelta(seconds=seconds))


def test_an_operation_is_found_by_kind_and_time() -> None:
    known = [operation("late", "CLONE", 60), operation("ours", "CLONE", 1), operation("old", "CLONE", -60)]
    other = operation("other", "BACKUP_VOLUME", 1)
    found = waiting.matching([*known, other], "CLONE", NOON, NOON + timedelta(seconds=10))
    assert [each.name for each in found] == ["ours"]
    assert [each.name for each in waiting.matching(known, "CLONE", NOON)] == ["ours", "late"]
    assert waiting.matching([], "CLONE", NOON) == []


def test_clocks_may_be_apart() -> None:
    assert waiting.matching([operation("ours", "CLONE", -4)], "CLONE", NOON)
    assert not waiting.matching([operation("theirs", "CLONE", -6)], "CLONE", NOON)


@pytest.mark.parametrize("module", [values, transport], ids=lambda module: module.__name__)
def test_the_examples_hold(module: Any) -> None:
    import doctest

    assert doctest.testmod(module).failed == 0


def test_nothing_but_the_endpoint_is_ever_contacted() -> None:
    """Imports, construction, the document, a call: in a process where every connection is written down and refused."""
    program = """
import socket
asked = []
def refuse(self, address): asked.append(address); raise ConnectionRefusedError
def look_up(host, *_, **__): asked.append(host); raise OSError
def known(host, port, *_, **__): return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
import aiprod_ops.adapters.cloudsql.admin as admin
from aiprod_ops.errors import Unreachable
import sys
print("googleapiclient" in sys.modules)
socket.getaddrinfo = look_up
sql = admin.CloudSqlAdmin("acme", endpoint="http://127.0.0.1:20001", reads=0)
sql._service
print(asked)
socket.getaddrinfo = known
try: sql.instances()
except Unreachable as error: print(error.message)
print(asked)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    imported, before, said, after = done.stdout.splitlines()
    assert imported == "False"
    assert before == "[]"
    assert "nothing listens at http://127.0.0.1:20001" in said
    assert after == "[('127.0.0.1', 20001)]"


def test_without_credentials_google_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigurationError) as refused:
        CloudSqlAdmin("acme").instances()
    assert "gcloud auth application-default login" in refused.value.hint


def test_one_that_only_reads_sends_nothing() -> None:
    with pytest.raises(Refused, match="only reads"):
        CloudSqlAdmin("acme", endpoint="http://127.0.0.1:1", writes=False).delete("aiprod")


class Mute:
    """A server that takes requests and never answers: it closes, or it waits."""

    def __init__(self, *, closes: bool) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._closes, self._open = closes, []  # type: ignore[var-annotated]
        self.requests: list[bytes] = []
        Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self.requests.append(peer.recv(65536))
            if self._closes:
                peer.close()
            else:
                self._open.append(peer)

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for peer in self._open:
            peer.close()


@contextmanager
def mute(*, closes: bool) -> Iterator[Mute]:
    server = Mute(closes=closes)
    try:
        yield server
    finally:
        server.stop()


def test_a_change_is_sent_once_even_when_the_connection_closes() -> None:
    with mute(closes=True) as server:
        admin = CloudSqlAdmin("acme", endpoint=server.url)
        with pytest.raises(OutcomeUnknown, match="whether it was begun is not known"):
            admin.take_backup("aiprod")
        assert len(server.requests) == 1


def test_the_plain_client_sends_it_twice() -> None:
    """Why `transport` exists: when this fails, httplib2 has become safe and that file can go."""
    with mute(closes=True) as server:
        with pytest.raises(ConnectionError):
            httplib2.Http(timeout=5).request(f"{server.url}/", "POST", body="{}")
        assert len(server.requests) == 2


def test_a_read_is_tried_again() -> None:
    with mute(closes=True) as server:
        with pytest.raises(Unreachable):
            CloudSqlAdmin("acme", endpoint=server.url, reads=1).instances()
        assert len(server.requests) == 2


def test_no_proxy_stands_between_us_and_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with mute(closes=True) as server:
        with pytest.raises(Unreachable, match="broke"):
            CloudSqlAdmin("acme", endpoint=server.url, reads=0).instances()
        assert len(server.requests) == 1


def test_a_call_that_hangs_ends() -> None:
    with mute(closes=False) as server:
        admin = CloudSqlAdmin("acme", endpoint=server.url, timeout=Seconds(0.2), reads=0)
        with pytest.raises(TimedOut, match=r"within 0\.2 s"):
            admin.instances()
        with pytest.raises(TimedOut) as lost:
            admin.delete("aiprod")
        assert "instances.delete" in lost.value.message
        assert lost.value.exit_code is Exit.UNKNOWN
        assert "operations?instance=aiprod" in lost.value.hint
        assert len(server.requests) == 2
