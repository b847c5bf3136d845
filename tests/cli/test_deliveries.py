"""Where results go: the file for node_exporter, the Pushgateway, the exit code that neither changes."""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiprod_ops import cli
from aiprod_ops.adapters import prometheus
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.results import Result, Subject
from aiprod_ops.engine.results import alone
from aiprod_ops.errors import Unreachable
from aiprod_ops.units import Seconds

BOOK = (
    "from pathlib import Path\nfrom aiprod_ops import api\n"
    "book = api.Runbook(symptom='', owner='', check_every='1 d', exports=('data age',))\n"
    "@book.facts\ndef facts(ctx, params) -> dict:\n    return {'age': float(Path('AGE').read_text())}\n"
    "@book.judge\ndef judge(facts, params):\n"
    "    return [api.Finding('data age', facts['age'] * 1000, 'ms', warn=3_600_000, crit=7_200_000)]\n"
)
SUCCESS = "aiprod_ops_check_last_success_timestamp_seconds"


class Book:
    """A runbook that judges a number in a file, and the command that checks it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.age, self.file = folder, folder / "age", folder / "result.prom"
        (folder / "books").mkdir(mode=0o700)
        source = folder / "books/old_backup.py"
        source.write_text(BOOK.replace("AGE", str(self.age)))
        source.chmod(0o600)

    def check(self, age: object, *more: str) -> int:
        self.age.write_text(str(age))
        where = ("--runbooks", str(self.folder / "books"), "--dsn", "host=/nowhere dbname=app")
        return cli.call(["check", "old-backup", *where, *more])

    def told(self) -> dict[str, float]:
        """The file's samples: name (and state) → value."""
        families = text_string_to_metric_families(self.file.read_text())
        return {s.name + s.labels.get("state", ""): s.value for family in families for s in family.samples}


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Book(tmp_path)


def test_the_file_tells_how_it_ended_and_keeps_the_last_success(book: Book) -> None:
    to = ("--prom-file", str(book.file))
    assert book.check(60, *to) == 0
    good = book.told()
    assert good["aiprod_ops_check_status"] == 0
    assert good["aiprod_ops_data_age_seconds"] == 60
    assert good["aiprod_ops_check_findingsok"] == 1
    assert good[SUCCESS] == good["aiprod_ops_check_last_run_timestamp_seconds"]
    assert stat.S_IMODE(book.file.stat().st_mode) == 0o644
    assert book.check(9000, *to) == 2
    bad = book.told()
    assert (bad["aiprod_ops_check_status"], bad[SUCCESS]) == (2, good[SUCCESS])
    assert bad["aiprod_ops_check_last_run_timestamp_seconds"] > good[SUCCESS]
    assert book.check("no number", *to) == 3
    broken = book.told()
    assert (broken["aiprod_ops_check_status"], broken[SUCCESS]) == (3, good[SUCCESS])
    assert "aiprod_ops_data_age_seconds" not in broken
    assert book.check(5000, *to) == 1
    assert book.told()[SUCCESS] > good[SUCCESS]
    assert sorted(path.name for path in book.folder.iterdir()) == ["age", "books", "result.prom", "state"]


