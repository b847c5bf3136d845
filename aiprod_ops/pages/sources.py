"""All that the pages are made from: gathered once, then only looked at."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

from aiprod_ops import errors
from aiprod_ops.config import Promises
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.playbook import Playbook
from aiprod_ops.engine.registry import Entry
from aiprod_ops.errors import Broken
from aiprod_ops.pages.commands import Command
from aiprod_ops.pages.proofs import Record
from aiprod_ops.ports import Store
from aiprod_ops.units import seconds

EXAMPLE = "examples/terminate_idle_sessions.py"
OPENAPI = "openapi.json"
_DEMO = "add-missing-index"
_TEXTS = (".md", ".j2", ".py", ".css", ".svg")


@dataclass(frozen=True, slots=True)
class Sources:
    """`templates` are the files of `site/` by their path; `recorded` what a command printed, by runbook and name.

    `now` decides what is stale; nothing else looks at the time.
    """

    templates: Mapping[str, str]
    runbooks: Mapping[str, Entry]
    playbooks: Mapping[str, Playbook]
    promises: Promises
    commands: tuple[Command, ...]
    recorded: Mapping[str, Mapping[str, str]]
    evidence: tuple[Record, ...]
    now: datetime

    @property
    def max_age(self) -> timedelta:
        return timedelta(seconds=seconds(self.promises.get("evidence.max_age")))


@dataclass(frozen=True, slots=True)
class ExitCode:
    """One exit code of the commands that act."""

    value: int
    name: str
    meaning: str


def site() -> Path:
    """The folder of the templates, in a clone and in an installed package alike."""
    return Path(str(resources.files("aiprod_ops.site")))


def example() -> Entry:
    """The runbook that "write your own runbook" is built around. It is shown, not offered."""
    path = site() / EXAMPLE
    return Entry(path.stem.replace("_", "-"), path, "example", hashlib.sha256(path.read_bytes()).hexdigest())


def templates(folder: Path) -> dict[str, str]:
    """Every template, page, example and stylesheet below a folder, and the API's document, by relative path."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in _TEXTS and path.name != "__init__.py"]
    found.append(folder / OPENAPI)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in found}


def recorded(folder: Path) -> dict[str, dict[str, str]]:
    """What commands printed when they were recorded, by runbook and name.

    `NAME.txt` at the top is the demo's; other runbooks have a folder of their own, `RUNBOOK/NAME.txt`.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted((*folder.glob("*.txt"), *folder.glob("*/*.txt"))):
        runbook = _DEMO if path.parent == folder else path.parent.name
        found.setdefault(runbook, {})[path.stem] = path.read_text(encoding="utf-8").rstrip()
    return found


def evidence(store: Store, where: str, *, is_shipped: bool) -> tuple[Record, ...]:
    """All records of a store, oldest first. Raises Broken when the chain does not hold: no page may rest on it."""
    archive = Archive(store)
    if faults := archive.faults():
        raise Broken(
            f"the evidence in {where} was altered: {'; '.join(faults)}",
            hint="restore it from a backup; no page is made from evidence that does not hold",
        )
    return tuple(Record(name, sealed, is_shipped) for name, sealed in archive.read() if sealed is not None)


def exit_codes() -> list[ExitCode]:
    """The codes with the words beside them in `errors.Exit`."""
    text = inspect.getsource(errors.Exit)
    meanings = dict(re.findall(r"^\s+(\w+) = \d+\s+#: (.+)$", text, re.MULTILINE))
    return [ExitCode(int(code), code.name, meanings[code.name]) for code in errors.Exit]
