"""`resume`, `rollback`, `runs`: what became of runs, and how they are finished or taken back."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where
from aiprod_ops.errors import Exit

_run = click.argument("run", shell_complete=options.complete_run)


@contextmanager
def signals(stop: Any) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) finishes or undoes the current action; the second ends the process."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.signal:
            raise KeyboardInterrupt
        stop.signal = number
        click.echo("\nstopping: the current action is finished or undone; once more to end at once", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_outcome(world: Any, outcome: Any, output: str) -> int:
    """Print how a run ended, what is changed, and the next command; answers the exit code."""
    from aiprod_ops.cli import render

    code, words = int(outcome.exit), _WORDS.get(outcome.exit, outcome.exit.name)
    if output == "json":
        render.as_json({"run": outcome.run, "exit": code, "outcome": words, "reason": outcome.reason})
        return code
    if outcome.exit is Exit.DONE and not outcome.run:
        render.say(f"Nothing was changed: {outcome.reason}.")
        return code
    render.say(f"{words}{f': {outcome.reason}' if outcome.reason else ''}")
    for line in _summary(world, outcome.run):
        render.say(f"  {line}")
    follow = f"aiprod-ops runs show {outcome.run}"
    if outcome.exit is Exit.PARTLY:
        follow = f"page the owner; then aiprod-ops resume {outcome.run}"
    render.say(f"next: {follow}")
    return code


_WORDS = {
    Exit.DONE: "DONE and verified",
    Exit.REFUSED: "REFUSED, nothing was changed",
    Exit.HELD: "HELD by another run, nothing was changed",
    Exit.UNDONE: "FAILED and undone; the facts equal those from before",
    Exit.PARTLY: "FAILED, and partly applied",
    Exit.UNKNOWN: "UNKNOWN",
    Exit.INTERRUPTED: "STOPPED before the first action, nothing was changed",
    Exit.TERMINATED: "STOPPED before the first action, nothing was changed",
}


def _summary(world: Any, run: str) -> Iterator[str]:
    from aiprod_ops.engine.evidence import Archive

    for record in Archive(world.store).bodies(run=run):
        for action in record.body.get("actions", []):
            yield f"{action['state']:<12} {action['kind']} {action['name']}"
        for name, place in record.body.get("files", {}).items():
            yield f"{'written':<12} {name}: {place}"
        yield f"{'evidence':<12} {record.n}, seal {record.seal[:12]}"
        return


@click.command("resume")
@_run
@options.output("text", "json")
@options.where
def resume_command(run: str, output: str, where: Where) -> int:
    """Go on with a run that was interrupted, from its journal: what is done is not done again."""
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
        return tell_outcome(world, outcome, output)


@click.command("rollback")
@_run
@click.option("--apply", "digest", default="", metavar="DIGEST", help="Approve the undo plan with this digest.")
@click.option("--why", default="", metavar="TEXT", help="The reason, kept in the evidence.")
@options.output("text", "json")
@options.where
def rollback_command(run: str, digest: str, why: str, output: str, where: Where) -> int:
    """Take back what a run did: an unfinished run is undone, a finished one gets the reverse plan.

    The reverse plan of a finished run has a digest of its own, and needs its approval.
    """
    from aiprod_ops.cli import render
    from aiprod_ops.cli.plans import ask
    from aiprod_ops.cli.world import entries_of, open_world
    from aiprod_ops.engine import registry
    from aiprod_ops.engine.journal import Journal
    from aiprod_ops.engine.operations import roll_back, undo_draft

    where = _target_of_run(run, where)
    with open_world(where, why=why, trigger="rollback", quiet=output != "text") as world:
        journal = Journal.of(world.store, world.context.clock, run)
        entry = registry.pick(entries_of(where), journal.opening["runbook"])
        draft = None
        if journal.ended is not None:
            draft = undo_draft(world, entry, journal)
            if digest and (len(digest) < 8 or not draft.digest.startswith(digest)):
                from aiprod_ops.errors import NotApproved

                raise NotApproved(f"the undo plan of {run} has the digest {draft.digest[:12]}, not {digest}")
            if not digest:
                if output == "text":
                    render.plan(entry, draft, output)
                ask(draft.digest, f"aiprod-ops rollback {run} --apply {draft.digest[:12]}")
        with signals(world.stop):
            outcome = roll_back(world, entry, journal, draft, digest or "typed on the terminal")
        return tell_outcome(world, outcome, output)


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
    """List runs, oldest first; an unfinished one names the command that finishes it."""
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.journal import Journal, runs

    store = store_of(where)
    rows = []
    for name in runs(store):
        journal = Journal.of(store, SystemClock(), name)
        state = f"unfinished: aiprod-ops resume {name}" if journal.ended is None else f"ended {journal.ended}"
        opening = journal.opening
        rows.append({"run": name, "kind": opening["kind"], "target": opening["target"]["target"], "by": opening["by"],
                     "state": state})  # fmt: skip
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows, widest=100) or ["no runs yet"]:
            render.say(line)
    return 0


@runs_command.command("show")
@_run
@options.output("text", "json")
@options.where
def runs_show(run: str, output: str, where: Where) -> int:
    """Show a run's journal, record by record."""
    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import store_of
    from aiprod_ops.engine.journal import Journal

    journal = Journal.of(store_of(where), SystemClock(), run)
    if output == "json":
        render.as_json(journal.records)
        return 0
    for record in journal.records:
        facts = " ".join(f"{key}={value}" for key, value in record.data.items() if value not in ("", None, [], {}))
        render.say(f"{record.n:>3}  {record.at[:19]}  {record.kind:<10} {facts}"[:240])
    return 0
