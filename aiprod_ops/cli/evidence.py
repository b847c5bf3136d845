"""`evidence`."""

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where


@click.group("evidence")
def evidence_command() -> None:
    """Sealed evidence: one record a run, each carrying the seal of the one before."""


@evidence_command.command("list")
@options.output("text", "json")
@options.where
def evidence_list(output: str, where: Where) -> int:
    """List the records, oldest first."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.evidence import Archive

    records = [record for _, record in Archive(store_of(where)).read() if record is not None]
    if output == "json":
        render.as_json(records)
        return 0
    rows = [
        {
            "n": str(record.n),
            "ended": str(record.body["ended"])[:19].replace("T", " "),
            "kind": record.body["kind"],
            "runbook": record.body["runbook"],
            "target": f"{record.body['target']['target']} ({record.body['environment']})",
            "exit": str(record.body["exit"]),
            "plan": str(record.body["digest"])[:12],
            "seal": record.seal[:12],
        }
        for record in records
    ]
    for line in render.table(rows) or ["no evidence yet"]:
        render.say(line)
    return 0


@evidence_command.command("show")
@click.argument("n", type=click.IntRange(min=1))
@options.output("text", "json")
@options.where
def evidence_show(n: int, output: str, where: Where) -> int:
    """Show one record: what was done, by whom, what was measured. Exit code: 0, or 2 if it was altered."""
    import msgspec

    from aiprod_ops.cli import records, render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.evidence import Archive
    from aiprod_ops.errors import UsageError

    record = next(
        (record for _, record in Archive(store_of(where)).read() if record is not None and record.n == n), None
    )
    if record is None:
        raise UsageError(f"there is no record {n} of evidence", hint="aiprod-ops evidence list")
    if output == "json":
        render.as_json({**msgspec.to_builtins(record), "holds": record.holds})
        return 0 if record.holds else 2
    if not record.holds:
        render.say(f"CRITICAL  record {n} was altered after it was sealed")
    for line in records.outline({"n": record.n, **record.body, "seal": record.seal, "previous": record.previous}):
        render.say(line)
    return 0 if record.holds else 2


@evidence_command.command("verify")
@options.output("text", "json")
@options.where
def evidence_verify(output: str, where: Where) -> int:
    """Check every seal and the chain; names the record that was altered. Exit code: 0 holds, 2 does not."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine import history
    from aiprod_ops.engine.evidence import Archive

    store = store_of(where)
    archive = Archive(store)
    faults, records = [*archive.faults(), *history.faults(store)], len(archive.read())
    if output == "json":
        render.as_json({"records": records, "faults": faults})
    else:
        for fault in faults:
            render.say(f"CRITICAL  {fault}")
        if not faults:
            render.say(f"OK  {records} records of evidence, the chain holds")
    return 2 if faults else 0