def test_prometheus_on_the_terminal_is_the_same_text(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    assert book.check(60, "-o", "prom", "--prom-file", str(book.file)) == 0
    assert capsys.readouterr().out == book.file.read_text()
    assert 'environment="production",runbook="old-backup",target="app@/nowhere:5432"' in book.file.read_text()


def test_options_make_another_series(book: Book) -> None:
    """Somebody who checks by hand with other limits must not renew the success of the scheduled check."""
    (book.folder / "books/old_backup.py").write_text(
        BOOK.replace("AGE", str(book.age))
        .replace(
            "book = ",
            "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Params:\n    x: int = 1\nbook = ",
        )
        .replace("owner=''", "owner='', params=Params")
    )
    assert book.check(9000, "--prom-file", str(book.file)) == 2
    assert book.check(60, "--x", "2") == 0
    assert book.check(9000, "--prom-file", str(book.file)) == 2
    assert SUCCESS not in book.told()


def test_a_name_that_node_exporter_would_not_read_is_refused(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    assert book.check(60, "--prom-file", str(book.folder / "result.txt")) == 3
    assert "does not end in .prom" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--prom-file", "/nowhere/at/all.prom"), "the metrics were not written: /nowhere/at/all.prom: No such file"),
        (("--push", "http://127.0.0.1:9"), "the metrics were not pushed: http://127.0.0.1:9 could not be reached"),
        (
            ("--push", "http://ops:hunter22@127.0.0.1:9/x"),
            "the metrics were not pushed: http://127.0.0.1:9/x could not",
        ),
        (("--push", "gateway:9091"), "'gateway:9091' is no address to push metrics to; expected http://HOST:PORT"),
    ],
)
@pytest.mark.parametrize(("age", "code"), [(60, 0), (9000, 2)])
def test_a_delivery_that_fails_is_said_and_changes_no_exit_code(
    book: Book, option: tuple[str, ...], says: str, age: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert book.check(age, *option) == code
    out, err = capsys.readouterr()
    assert says in err
    assert len(err.splitlines()) == 1
    assert "hunter22" not in out + err


@contextmanager
def endpoint(status: int) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str], str]]]]:
    """A server that answers everything with one status, and what it was sent."""
    seen: list[tuple[str, str, dict[str, str], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append((self.command, self.path, dict(self.headers), body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"try another one\n")

        do_POST = do_PUT = answer  # noqa: N815 http.server looks for these names

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_endpoint_with_a_path_gets_the_text(book: Book) -> None:
    with endpoint(204) as (address, seen):
        assert (
            book.check(60, "--push", f"http://ops:hunter22@{address}/api/v1/import", "--prom-file", str(book.file)) == 0
        )
    ((method, path, headers, body),) = seen
    assert (method, path, body) == ("POST", "/api/v1/import", book.file.read_text())
    assert headers["Authorization"].startswith("Basic ")
    assert headers["Content-Type"].startswith("text/plain")


def test_a_pushgateway_gets_a_group_for_each_runbook(book: Book) -> None:
    with endpoint(202) as (address, seen):
        assert book.check(60, "--push", f"http://{address}") == 0
        assert book.check(60, "--push", f"http://{address}/prefix/metrics/job/night") == 0
    (method, path, _, _), (_, prefixed, _, _) = seen
    assert method == "POST", "PUT would erase the last success that a machine forgot"
    assert path.startswith("/metrics/job/aiprod-ops/runbook/old-backup/target@base64/")
    assert prefixed.startswith("/prefix/metrics/job/night/runbook/old-backup/")


def test_a_refusal_is_told_with_its_reason(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(404) as (address, _):
        assert book.check(60, "--push", f"http://{address}/x") == 0
    assert "refused the metrics: 404 Not Found: try another one" in capsys.readouterr().err


def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    result = Result(Subject("a", "b", "c"), "check", Status.OK, datetime.now(UTC), Seconds(1), None)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match="within 100 ms"):
        prometheus.push(f"http://127.0.0.1:{silent.getsockname()[1]}", [result], Seconds(0.1))


def test_a_warning_may_count_as_ok_to_a_scheduler(book: Book) -> None:
    assert [book.check(age, "--warning-ok") for age in (60, 5000, 9000, "x")] == [0, 0, 2, 3]


def test_alone_ends_at_once_where_the_same_check_runs(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    assert book.check(60, "--alone", "--prom-file", str(book.file)) == 0
    before = book.file.read_text()
    with alone(FolderStore(book.folder / "state"), "app@/nowhere:5432", "old-backup", "the one before"):
        assert book.check(60, "--alone", "--prom-file", str(book.file)) == 3
        assert book.check(60) == 0, "by hand it may run beside it"
    assert "held by the one before" in capsys.readouterr().err
    assert book.file.read_text() == before, "the result is the other one's to tell"
    assert book.check(60, "--alone") == 0
