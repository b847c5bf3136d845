"""Writing the pages to disk, and letting MkDocs build the site from them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.pages.sources import site

_EPOCH = "SOURCE_DATE_EPOCH"  #: source: reproducible-builds.org, "SOURCE_DATE_EPOCH"


def write(pages: Mapping[str, str], folder: Path) -> None:
    """Make a folder hold exactly these pages. What is equal is not touched, so that a watcher sees only changes."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in pages:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != text.encode():
            path.write_bytes(text.encode())


def configuration(out: Path, navigation: list[dict[str, Any]], hook: Path | None = None) -> str:
    """MkDocs' configuration as YAML: what `site/mkdocs.yml` says, the places, and the order of the pages.

    JSON is YAML, and needs no other writer. With `hook` the pages are rendered again before each build.
    """
    own: dict[str, Any] = {
        "INHERIT": str(site() / "mkdocs.yml"),
        "docs_dir": str(out / "docs"),
        "site_dir": str(out / "site"),
        "nav": navigation,
    }
    if hook is not None:
        own |= {"hooks": [str(hook)], "watch": [str(site())]}
    return msgspec.json.format(msgspec.json.encode(own), indent=2).decode() + "\n"


def build(pages: Mapping[str, str], navigation: list[dict[str, Any]], out: Path) -> str:
    """Write the pages below `out/docs` and build `out/site`, strictly; answers what MkDocs said.

    Raises ConfigurationError without MkDocs, and when a link or an anchor leads nowhere.
    """
    out = prepare(pages, navigation, out)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "-f", str(out / "mkdocs.yml")]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        problems = [line for line in said.splitlines() if line.startswith(("WARNING", "ERROR", "Error"))]
        raise ConfigurationError("the site was not built:\n" + "\n".join(problems or said.splitlines()[-10:]))
    return said


def prepare(pages: Mapping[str, str], navigation: list[dict[str, Any]], out: Path, hook: Path | None = None) -> Path:
    """Write the pages and MkDocs' configuration below a folder; answers its absolute path."""
    if find_spec("material") is None or find_spec("mkdocs") is None:
        raise ConfigurationError("the site needs MkDocs and Material", hint="pip install 'aiprod-ops[docs]'")
    out = out.resolve()
    write(pages, out / "docs")
    (out / "mkdocs.yml").write_text(configuration(out, navigation, hook), encoding="utf-8")
    return out


def serve(out: Path, address: str) -> int:
    """Serve a prepared folder until Ctrl-C, building again whenever a source changes."""
    command = [sys.executable, "-m", "mkdocs", "serve", "--livereload", "-a", address, "-f", str(out / "mkdocs.yml")]
    return subprocess.run(command, env=_environment(), check=False).returncode


def _environment() -> dict[str, str]:
    """The same sources give the same bytes: no time of building in sitemap and gzip headers."""
    return {**os.environ, _EPOCH: os.environ.get(_EPOCH, "0"), "NO_MKDOCS_2_WARNING": "1"}
