"""What the wheel holds, and that it works where nothing else of the repository is."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPPED = ("runbooks", "playbooks", "migrations", "site")

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks and what is new, as a stranger's `pip install .` would."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it requires, and nothing else."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin/pip", "install", "--quiet", str(wheel)], check=True, capture_output=True)
    return home / "bin"


def tracked(folder: str) -> set[str]:
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    return {name for name in files if (ROOT / name).is_file()}


def test_every_file_of_the_mapped_folders_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in MAPPED:
        missing = {name for name in tracked(folder) if f"aiprod_ops/{name}" not in names}
        assert not missing, f"not in the wheel: {sorted(missing)}"
    assert {name.split("/")[0] for name in names} == {"aiprod_ops", "aiprod_ops-0.1.0.dist-info"}, "a folder leaked"


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in tracked("aiprod_ops") if name not in names} == set()


def test_the_installed_list_equals_the_repository(installed: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        [installed / "aiprod-ops", "list", "-o", "json"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    ids = {row["id"] for row in json.loads(listed) if row["kind"] == "runbook"}
    assert ids == {path.stem.replace("_", "-") for path in (ROOT / "runbooks").glob("[!_]*.py")}
    assert all(row["origin"] == "shipped" for row in json.loads(listed) if row["kind"] == "runbook")


@pytest.mark.parametrize(("words", "extra"), [(["lab", "up", "--folder", "lab"], "lab"), (["serve"], "service")])
def test_a_missing_extra_is_named(installed: Path, tmp_path: Path, words: list[str], extra: str) -> None:
    run = subprocess.run([installed / "aiprod-ops", *words], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 78
    assert f"aiprod-ops[{extra}]" in run.stderr
