"""`list` and `explain`."""

import re
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where

if TYPE_CHECKING:
    from aiprod_ops.engine.playbook import Playbook
    from aiprod_ops.engine.registry import Entry


_LINK = re.compile(r"\[([^\]\n]+)\]\([^)\s]*\.md(?:#[^)\s]*)?\)")  #: to another page, which a terminal cannot follow


@click.command("list")
@options.output("text", "json")
@options.where
def list_command(output: str, where: Where) -> int:
    """List runbooks and playbooks with their origin and the SHA-256 of their file."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import entries_of, settings_of
    from aiprod_ops.engine import playbook

    books = entries_of(where)
    rows = [_row("runbook", e, e.book.symptom, output, e.book.risk, e.book.owner) for e in books.values()]
    playbooks = playbook.find(settings_of(where).runbook_folders).values()
    rows += [_row("playbook", book, book.symptom, output) for book in playbooks]
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows, widest=80):
            render.say(line)
    return 0


def _row(
    kind: str, found: "Entry | Playbook", symptom: str, output: str, risk: str = "", owner: str = ""
) -> dict[str, str]:
    return {
        "id": found.id,
        "kind": kind,
        "risk": risk,
        "owner": owner,
        "origin": found.origin,
        "sha256": found.source if output == "json" else found.source[:12],
        "symptom": symptom,
    }


def _complete_page(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from aiprod_ops import config
    from aiprod_ops.engine import playbook

    folders = config.load(ctx.params.get("config") or "").runbook_folders
    playbooks = [name for name in playbook.find(folders) if name.startswith(incomplete)]
    return [*options.complete_runbook(ctx, param, incomplete), *playbooks]


@click.command("explain")
@click.argument("name", metavar="ID", shell_complete=_complete_page)
@options.where
def explain_command(name: str, where: Where) -> int:
    """Show the page of a runbook or a playbook: symptom, command, what its words mean, options, last proof.

    The proof comes from the shipped evidence and from this machine's own.
    """
    from aiprod_ops.cli import render as printing
    from aiprod_ops.cli.docs import gather
    from aiprod_ops.cli.world import settings_of
    from aiprod_ops.errors import Broken, UsageError
    from aiprod_ops.pages.render import page

    settings = settings_of(where)
    try:
        sources = gather(settings, (settings.state,) if settings.state.is_dir() else ())
    except Broken as error:  # at 3 am the page is needed all the same; it only must not rest on that evidence
        click.echo(f"{error.message}; it is left out of this page", err=True)
        sources = gather(settings)
    subject = sources.runbooks.get(name) or sources.playbooks.get(name)
    if subject is None:
        raise UsageError(f"there is no page {name!r}; there are: {', '.join([*sources.runbooks, *sources.playbooks])}")
    printing.say(_LINK.sub(r"\1", page(sources, subject)).rstrip())
    return 0
