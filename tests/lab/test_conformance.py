"""The promises of every runbook, held by the shipped one and by a stranger's, on real servers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiprod_ops import cli
from aiprod_ops.cli.conform import on_bench
from aiprod_ops.cli.options import Where
from aiprod_ops.errors import Refused
from aiprod_ops.lab import bench as benches
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.bench import Bench
from aiprod_ops.lab.conformance import PROMISES, conform
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.promises import Promise, Result, Verdict, exit_code, hold
from aiprod_ops.pages.sources import site

pytestmark = pytest.mark.lab
STRANGERS = site() / "examples"
BOOKS = (("terminate-idle-sessions", "--limit", "0.5s"), ("add-missing-index",), ("verify-indexes",),
         ("take-backup", "--every", "0s"))  # fmt: skip
MEANINGLESS = {
    "terminate-idle-sessions": {"undo", "killed-while-proving"},  # irreversible, and no copy would tell anything
    "add-missing-index": set(),
    "verify-indexes": set(),
    "take-backup": {"killed-while-proving"},  # it proves nothing: test-backup does
}
SILENT = '''"""A runbook that only checks, and that nobody can provoke."""

from dataclasses import dataclass
from pathlib import Path

from aiprod_ops import api
from aiprod_ops.adapters import clock
from aiprod_ops.api import Context, Finding


@dataclass(frozen=True)
class Facts:
    role: str


book = api.Runbook(symptom="Nobody knows who we are", owner="nobody", risk="low")


@book.facts
def facts(ctx: Context, params: api.NoParams) -> Facts:
    return Facts(ctx.db.server().role)


@book.judge
def judge(facts: Facts, params: api.NoParams) -> list[Finding]:
    return [Finding("letters in the role", float(len(facts.role)))]
'''


@pytest.fixture(scope="module")
def quiet_lab(short_path: Path) -> Iterator[Fleet]:
    """A small lab without a workload, of these tests alone."""
    folder = short_path / "conform"
    yield fleets.up(folder, 20_000, workload=False)
    fleets.down(folder)


@pytest.fixture(scope="module", params=BOOKS, ids=lambda words: words[0])
def bench(request: pytest.FixtureRequest, quiet_lab: Fleet) -> Iterator[Bench]:
    with on_bench(quiet_lab, request.param, Where(runbooks=(STRANGERS,))) as made:
        yield made


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.id)
def test_promise(bench: Bench, promise: Promise) -> None:
    result = hold(bench, promise)
    expected = Verdict.NOT_APPLICABLE if promise.id in MEANINGLESS[bench.entry.id] else Verdict.HOLDS
    assert result.verdict is expected, f"{result.text}: {result.seen}"
    assert result.seen


def test_a_folder_of_the_configuration_gives_a_stranger_everything(
    quiet_lab: Fleet, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short_path / "strangers.toml"
    benches.write_config(config, short_path / "strangers", quiet_lab)
    config.write_text(f"runbooks = [{json.dumps(str(STRANGERS))}]\n{config.read_text()}")
    said = {}
    for words in (("list",), ("check", "ID"), ("plan", "ID"), ("explain", "ID")):
        line = [word.replace("ID", "terminate-idle-sessions") for word in words]
        assert cli.call([*line, "--config", str(config)]) == 0
        said[words[0]] = capsys.readouterr().out
    assert "folder" in next(line for line in said["list"].splitlines() if "terminate-idle-sessions" in line)
    assert said["check"].startswith("OK")
    assert said["plan"].startswith("Nothing to do")
    assert "--limit" in said["explain"]


def test_a_file_that_others_can_write_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group that holds nobody but its owner is no other, so the file belongs to another one here, where it can."""
    tmp_path.chmod(0o755)
    book = tmp_path / "who_are_we.py"
    book.write_text(SILENT)
    if os.geteuid() == 0:
        os.chown(book, -1, 54_321)
    book.chmod(0o664 if os.geteuid() == 0 else 0o666)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 78
    assert f"chmod go-w {book}" in capsys.readouterr().err
    book.chmod(0o644)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 0
    tmp_path.chmod(0o777)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 78


def held(quiet_lab: Fleet, folder: Path, name: str, text: str, *options: str) -> dict[str, Result]:
    """All promises against a runbook of this text, but those that wait for deaths."""
    folder.chmod(0o755)
    (folder / f"{name.replace('-', '_')}.py").write_text(text)
    with on_bench(quiet_lab, (name, *options), Where(runbooks=(folder,))) as bench:
        return {promise.id: hold(bench, promise) for promise in PROMISES if not promise.id.startswith("killed")}


def test_a_runbook_that_only_checks_makes_fewer_promises(quiet_lab: Fleet, tmp_path: Path) -> None:
    results = held(quiet_lab, tmp_path, "who-are-we", SILENT)
    meant = {"probe-writes-nothing", "no-secret", "exit-codes"}
    assert {result.promise for result in results.values() if result.verdict is Verdict.HOLDS} == meant
    assert (results["imports"].verdict, results["imports"].seen) == (Verdict.BROKEN, "it imports aiprod_ops.adapters")
    assert {r.verdict for r in results.values() if r.promise not in {*meant, "imports"}} == {Verdict.NOT_APPLICABLE}


def test_what_nobody_provokes_is_not_said_to_hold(quiet_lab: Fleet, tmp_path: Path) -> None:
    text = (STRANGERS / "terminate_idle_sessions.py").read_text().replace("@book.inject\n", "")
    results = held(quiet_lab, tmp_path, "end-sessions", text)
    checked = {result.promise for result in results.values() if result.verdict is not Verdict.NOT_CHECKED}
    assert checked == {"exit-codes", "imports"}
    assert "no inject" in results["undo"].seen
    assert exit_code(list(results.values())) == 1


def test_a_lab_where_others_work_is_refused(bench: Bench) -> None:
    """Their writes would be taken for the runbook's."""
    with bench.lab.connect("aiprod_app") as application:
        application.query("select 1")
        with pytest.raises(Refused, match="others work on this lab"):
            next(conform(bench))


def test_a_broken_promise_is_seen(quiet_lab: Fleet, tmp_path: Path) -> None:
    """The promises are worth nothing if they hold for a runbook that breaks them."""
    text = (STRANGERS / "terminate_idle_sessions.py").read_text() + _MISTAKES
    results = held(quiet_lab, tmp_path, "terminate-too-much", text, "--limit", "0.5s")
    meant = {"probe-writes-nothing", "exit-codes", "imports"}
    assert {result.promise for result in results.values() if result.verdict is Verdict.HOLDS} == meant, results
    assert "the plan is" in results["deterministic"].seen
    assert exit_code(list(results.values())) == 2


_MISTAKES = '''

import time

_planned = book.phases["plan"]


def _hasty(facts: Facts, params: Params) -> Iterator[Action]:
    """Plans something else each time it is asked."""
    for action in _planned(facts, params):
        yield Action(action.kind, action.subject, basis=time.time(), irreversible="a session does not come back")


book.phases["plan"] = _hasty
'''
