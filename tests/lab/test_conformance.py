"""The promises of every runbook, held by the shipped one and by a stranger's, on real servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiprod_ops import cli
from aiprod_ops.cli.conform import on_bench
from aiprod_ops.cli.options import Where
from aiprod_ops.lab import bench as benches
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.bench import Bench
from aiprod_ops.lab.conformance import PROMISES
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.promises import Promise, Verdict, exit_code, hold
from aiprod_ops.pages.sources import site

pytestmark = pytest.mark.lab
STRANGERS = site() / "examples"
BOOKS = (("terminate-idle-sessions", "--limit", "0.5s"), ("add-missing-index",))
MEANINGLESS = {
    "terminate-idle-sessions": {"undo", "killed-while-proving"},  # irreversible, and no copy would tell anything
    "add-missing-index": set(),
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
    tmp_path.chmod(0o755)
    book = tmp_path / "who_are_we.py"
    book.write_text(SILENT)
    book.chmod(0o664)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 78
    assert f"chmod go-w {book}" in capsys.readouterr().err
    book.chmod(0o644)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 0
    tmp_path.chmod(0o777)
    assert cli.call(["list", "--runbooks", str(tmp_path)]) == 78


def test_what_cannot_be_seen_is_not_said_to_hold(quiet_lab: Fleet, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "who_are_we.py").write_text(SILENT)
    with on_bench(quiet_lab, ("who-are-we",), Where(runbooks=(tmp_path,))) as bench:
        results = {promise.id: hold(bench, promise) for promise in PROMISES}
    assert results["probe-writes-nothing"].verdict is Verdict.NOT_CHECKED
    assert "no inject" in results["probe-writes-nothing"].seen
    assert results["undo"].verdict is Verdict.NOT_APPLICABLE
    assert results["exit-codes"].verdict is Verdict.HOLDS
    assert results["imports"].verdict is Verdict.BROKEN
    assert results["imports"].seen == "it imports aiprod_ops.adapters"
    assert exit_code(list(results.values())) == 2
    assert exit_code([r for r in results.values() if r.verdict is not Verdict.BROKEN]) == 1


def test_a_broken_promise_is_seen(quiet_lab: Fleet, tmp_path: Path) -> None:
    """The promises are worth nothing if they hold for a runbook that breaks them."""
    tmp_path.chmod(0o755)
    book = tmp_path / "terminate_too_much.py"
    text = (STRANGERS / "terminate_idle_sessions.py").read_text()
    book.write_text(text + _MISTAKES)
    with on_bench(quiet_lab, ("terminate-too-much", "--limit", "0.5s"), Where(runbooks=(tmp_path,))) as bench:
        results = {p.id: hold(bench, p) for p in PROMISES if p.id in ("deterministic", "apply-once", "exit-codes")}
    assert results["deterministic"].verdict is Verdict.BROKEN
    assert results["apply-once"].verdict is Verdict.BROKEN
    assert results["exit-codes"].verdict is Verdict.HOLDS


_MISTAKES = '''

import time

_planned = book.phases["plan"]


def _hasty(facts: Facts, params: Params) -> Iterator[Action]:
    """Plans something else each time it is asked."""
    for action in _planned(facts, params):
        yield Action(action.kind, action.subject, basis=time.time(), irreversible="a session does not come back")


book.phases["plan"] = _hasty
'''
