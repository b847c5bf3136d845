"""The command line as documents see it: a reference made from the commands, and a check of what is printed."""

import inspect
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import click

from aiprod_ops.engine.playbook import Printed, blocks

PROGRAM = "aiprod-ops"


@dataclass(frozen=True, slots=True)
class Option:
    """One option or argument, as `--help` shows it."""

    name: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command with all that `--help` says of it."""

    path: str
    usage: str
    help: str
    options: tuple[Option, ...]


def walk(root: click.Command, parent: click.Context | None = None, name: str = PROGRAM) -> Iterator[Command]:
    """Every command that does something, depth first, in the order `--help` lists them."""
    context = click.Context(root, info_name=name, parent=parent)
    if isinstance(root, click.Group):
        for child in root.list_commands(context):
            command = root.get_command(context, child)
            if command is not None and not command.hidden:
                yield from walk(command, context, child)
        return
    usage = " ".join([context.command_path, *root.collect_usage_pieces(context)])
    records = [record for param in root.get_params(context) if (record := param.get_help_record(context))]
    shown = tuple(Option(name, text) for name, text in records if "--help" not in name)
    yield Command(context.command_path.removeprefix(f"{PROGRAM} "), usage, inspect.cleandoc(root.help or ""), shown)


def printed(text: str) -> Iterator[Printed]:
    """The aiprod-ops commands in the `sh`, `console` and `ops` blocks of a Markdown text.

    Raises ValueError for a line that no shell could read.
    """
    for block in blocks(text):
        if block.language not in ("sh", "bash", "shell", "console", "ops"):
            continue
        for number, line in enumerate(block.lines, start=block.first):
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            if block.language == "ops" and words:
                yield Printed(tuple(words), number)
            elif words and words[0] == PROGRAM:
                yield Printed(tuple(words[1:]), number)


def parse(root: click.Command, words: tuple[str, ...]) -> click.Context:
    """Read a command line with the real parser, without running anything; answers the innermost context.

    Raises click.ClickException as the command itself would.
    """
    context = root.make_context(PROGRAM, list(words))
    command = root
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]  # what is left for the subcommand; Click has no other name
        if not rest:
            raise click.UsageError(f"{context.command_path} needs a command", context)
        name, found, rest = command.resolve_command(context, rest)
        if found is None:
            raise click.UsageError(f"{context.command_path} has no command {name}", context)
        command = found
        context = command.make_context(name, rest, parent=context)
    return context
