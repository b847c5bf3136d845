"""Sources for pages: the shipped runbooks and templates, with evidence and output made here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages_sources import NOW, Seal

from aiprod_ops import cli
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.cli import docs
from aiprod_ops.config import Settings
from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.pages import commands
from aiprod_ops.pages.sources import Sources, example


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """No configuration of the user's: what is shipped."""
    return Settings(state=tmp_path_factory.mktemp("state"), targets={})


@pytest.fixture(scope="session")
def bare(settings: Settings) -> Sources:
    """Everything but evidence and recorded output, whatever the repository has of them now; and the page's example."""
    made = docs.gather(settings)
    runbooks = {**made.runbooks, example().id: example()}
    reference = tuple(commands.walk(cli.cli))
    return replace(made, runbooks=runbooks, commands=reference, evidence=(), recorded={}, now=NOW)


@pytest.fixture
def seal(tmp_path: Path, bare: Sources) -> Seal:
    """Seal one more record below `tmp_path`, as the engine does."""

    def sealed(**body: Any) -> Sealed:
        whole = {
            "kind": "prove", "run": "run", "runbook": "add-missing-index", "digest": "d" * 64, "proves": "d" * 64,
            "source": bare.runbooks["add-missing-index"].source, "environment": "lab", "trigger": "command",
            "target": {"target": "lab", "system_identifier": "7", "database": "aiprod"}, "exit": 0, "by": "a@b",
            **body, "ended": body.get("ended", NOW).isoformat(),
        }  # fmt: skip
        return Archive(FolderStore(tmp_path)).seal(whole)

    return sealed


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own configuration decides what these tests see."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("AIPROD_OPS_CONFIG", raising=False)
