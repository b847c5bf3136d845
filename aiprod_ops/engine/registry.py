"""Finding runbooks: shipped ones, folders the user names, installed distributions. Never the working directory."""

import grp
import hashlib
import importlib.util
import inspect
import io
import os
import pwd
import shlex
import stat
import sys
import tokenize
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from aiprod_ops.config import Promises
from aiprod_ops.engine.runbook import Runbook
from aiprod_ops.errors import ConfigurationError, OpsError, UsageError
from aiprod_ops.units import cores, count, milliseconds, number, ratio, seconds, show, size

_GROUP = "aiprod_ops.runbooks"
_UNITS = {"Seconds": "s", "Milliseconds": "ms", "Bytes": "B", "Ratio": "ratio"}


@dataclass(frozen=True)
class Param:
    """One option of a runbook: `--name`, the type's name (its unit), help, and the default or where it is promised.

    `least` and `most` are what it may be set to, where not every value of the type makes sense.
    """

    name: str
    type: str
    help: str
    default: Any
    promise: str
    least: float | None = None
    most: float | None = None

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    def read(self, raw: Any) -> Any:
        """A value as it was typed, or as `service.toml` has it. Raises ValueError saying what was expected."""
        value = _READERS.get(self.type, str)(raw)
        for limit, word, is_beyond in (
            (self.least, "least", self.least is not None and value < self.least),
            (self.most, "most", self.most is not None and value > self.most),
        ):
            if limit is not None and is_beyond:
                raise ValueError(f"{raw!r} makes no sense here, expected at {word} {show(limit, self._unit)}")
        return value

    @property
    def _unit(self) -> str:
        return _UNITS.get(self.type, "")


@dataclass(frozen=True)
class Entry:
    """A runbook that was found: its id is its file's name with hyphens; `source` is the file's SHA-256."""

    id: str
    path: Path
    origin: str
    source: str

    @cached_property
    def module(self) -> ModuleType:
        return _load(self.path, self.id)

    @cached_property
    def book(self) -> Runbook:
        book = getattr(self.module, "book", None)
        if not isinstance(book, Runbook):
            raise ConfigurationError(f"{self.path} has no `book = api.Runbook(…)`")
        try:
            book.check_complete()
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.path}: {error.message}") from error
        return book

    @property
    def page(self) -> str:
        """The module's docstring."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @cached_property
    def params(self) -> tuple[Param, ...]:
        """The options, in the order they are written; the help is the `#:` comment on the field's line."""
        hints = typing.get_type_hints(self.book.params)
        comments = _comments(self.path)
        return tuple(
            Param(
                field.name,
                getattr(hints[field.name], "__name__", str(hints[field.name])),
                comments.get(field.name, ""),
                None if field.default is MISSING else field.default,
                field.metadata.get("promise", ""),
                field.metadata.get("least"),
                field.metadata.get("most"),
            )
            for field in fields(self.book.params)
        )

    def read_params(self, given: dict[str, str], promises: Promises) -> Any:
        """The parameters: what was given, else what is promised, else the default.

        Raises UsageError for what was given, ConfigurationError for a promise that cannot be one.
        """
        values: dict[str, Any] = {}
        for param in self.params:
            if param.name in given:
                try:
                    values[param.name] = param.read(given[param.name])
                except ValueError as error:
                    raise UsageError(f"{param.option}: {error}") from error
            elif param.promise:
                try:
                    values[param.name] = param.read(promises.get(param.promise))
                except ValueError as error:
                    raise ConfigurationError(f"{param.promise} of {promises.origin}: {error}") from error
            elif param.default is None:
                raise UsageError(f"{self.id} needs {param.option}")
        try:
            return self.book.params(**values)
        except ValueError as error:  # the runbook's own `__post_init__`
            raise UsageError(f"{self.id}: {error}") from error

    def options(self, parameters: Mapping[str, Any], promises: Promises) -> str:
        """What has to be typed to have the parameters of a plan again: those that are not as they are by themselves."""
        names = {param.name: param.option for param in self.params}
        try:
            usual = msgspec.to_builtins(self.read_params({}, promises))
        except UsageError:  # one that has to be given
            usual = {}
        other = {name: value for name, value in parameters.items() if name in names and value != usual.get(name)}
        return "".join(
            f" {names[name]}" if value is True else f" {names[name]} {shlex.quote(str(value))}"
            for name, value in other.items()
        )


