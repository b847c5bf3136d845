"""Playbooks: one symptom a file, in prose, with commands that are checked and that point to runbooks.

A playbook is Markdown with TOML between two lines of `+++` at its top, and fenced blocks of the language `ops`. Each
line of such a block is what follows `aiprod-ops` on a command line.
"""

import hashlib
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from aiprod_ops.errors import ConfigurationError

_MARK = "+++"
_KEYS = {"symptom": str, "impact": str, "alerts": list}
_FENCE = re.compile(r"(`{3,}|~{3,})\s*([\w-]*)(.*)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of Markdown: its language, its lines, and the number of the first of them, counted from 1."""

    language: str
    lines: tuple[str, ...]
    first: int
    is_closed: bool = True


@dataclass(frozen=True, slots=True)
class Printed:
    """One command that a document prints: the words after `aiprod-ops`, and the line it stands on."""

    words: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Playbook:
    """What a playbook's file says; `source` is the SHA-256 of the file, `body` the prose behind the front matter."""

    id: str
    path: Path
    origin: str
    source: str
    symptom: str
    impact: str
    alerts: tuple[str, ...]
    body: str
    commands: tuple[Printed, ...]

    @property
    def runbooks(self) -> tuple[str, ...]:
        """Words of its commands that may be ids of runbooks, in order, each once."""
        return tuple(dict.fromkeys(word for command in self.commands for word in command.words if "-" in word[1:]))


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, in order; a fence inside a longer one is text.

    >>> [(block.language, block.lines, block.first) for block in blocks("a\\n```ops\\ncheck x\\n```\\n")]
    [('ops', ('check x',), 3)]
    """
    fence, language, lines, first = "", "", list[str](), 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        found = _FENCE.fullmatch(stripped)
        if not fence and found is not None:
            fence, language, lines, first = found[1], found[2], [], number + 1
        elif fence and stripped.startswith(fence) and set(stripped) == {fence[0]}:
            yield Block(language, tuple(lines), first)
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield Block(language, tuple(lines), first, is_closed=False)


def load(path: Path, origin: str = "folder") -> Playbook:
    """Read a playbook. Raises ConfigurationError naming file and line."""
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as a playbook: {error}") from error
    head, body, offset = _split(path, text)
    table = _front_matter(path, head)
    return Playbook(
        id=path.stem.replace("_", "-"),
        path=path,
        origin=origin,
        source=hashlib.sha256(content).hexdigest(),
        symptom=table["symptom"],
        impact=table.get("impact", ""),
        alerts=tuple(table.get("alerts", ())),
        body=body.strip() + "\n",
        commands=tuple(_commands(path, body, offset)),
    )


def find(folders: Iterable[Path] = ()) -> dict[str, Playbook]:
    """All playbooks by id: the shipped ones, and the Markdown files with front matter in the user's folders.

    A Markdown file without front matter (a README) is no playbook. Two of one name are an error.
    """
    found: dict[str, Playbook] = {}
    shipped = Path(str(resources.files("aiprod_ops.playbooks")))
    for folder, origin in ((shipped, "shipped"), *((folder, "folder") for folder in folders)):
        for path in sorted(folder.glob("[!_.]*.md")):
            if origin != "shipped" and not path.read_bytes().startswith(_MARK.encode()):
                continue
            playbook = load(path, origin)
            if playbook.id in found:
                raise ConfigurationError(
                    f"two playbooks are called {playbook.id}: {found[playbook.id].path} and {path}"
                )
            found[playbook.id] = playbook
    return found


def _split(path: Path, text: str) -> tuple[str, str, int]:
    """Front matter, prose, and how many lines stand before the prose."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != _MARK:
        raise ConfigurationError(f'{path}:1: expected "{_MARK}", the front matter of a playbook')
    for number, line in enumerate(lines[1:], start=2):
        if line.rstrip() == _MARK:
            return "\n".join(lines[1 : number - 1]), "\n".join(lines[number:]), number
    raise ConfigurationError(f'{path}:{len(lines)}: the front matter has no closing "{_MARK}"')


def _front_matter(path: Path, head: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(head)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) + 1 if found else head.count("\n") + 2
        raise ConfigurationError(f"{path}:{line}: the front matter is not TOML: {error}") from error
    for key, value in table.items():
        line = next((n for n, text in enumerate(head.splitlines(), start=2) if text.lstrip().startswith(key)), 2)
        if key not in _KEYS:
            raise ConfigurationError(f"{path}:{line}: unknown key {key!r}; known are {', '.join(sorted(_KEYS))}")
        if not isinstance(value, _KEYS[key]):
            raise ConfigurationError(f"{path}:{line}: {key} is {value!r}, expected a {_KEYS[key].__name__}")
    if not table.get("symptom"):
        raise ConfigurationError(f"{path}:1: the front matter has no symptom", hint='add symptom = "what people see"')
    return table


def _commands(path: Path, body: str, offset: int) -> Iterator[Printed]:
    for block in blocks(body):
        if not block.is_closed:
            raise ConfigurationError(f"{path}:{offset + block.first - 1}: this block is never closed")
        if block.language != "ops":
            continue
        for number, line in enumerate(block.lines, start=offset + block.first):
            if line.strip():
                yield Printed(_words(f"{path}:{number}", line), number)


def _words(where: str, line: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise ConfigurationError(f"{where}: {line.strip()!r} is not a command line: {error}") from error
    if words[0] == "aiprod-ops":
        raise ConfigurationError(f"{where}: a line of an ops block is what follows `aiprod-ops`; leave that word out")
    return words
