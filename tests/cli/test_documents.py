"""Documents are tested: every command they print is parsed by the real command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiprod_ops import cli
from aiprod_ops.cli import docs
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.pages import commands, publish
from aiprod_ops.pages.render import render
from aiprod_ops.pages.sources import Sources, example

ROOT = Path(__file__).parents[2]
WRITTEN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "playbooks").glob("*.md")),
    *sorted((ROOT / "site").rglob("*.md")),
    *sorted((ROOT / "site").rglob("*.md.j2")),
]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, no state but an empty folder's."""
    for name in [name for name in os.environ if name.startswith("AIPROD_OPS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def everything() -> Sources:
    return docs.gather_all()


@pytest.mark.parametrize("path", [path for path in WRITTEN if ".md.j2" not in path.name], ids=lambda path: path.name)
def test_every_command_in_a_written_document_parses(path: Path, everything: Sources) -> None:
    assert docs.misprints(path.name, path.read_text(), everything) == []


def test_every_command_on_every_page_parses(everything: Sources) -> None:
    pages = {name: text for name, text in render(everything).items() if name.endswith(".md")}
    assert [wrong for name, text in pages.items() for wrong in docs.misprints(name, text, everything)] == []
    assert sum(len(list(commands.printed(text))) for text in pages.values()) > 20, "no commands were found at all"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "No such command"),
        ("runs", "Usage: aiprod-ops runs [OPTIONS] COMMAND"),
        ("runs nonsense", "No such command"),
        ("runs show", "Missing argument"),
        ("plan no-such-runbook", "there is no runbook no-such-runbook"),
        ("plan add-missing-index --no-such-option 1", "has no option --no-such-option"),
        ("plan add-missing-index --objective", "needs a value"),
        ("explain no-such-page", "there is no page no-such-page"),
        ("runs list --no-such-option", "No such option"),
        ("check add-missing-index -o yaml", "is not one of"),
    ],
)
def test_a_wrong_command_is_found(line: str, says: str, everything: Sources) -> None:
    text = f"# Title\n\n```sh\naiprod-ops {line}\n```\n"
    assert [says in wrong and wrong.startswith("a.md:4: ") for wrong in docs.misprints("a.md", text, everything)] == [
        True
    ]


def test_the_reference_holds_every_command(everything: Sources) -> None:
    paths = {command.path for command in everything.commands}
    assert {"check", "run", "runs show", "evidence verify", "lab up", "docs build"} <= paths
    assert {path.split()[0] for path in paths} == set(cli.cli.list_commands(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["add-missing-index", "high-api-latency"])
def test_explain_prints_the_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["explain", name]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("# ")
    assert "aiprod-ops check add-missing-index" in out
    assert ".md)" not in out, "a terminal cannot follow a link to another page"
    assert err == ""


def test_the_page_tells_what_its_columns_are(everything: Sources) -> None:
    page = render(everything)["runbooks/slow-queries.md"]
    assert "`BREAKS` names the promises that a statement does not keep" in page


def test_choices_are_shown_without_backslashes(everything: Sources) -> None:
    assert "| `-o, --output [text|json|nagios|prom]` |" in render(everything)["cli.md"]


def test_explain_shows_a_runbook_of_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "books").mkdir(mode=0o700)
    mine = tmp_path / "books/end_them.py"
    mine.write_text(example().path.read_text())
    mine.chmod(0o600)
    assert cli.call(["explain", "end-them", "--runbooks", str(mine.parent)]) == 0
    assert "`--limit`" in capsys.readouterr().out


def test_explain_leaves_altered_evidence_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state/evidence").mkdir(parents=True)
    (tmp_path / "state/evidence/000001-run.json").write_text("{}")
    assert cli.call(["explain", "add-missing-index"]) == 0
    out, err = capsys.readouterr()
    assert "000001-run.json" in err
    assert out.startswith("# ")


def test_explain_names_the_pages_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["explain", "nonsense"]) == 64
    pages = capsys.readouterr().err.rpartition("there are: ")[2].strip().split(", ")
    assert {"add-missing-index", "slow-queries", "high-api-latency"} <= set(pages)


def test_list_shows_playbooks_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["list"]) == 0
    assert "high-api-latency" in capsys.readouterr().out


def test_docs_build_works_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aiprod_ops", "docs", "build", "--out", "here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here/site/index.html").is_file()
    assert (tmp_path / "here/docs/index.md").is_file()


def test_a_link_or_an_anchor_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    page = "# Title\n\n[gone](nowhere.md) [away](#somewhere)\n"
    with pytest.raises(ConfigurationError, match=r"(?s)'nowhere\.md'.*'#somewhere'"):
        publish.build({"index.md": page}, [{"Start": "index.md"}], tmp_path)
