"""Evidence and journals, shown so that people can read them."""

import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from aiprod_ops import cli
from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.domain.findings import Finding
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal

BODY = {
    "run": "20261121-x",
    "kind": "run",
    "runbook": "books",
    "ended": datetime(2026, 11, 21, tzinfo=UTC).isoformat(),
    "target": {"target": "lab", "database": "aiprod"},
    "environment": "lab",
    "exit": 0,
    "digest": "ab" * 32,
    "steps": [{"name": "a", "state": "changed"}, {"name": "b", "state": "unchanged"}],
    "notes": ["first", "second"],
    "why": "",
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    for name in [name for name in os.environ if name.startswith("AIPROD_OPS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return FolderStore(tmp_path / "state")


def test_evidence_show(store: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    sealed = Archive(store).seal(BODY)
    assert cli.call(["evidence", "show", "1"]) == 0
    out = capsys.readouterr().out
    assert "target:\n  database: aiprod\n  target: lab\n" in out
    assert "steps:\n  - name: a\n    state: changed\n  - name: b\n    state: unchanged\n" in out
    assert "notes: first, second\n" in out
    assert f"seal: {sealed.seal}\n" in out
    assert "why" not in out
    assert "{" not in out
    assert cli.call(["evidence", "show", "1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "n": 1, "previous": "", "seal": sealed.seal, "body": sealed.body, "holds": True,
    }  # fmt: skip


def test_evidence_that_was_altered_is_shown_as_such(store: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    Archive(store).seal(BODY)
    (name,) = [name for name in store.names("evidence/") if name.endswith(".json")]
    store.put(name, (store.get(name) or b"").replace(b'"exit":0', b'"exit":1'))
    assert cli.call(["evidence", "show", "1"]) == 2
    assert "CRITICAL  record 1 was altered" in capsys.readouterr().out


def test_evidence_that_is_not_there(store: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["evidence", "show", "9"]) == 3, "like a check that could not look"
    assert "there is no record 9 of evidence" in capsys.readouterr().err


def test_runs_show(store: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(store, SystemClock(), "20261121-x")
    journal.write("opened", runbook="books", by="me", why="", target={"target": "lab", "database": "aiprod"})
    journal.write("intended", step=0)
    journal.write("outcome", step=0, state="changed", seconds=0.6638074809998216)
    valid, lag = Finding("idx_a is valid", 0.0, "grade", crit=1), Finding("lag", 12.04, "s", 5, 30, note="of b")
    journal.write(
        "verified", findings=[asdict(valid), asdict(lag), asdict(replace(valid, value=1.0, note="it is not"))]
    )
    journal.write("sealed", seal="ab" * 32)
    journal.write("ended", exit=0)
    assert cli.call(["runs", "show", "20261121-x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  1  20")
    assert lines[0].endswith("opened     by me, runbook books") or lines[0].endswith("opened     runbook books, by me")
    assert [line.strip() for line in lines[1:4]] in (
        ["target:", "target: lab", "database: aiprod"],
        ["target:", "database: aiprod", "target: lab"],
    )
    assert lines[4].endswith("intended   step 0")
    assert set(lines[5].split("outcome ")[1].strip().split(", ")) == {"took 664 ms", "state changed", "step 0"}
    assert lines[6].endswith("verified")
    assert [click.unstyle(line).strip() for line in lines[7:11]] == [
        "findings:", "OK  idx_a is valid", "WARNING  lag: 12.0 s (of b)", "CRITICAL  idx_a is valid (it is not)",
    ]  # fmt: skip
    assert lines[11].endswith("sealed     seal abababababab")
    assert lines[12].endswith("ended      exit 0")
