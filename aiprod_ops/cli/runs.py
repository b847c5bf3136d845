"""`resume`, `rollback`, `runs`: what became of runs, and how they are finished or taken back."""

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.gate import ask, confirmed, signals
from aiprod_ops.cli.options import Where, confirming, repeated
from aiprod_ops.errors import Broken, UsageError

_run = click.argument("run", shell_complete=options.complete_run)


@click.command("resume")
@_run
@options.output("text", "json")
@options.where
def resume_command(run: str, output: str, where: Where) -> int:
    """Go on with a run that was interrupted, from its journal: what is done is not done again."""
    from aiprod_ops.cli.outcomes import tell_outcome
    from aiprod_ops.cli.world import entries_of, open_world
    from aiprod_ops.engine import registry
    from aiprod_ops.engine.journal import Journal
    from aiprod_ops.engine.operations import resume

    where = _target_of_run(run, where)
    with open_world(where, trigger="resume", quiet=output != "text") as world:
        journal = Journal.of(world.store, world.context.clock, run)
        entry = registry.pick(entries_of(where), journal.opening["runbook"])
        with signals(world.stop):
            outcome = resume(world, entry, journal)
        return tell_outcome(world, outcome, output, where)


@click.command("rollback")
@_run
@click.option("--apply", "digest", default="", metavar="DIGEST", help="Approve the undo plan with this digest.")
@click.option("--confirm", default="", metavar="NAME", help="The target's name, for a runbook of severe risk.")
@click.option("--why", default="", metavar="TEXT", help="The reason, kept in the evidence.")
@options.output("text", "json")
@options.where
def rollback_command(run: str, digest: str, confirm: str, why: str, output: str, where: Where) -> int:
    """Take back what a run did: an unfinished run is undone, a finished one gets the reverse plan.

    The reverse plan of a finished run has a digest of its own, and needs its approval.
    """
    from aiprod_ops.cli import render
    from aiprod_ops.cli.outcomes import tell_outcome
    from aiprod_ops.cli.world import entries_of, open_world
    from aiprod_ops.engine import registry
    from aiprod_ops.engine.journal import Journal
    from aiprod_ops.engine.operations import roll_back, undo_draft

    where = _target_of_run(run, where)
    with open_world(where, why=why, trigger="rollback", quiet=output != "text") as world:
        journal = Journal.of(world.store, world.context.clock, run)
        entry = registry.pick(entries_of(where), journal.opening["runbook"])
        draft = None
        if journal.ended is not None and journal.opening["kind"] != "prove":
            draft = undo_draft(world, entry, journal)
            if digest and (len(digest) < 8 or not draft.digest.startswith(digest)):
                from aiprod_ops.errors import NotApproved

                raise NotApproved(f"the undo plan of {run} has the digest {draft.digest[:12]}, not {digest}")
            if not digest:
                if output == "text":
                    render.plan(entry, draft, output)
                name = confirming(entry, draft.plan)
                ask(draft.digest, f"aiprod-ops rollback {run} --apply {draft.digest[:12]}{name}{repeated(where)}")
            confirmed(entry, world.context.target.name, confirm)
        with signals(world.stop):
            outcome = roll_back(world, entry, journal, draft, digest or "typed on the terminal")
        return tell_outcome(world, outcome, output, where)


def _target_of_run(run: str, where: Where) -> Where:
    """A run knows its target: nobody has to name it again."""
    from dataclasses import replace

    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli.world import settings_of, store_of
    from aiprod_ops.engine.journal import Journal

    if where.target or where.dsn:
        return where
    opening = Journal.of(store_of(where), SystemClock(), run).opening
    name = opening["target"]["target"]
    return replace(where, target=name) if name in settings_of(where).targets else where


@click.group("runs")
def runs_command() -> None:
    """Runs, finished and unfinished."""


@runs_command.command("list")
@options.output("text", "json")
@options.where
def runs_list(output: str, where: Where) -> int:
    """List runs, oldest first.

    An unfinished one names the command that finishes it.
    """
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.journal import Journal, runs

    store = store_of(where)
    rows = []
    for name in runs(store):
        try:
            journal = Journal.of(store, SystemClock(), name)
        except (Broken, UsageError) as error:  # one that is damaged must not hide the others
            state = error.message if isinstance(error, Broken) else "died before its first record: nothing was begun"
            rows.append({"run": name, "kind": "?", "target": "?", "by": "?", "state": state})
            continue
        state = f"ended {journal.ended}"
        if journal.ended is None:
            state = "running" if store.is_locked(f"run-{name}") else f"unfinished: aiprod-ops resume {name}"
        opening = journal.opening
        rows.append({"run": name, "kind": opening["kind"], "target": opening["target"]["target"], "by": opening["by"],
                     "state": state})  # fmt: skip
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows, widest=100) or ["no runs yet"]:
            render.say(line)
        if repeated(where) and (waiting := [row["run"] for row in rows if row["state"].startswith("unfinished")]):
            render.say(f"next: aiprod-ops resume {waiting[0]}{repeated(where)}")
    return 0


@runs_command.command("show")
@_run
@options.output("text", "json")
@options.where
def runs_show(run: str, output: str, where: Where) -> int:
    """Show a run's journal, record by record."""
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli import records, render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.journal import Journal

    journal = Journal.of(store_of(where), SystemClock(), run)
    if output == "json":
        render.as_json(journal.records)
        return 0
    for record in journal.records:
        for line in records.lines(record):
            render.say(line)
    return 0
