"""The folder in which plans, journals and evidence are kept."""

from pathlib import Path

import pytest

from aiprod_ops.adapters.files import FolderStore


def test_names_are_sorted_and_those_of_whole_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.names("evidence/") == []
    for name in ("evidence/2.json", "evidence/1.json", "evidence/a/b/3.json", "runs/x"):
        store.put(name, b"x")
    (tmp_path / "evidence" / ".new").touch()
    assert store.names("evidence/") == ["evidence/1.json", "evidence/2.json", "evidence/a/b/3.json"]


def test_what_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    """A file in the place of the folder: to root no folder is closed."""
    (tmp_path / "evidence").touch()
    with pytest.raises(OSError, match="evidence"):
        FolderStore(tmp_path).names("evidence/")
