"""The pages: one for each runbook and playbook, the same bytes each time, and no figure without evidence."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import jinja2
import pytest
from pages_sources import NOW, Seal, comparison

from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.cli import outcomes
from aiprod_ops.errors import Broken, Exit
from aiprod_ops.pages import publish, sources
from aiprod_ops.pages.render import navigation, page, render
from aiprod_ops.pages.sources import Sources

PAGE = "runbooks/add-missing-index.md"


def shown(bare: Sources, folder: Path, *, is_shipped: bool = True) -> Sources:
    return replace(bare, evidence=sources.evidence(FolderStore(folder), "here", is_shipped=is_shipped))


def test_there_is_a_page_for_each_runbook_and_playbook(bare: Sources) -> None:
    pages = render(bare)
    wanted = {f"runbooks/{name}.md" for name in bare.runbooks} | {f"playbooks/{name}.md" for name in bare.playbooks}
    assert wanted <= pages.keys()
    assert {
        "index.md",
        "cli.md",
        "exit-codes.md",
        "evidence.md",
        "write-your-own.md",
        "architecture.md",
    } <= pages.keys()
    assert {entry.book.symptom in pages["index.md"] for entry in bare.runbooks.values()} == {True}


def test_the_same_sources_give_the_same_bytes(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal(comparisons=[comparison("buffers", 8.0)])
    made = shown(bare, tmp_path)
    assert render(made) == render(made)


def test_every_page_is_in_the_navigation(bare: Sources) -> None:
    text = str(navigation(bare))
    assert [name for name in render(bare) if name.endswith(".md") and f"'{name}'" not in text] == []


def test_without_evidence_no_page_shows_a_proof(bare: Sources) -> None:
    text = render(bare)[PAGE]
    assert "**Never proven on a restored copy.**" in text
    assert "**Never drilled (due every 30 d).**" in text
    assert "Last proven" not in text
    assert "×" not in text.split("## Background")[0]
    assert "**NEVER**" in render(bare)["evidence.md"]


def test_what_is_proven_is_what_was_planned(bare: Sources) -> None:
    for name in ("runbooks/add-missing-index.md", "runbooks/verify-indexes.md", "playbooks/high-api-latency.md"):
        proofs = re.findall(r"^aiprod-ops prove .*$", render(bare)[name], re.MULTILINE)
        assert proofs, name
        assert [line for line in proofs if not line.endswith(" --plan DIGEST")] == []


def test_what_was_not_recorded_says_so(bare: Sources) -> None:
    assert "*Not recorded yet.*" in render(bare)[PAGE]
    recorded = replace(bare, recorded={"add-missing-index": {"check": "CRITICAL  as it was printed"}})
    first_screen = render(recorded)[PAGE].partition("## ")[0]
    assert "```text\nCRITICAL  as it was printed\n```" in first_screen
    assert "Not recorded" not in first_screen


def test_a_proof_has_its_date_place_record_and_figures(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    sealed = seal(comparisons=[comparison("buffers", gain) for gain in (2.0, 8.0, 400.0)])
    text = render(shown(bare, tmp_path))[PAGE]
    assert (
        f"Last proven on a restored copy 2026-11-21 on **lab**: evidence 1, seal `{sealed.seal[:12]}`,"
        " counts until 2026-12-21." in text
    )
    assert "buffers: 8.00 × less (median of 3 comparisons, 2.00 × to 400 ×; 5 runs each)" in text


def test_a_proof_that_is_too_old_is_stale(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal(ended=NOW - timedelta(days=31))
    pages = render(shown(bare, tmp_path))
    assert "**STALE since 2026-11-20.** Last proven on a restored copy 2026-10-21" in pages[PAGE]
    assert "**STALE since 2026-11-20**" in pages["evidence.md"]


def test_a_proof_of_another_version_says_so(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal()
    assert "has changed since" not in render(shown(bare, tmp_path))[PAGE]
    seal(kind="run", source="0" * 64)
    assert "Last applied and verified 2026-11-21 on **lab**" in render(shown(bare, tmp_path))[PAGE]
    assert render(shown(bare, tmp_path))[PAGE].count("**The runbook's file has changed since.**") == 1


def test_lab_and_production_are_told_apart(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal(run="one")
    production = {"target": "db1", "system_identifier": "8", "database": "shop"}
    seal(run="two", environment="production", target=production, kind="run", ended=NOW - timedelta(days=2))
    text = render(shown(bare, tmp_path))[PAGE]
    assert "Last proven on a restored copy 2026-11-21 on **lab**" in text
    assert "Last applied and verified 2026-11-19 on **production (db1)**" in text
    assert "Last proven on a restored copy 2026-11-21 on **production" not in text


@pytest.mark.parametrize(
    "body",
    [{"proves": "", "refused": {"a": "worse"}, "exit": 10}, {"kind": "run", "exit": 21}, {"runbook": "another"}],
    ids=["disproved", "partly", "of another runbook"],
)
def test_what_failed_proves_nothing(bare: Sources, seal: Seal, tmp_path: Path, body: dict[str, object]) -> None:
    seal(**body)
    assert "Last " not in render(shown(bare, tmp_path))[PAGE]


def test_a_drill_shows_its_rto(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal(kind="drill", trigger="drill", drill={"rto_s": 24.31})
    page = render(shown(bare, tmp_path))[PAGE]
    assert "Last drilled (due every 30 d) 2026-11-21 on **lab**, RTO 24.3 s" in page


def test_altered_evidence_is_refused(seal: Seal, tmp_path: Path) -> None:
    seal()
    path = next((tmp_path / "evidence").glob("*.json"))
    path.write_bytes(path.read_bytes().replace(b'"by":"a@b"', b'"by":"c@d"'))
    with pytest.raises(Broken, match=f"evidence in here was altered: {path.name}"):
        sources.evidence(FolderStore(tmp_path), "here", is_shipped=True)


def test_only_shipped_evidence_is_published(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal()
    record = shown(bare, tmp_path).evidence[0]
    file = f"evidence/{record.file}"
    assert render(shown(bare, tmp_path))[file].encode() == (tmp_path / file).read_bytes()
    mine = render(shown(bare, tmp_path, is_shipped=False))
    assert file not in mine
    assert f"`{record.file}`" in mine["evidence.md"]


def test_every_word_a_run_can_end_with_is_explained(bare: Sources) -> None:
    text = render(bare)[PAGE]
    ends = {words.partition(",")[0].partition(";")[0].partition(" before")[0] for words in outcomes._WORDS.values()}
    assert {words for words in ends if words not in text} == set()
    codes = {int(code) for code in outcomes._WORDS}
    assert {code for code in codes if not re.search(rf"\| (\d+, )?{code}\b", text)} == set()


def test_every_exit_code_is_on_its_page(bare: Sources) -> None:
    text = render(bare)["exit-codes.md"]
    assert {code for code in Exit if f"`{code.name}`" not in text} == set()


def test_every_option_is_on_the_page(bare: Sources) -> None:
    for entry in bare.runbooks.values():
        text = render(bare)[f"runbooks/{entry.id}.md"]
        assert {param.option for param in entry.params if f"`{param.option}`" not in text} == set()
        assert {param.name for param in entry.params if not param.help or param.help not in text} == set()


def test_a_template_cannot_use_what_is_not_there(bare: Sources) -> None:
    broken = replace(bare, templates={**bare.templates, "runbook.md.j2": "{{ entry.nonsense }}"})
    with pytest.raises(jinja2.UndefinedError):
        render(broken)


def test_the_example_stands_on_its_page_as_it_is(bare: Sources) -> None:
    text = (sources.site() / "examples/terminate_idle_sessions.py").read_text()
    assert f"```python\n{text}```" in render(bare)["write-your-own.md"]


def test_the_page_for_the_terminal_has_nothing_for_mkdocs(bare: Sources) -> None:
    assert page(bare, bare.runbooks["add-missing-index"]).startswith("# Pages are slow")
    text = page(bare, bare.playbooks["high-api-latency"])
    assert text.startswith("# API latency")
    assert "```sh\naiprod-ops check add-missing-index\n```" in text
    assert "```ops" not in text


def test_writing_removes_what_is_gone_and_leaves_what_is_equal(tmp_path: Path) -> None:
    publish.write({"a.md": "a", "b/c.md": "c"}, tmp_path)
    before = (tmp_path / "a.md").stat().st_mtime_ns
    publish.write({"a.md": "a", "d.md": "d"}, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.md", "d.md"]
    assert (tmp_path / "a.md").stat().st_mtime_ns == before


def test_the_site_is_built_strictly_and_byte_for_byte_the_same(bare: Sources, seal: Seal, tmp_path: Path) -> None:
    seal(comparisons=[comparison("ms", 3.0)])
    made = shown(bare, tmp_path)
    built = []
    for name in ("one", "two"):
        publish.build(render(made), navigation(made), tmp_path / name)
        folder = tmp_path / name / "site"
        built.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert built[0] == built[1]
    assert "runbooks/add-missing-index/index.html" in built[0]
    html = b"".join(text for name, text in built[0].items() if name.endswith(".html"))
    assert re.findall(rb'(?:src|href)="(?:https?:)?//[^"]*"', html) == [], "a page asks somebody else's server"


def test_what_is_recorded_names_no_folder_of_whoever_recorded_it() -> None:
    """Sealed evidence cannot be edited afterwards: the lab has to stand elsewhere when it is recorded."""
    recorded = Path(__file__).parents[2] / "site" / "recorded"
    told = {path.name for path in recorded.rglob("*") if path.is_file() and "/build/demo" in path.read_text()}
    assert told == set()
