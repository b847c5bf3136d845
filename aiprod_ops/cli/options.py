"""Options that several commands share, and how a command line finds its runbook, target and world."""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:  # a command line that only prints its help loads no engine
    from aiprod_ops.engine.registry import Entry

F = TypeVar("F", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)
PASS_THROUGH = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"], "max_content_width": 120}


@dataclass(frozen=True)
class Where:
    """What the shared options say: configuration, target or DSNs, further folders of runbooks."""

    config: str = ""
    target: str = ""
    dsn: str = ""
    actor_dsn: str = ""
    backup_dsn: str = ""
    log: str = ""
    postgres_bin: str = ""
    runbooks: tuple[Path, ...] = ()


NOWHERE = Where()


def where(function: F) -> F:
    """Add the options that say where to work; the command gets one `where: Where`."""
    from functools import wraps

    names = ("config", "target", "dsn", "actor_dsn", "backup_dsn", "log", "postgres_bin", "runbooks")

    @wraps(function)
    def command(**given: Any) -> Any:
        chosen = Where(**{name: given.pop(name) for name in names})
        return function(where=chosen, **given)

    for option in reversed(_where_options()):
        command = option(command)
    return command  # type: ignore[return-value]


def not_empty(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    """An option that was given and is empty is a variable that nobody set, not the default."""
    if value == "" and _ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE:
        raise click.BadParameter("is empty: is a variable not set?")
    return value


def _where_options() -> list[Callable[[F], F]]:
    env = "AIPROD_OPS"
    return [
        click.option(
            "--target",
            default="",
            metavar="NAME",
            help="Instance from the configuration.",
            shell_complete=complete_target,
        ),
        click.option(
            "--dsn",
            default="",
            callback=not_empty,
            metavar="DSN",
            envvar=f"{env}_DSN",
            help="Instance to read (probe identity).",
        ),
        click.option(
            "--actor-dsn",
            default="",
            callback=not_empty,
            metavar="DSN",
            envvar=f"{env}_ACTOR_DSN",
            help="Identity that changes it.",
        ),
        click.option(
            "--backup-dsn",
            default="",
            callback=not_empty,
            metavar="DSN",
            envvar=f"{env}_BACKUP_DSN",
            help="Identity that copies it.",
        ),
        click.option("--log", default="", metavar="PATH", help="The server's JSON log, a file or a folder."),
        click.option("--postgres-bin", default="", metavar="DIR", help="PostgreSQL programs of the server's version."),
        click.option("--runbooks", multiple=True, type=_FOLDER, metavar="DIR", help="Further runbooks."),
        click.option("--config", default="", metavar="FILE", help="Configuration instead of the user's or the lab's."),
    ]


def output(*formats: str) -> Callable[[F], F]:
    """Add `-o`; the first format is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print."
    )


def complete_target(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of targets, for the shell."""
    from aiprod_ops import config

    return [name for name in config.load(ctx.params.get("config") or "").targets if name.startswith(incomplete)]


def complete_runbook(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of runbooks, for the shell."""
    from aiprod_ops import config
    from aiprod_ops.engine import registry

    folders = config.load(ctx.params.get("config") or "").runbook_folders
    return [name for name in registry.find(folders) if name.startswith(incomplete)]


def complete_run(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of runs, for the shell."""
    from aiprod_ops import config
    from aiprod_ops.adapters.files import FolderStore
    from aiprod_ops.engine.journal import runs

    store = FolderStore(config.load(ctx.params.get("config") or "").state)
    return [name for name in runs(store) if name.startswith(incomplete)]


def split_params(words: tuple[str, ...], entries: "Mapping[str, Entry]") -> tuple[list[str], dict[str, str]]:
    """Separate runbook ids from a runbook's own options (`--objective 300ms`, `--objective=300ms`).

    An option that is yes or no may stand alone: then it is yes. Raises click.UsageError for another without a value.
    """
    flags = {p.option for word in words if word in entries for p in entries[word].params if p.type == "bool"}
    names: list[str] = []
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        if not word.startswith("--"):
            raise click.UsageError(f"there is no option {word}")
        option, has_value, value = word.partition("=")
        if not has_value:
            if option in flags and not (rest and rest[0].lower() in _ANSWERS):
                value = "yes"
            elif rest:
                value = rest.pop(0)
            else:
                raise click.UsageError(f"option {word} needs a value")
        given[option[2:].replace("-", "_")] = value
    return names, given


_ANSWERS = ("yes", "no", "true", "false")


def repeated(where: Where) -> str:
    """The options that the next command needs again, so that it can be pasted. A DSN's password is redacted."""
    pairs = [("target", where.target), ("config", where.config), ("log", where.log)]
    pairs += [("dsn", where.dsn), ("actor-dsn", where.actor_dsn), ("backup-dsn", where.backup_dsn)]
    pairs += [("postgres-bin", where.postgres_bin), *(("runbooks", str(folder)) for folder in where.runbooks)]
    from_environment = {value for name, value in os.environ.items() if name.startswith("AIPROD_OPS_")}
    return "".join(
        f" --{name} {shlex.quote(value)}" for name, value in pairs if value and value not in from_environment
    )


def applying(entry: Any, plan: Any, where: Where) -> str:
    """The command that applies a plan."""
    return f"aiprod-ops run {entry.id} --apply {plan.digest[:12]}{confirming(entry, plan)}{repeated(where)}"


def confirming(entry: Any, plan: Any) -> str:
    """The option that a plan of a severe runbook needs besides its digest."""
    return f" --confirm {shlex.quote(plan.identity.target)}" if entry.book.risk == "severe" else ""


def spelled(given: Mapping[str, str]) -> str:
    """A runbook's own options as they were given, for the next command of the same runbook.

    >>> spelled({"least": "1", "keep_for": "a b"})
    " --least 1 --keep-for 'a b'"
    """
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in given.items())


_COMMAND = re.compile(
    r"""(?<![\w./])aiprod-ops\ (?:
      (?:list|runs\ list|evidence\ (?:list|verify))(?![\w-])
    | (?:check|plan|prove|run|drill|explain|resume|rollback|runs\ show|evidence\ show)\ (?:[a-z0-9][a-z0-9-]*|[A-Z]+)
    )(?:\ --[a-z-]+(?:[\ =][^\s`;,)-][^\s`;,)]*)?)*""",
    re.VERBOSE,
)


def pasteable(text: str, where: Where) -> str:
    """Text of a runbook or of the engine, which do not know where they work: each command in it gets the options that
    lead there. What follows a command has to be no word that looks like the value of its last option.

    >>> pasteable("a hope: `aiprod-ops plan take-backup --now` takes one; or aiprod-ops runs list", Where(target="a"))
    'a hope: `aiprod-ops plan take-backup --now --target a` takes one; or aiprod-ops runs list --target a'
    """
    options = repeated(where)
    return text if not options or options in text else _COMMAND.sub(lambda found: found[0] + options, text)
