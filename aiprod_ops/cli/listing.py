"""`list` and `explain`."""

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where


@click.command("list")
@options.output("text", "json")
@options.where
def list_command(output: str, where: Where) -> int:
    """List runbooks with their origin and the SHA-256 of their file."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import entries_of

    rows = [
        {
            "id": entry.id,
            "kind": "runbook",
            "risk": entry.book.risk,
            "owner": entry.book.owner,
            "origin": entry.origin,
            "sha256": entry.source if output == "json" else entry.source[:12],
            "symptom": entry.book.symptom,
        }
        for entry in entries_of(where).values()
    ]
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows, widest=80):
            render.say(line)
    return 0
