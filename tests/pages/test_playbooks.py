"""Playbooks: what a file says, and an error that names file and line for what it cannot say."""

from pathlib import Path

import pytest

from aiprod_ops.engine import playbook
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.pages.render import commands_as_shell

GOOD = """+++
symptom = "It is slow"
alerts = ["Slow"]
+++
## 1. Look

```ops
check add-missing-index --objective 300ms
runs list
```
"""


def load(folder: Path, text: str) -> playbook.Playbook:
    path = folder / "it_is_slow.md"
    path.write_text(text)
    return playbook.load(path)


def test_a_playbook_is_what_its_file_says(tmp_path: Path) -> None:
    book = load(tmp_path, GOOD)
    assert (book.id, book.symptom, book.impact, book.alerts) == ("it-is-slow", "It is slow", "", ("Slow",))
    assert [(command.words[0], command.line) for command in book.commands] == [("check", 8), ("runs", 9)]
    assert book.body.startswith("## 1. Look")
    assert "add-missing-index" in book.runbooks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# no front matter", r"it_is_slow\.md:1: expected"),
        ('+++\nsymptom = "x"\n', r"it_is_slow\.md:2: the front matter has no closing"),
        ("+++\nalerts = []\nsymptom = x\n+++\n", r"it_is_slow\.md:3: the front matter is not TOML"),
        ("+++\nalerts = []\n+++\n", r"it_is_slow\.md:1: the front matter has no symptom"),
        ('+++\nsymptom = "x"\nsevere = 1\n+++\n', r"it_is_slow\.md:3: unknown key 'severe'"),
        ('+++\nsymptom = "x"\nalerts = "a"\n+++\n', r"it_is_slow\.md:3: alerts is 'a', expected a list"),
        (GOOD.replace("runs list", "runs 'list"), r"it_is_slow\.md:9: .* is not a command line"),
        (GOOD.replace("runs list", "aiprod-ops runs list"), r"it_is_slow\.md:9: .*leave that word out"),
        (GOOD.removesuffix("```\n"), r"it_is_slow\.md:7: this block is never closed"),
    ],
)
def test_an_error_names_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load(tmp_path, text)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it_is_slow.md"
    path.write_bytes(b"+++\n\xff\n+++\n")
    with pytest.raises(ConfigurationError, match="cannot be read as a playbook"):
        playbook.load(path)


def test_a_folder_of_the_user_may_hold_playbooks_and_a_readme(tmp_path: Path) -> None:
    load(tmp_path, GOOD)
    (tmp_path / "README.md").write_text("# Ours\n")
    found = playbook.find([tmp_path])
    assert found["it-is-slow"].origin == "folder"
    assert {book.origin for name, book in found.items() if name != "it-is-slow"} == {"shipped"}


def test_two_of_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "high_api_latency.md").write_text(GOOD)
    with pytest.raises(ConfigurationError, match="two playbooks are called high-api-latency"):
        playbook.find([tmp_path])


def test_only_ops_blocks_become_commands() -> None:
    text = "```sql\nselect 1\n```\n\n````md\n```ops\ninside\n```\n````\n"
    assert [block.language for block in playbook.blocks(text)] == ["sql", "md"]
    assert (
        commands_as_shell("```ops\ncheck a\n\nruns list\n```")
        == "```sh\naiprod-ops check a\n\naiprod-ops runs list\n```"
    )