def _truth(text: str) -> bool:
    if str(text).lower() in ("true", "yes", "1"):
        return True
    if str(text).lower() in ("false", "no", "0"):
        return False
    raise ValueError(f"{text!r} is not yes or no")


_READERS: dict[str, Callable[[Any], Any]] = {
    "Seconds": seconds, "Milliseconds": milliseconds, "Bytes": size, "Ratio": ratio, "Cores": cores, "int": count,
    "float": number, "bool": _truth,
}  # fmt: skip


def find(folders: Iterable[Path] = ()) -> dict[str, Entry]:
    """All runbooks by id. Two of one name are an error: nobody should wonder which one runs."""
    found: dict[str, Entry] = {}
    shipped = Path(str(resources.files("aiprod_ops.runbooks")))
    doors = [(shipped, "shipped")]
    doors += [(Path(str(resources.files(e.value))), f"package {e.dist}") for e in metadata.entry_points(group=_GROUP)]
    doors += [(folder, "folder") for folder in folders]
    for folder, origin in doors:
        if not folder.is_dir():
            raise ConfigurationError(f"there is no folder of runbooks at {folder}")
        for path in sorted(folder.glob("[!_.]*.py")):
            entry = Entry(path.stem.replace("_", "-"), path, origin, _trusted_digest(path, origin))
            if entry.id in found:
                raise ConfigurationError(f"two runbooks are called {entry.id}: {found[entry.id].path} and {path}")
            found[entry.id] = entry
    return found


def pick(entries: dict[str, Entry], name: str) -> Entry:
    """A runbook by id; raises UsageError naming those that are there."""
    if name not in entries:
        raise UsageError(f"there is no runbook {name!r}; there are: {', '.join(sorted(entries))}")
    return entries[name]


def _trusted_digest(path: Path, origin: str) -> str:
    """SHA-256 of a runbook's file; one that somebody else could have written is refused."""
    if origin != "shipped":
        for place in (path, path.parent):
            if _others_can_write(place):
                raise ConfigurationError(f"{place} can be written by others", hint=f"chmod go-w {place}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _others_can_write(place: Path) -> bool:
    """By mode or by owner. A group that holds nobody but the owner is no other: umask 002 with user private groups."""
    seen = place.stat()
    if seen.st_uid not in (0, os.geteuid()) or seen.st_mode & stat.S_IWOTH:
        return True
    if not seen.st_mode & stat.S_IWGRP:
        return False
    try:
        owner, group = pwd.getpwuid(seen.st_uid), grp.getgrgid(seen.st_gid)
    except KeyError:
        return True
    is_private = (group.gr_gid, group.gr_name) == (owner.pw_gid, owner.pw_name)
    return not is_private or bool(set(group.gr_mem) - {owner.pw_name})


def _load(path: Path, name: str) -> ModuleType:
    module_name = f"aiprod_ops_runbook.{name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and type hints look their module up
    try:
        spec.loader.exec_module(module)
    except OpsError as error:
        raise ConfigurationError(f"{path}: {error.message}") from error
    except (SyntaxError, ImportError, NameError, TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _comments(path: Path) -> dict[str, str]:
    """`#:` comments by the first name on their line."""
    names: dict[int, str] = {}
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            names.setdefault(token.start[0], token.string)
        elif token.type == tokenize.COMMENT and token.string.startswith("#:"):
            found[names.get(token.start[0], "")] = token.string[2:].strip()
    return found
