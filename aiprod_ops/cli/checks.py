"""`check`."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.deliveries import Deliveries, deliver, deliveries
from aiprod_ops.cli.options import Where
from aiprod_ops.errors import ConfigurationError

if TYPE_CHECKING:
    from aiprod_ops.domain.findings import Waiver
    from aiprod_ops.domain.results import Result
    from aiprod_ops.engine.planning import Checked
    from aiprod_ops.engine.registry import Entry
    from aiprod_ops.engine.world import World


@click.command("check", context_settings=options.PASS_THROUGH)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ID]… [--OPTION VALUE]…",
                shell_complete=options.complete_runbook)  # fmt: skip
@click.option("--all", "all_of_them", is_flag=True, help="Every runbook that can check.")
@click.option("--ids", is_flag=True, help="Print each finding's id: what a waiver names.")
@click.option("--alone", is_flag=True, help="End at once, UNKNOWN, where the same check of this target is running.")
@click.option("--warning-ok", is_flag=True, help="Answer 0 for WARNING, to a scheduler that calls all else a failure.")
@options.output("text", "json", "nagios", "prom")
@deliveries
@options.where
def check_command(
    words: tuple[str, ...], all_of_them: bool, ids: bool, alone: bool, warning_ok: bool, output: str, to: Deliveries,
    where: Where,
) -> int:  # fmt: skip
    """Read the facts and judge them. Changes nothing; a monitoring role is enough.

    What is new or gone is told since the last check of the same target. A runbook's own options are listed by
    `aiprod-ops explain ID`. Exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    from aiprod_ops.cli import render, verdicts
    from aiprod_ops.cli.world import entries_of, open_world
    from aiprod_ops.engine import registry, results

    entries = entries_of(where)
    names, given = options.split_params(words, entries)
    if not names and not all_of_them:
        raise click.UsageError(f"which runbook? There are: {', '.join(sorted(entries))}; or --all")
    chosen = [registry.pick(entries, name) for name in (sorted(entries) if all_of_them else names)]
    with open_world(where, quiet=output != "text") as world, ExitStack() as held:
        target = world.context.target.name
        for entry in chosen if alone else ():
            held.enter_context(results.alone(world.store, target, entry.id, world.by))
        seen, told, failure = _look(chosen, world, given)
        if output == "prom":
            verdicts.prometheus(told)
        deliver(to, told)
        if failure is not None:
            raise failure
        idle = unused(world.context.waivers, target, seen) if all_of_them else ()
        seen = [_pasteable(checked, where) for checked in seen]
        code = verdicts.tell(seen, target, output, ids=ids, idle=idle)
    if output == "text" and code in (1, 2):
        worst = max(seen, key=lambda result: result.status.severity)
        book = entries[worst.runbook].book
        step = "plan" if "plan" in book.phases else "explain"
        own = options.spelled(given) if step == "plan" else ""
        render.say(f"next: aiprod-ops {step} {worst.runbook}{own}{options.repeated(where)}")
    return 0 if code == 1 and warning_ok else code


def _pasteable(checked: "Checked", where: Where) -> "Checked":
    """Its findings, with commands that lead to the same instance."""
    findings = tuple(replace(each, note=options.pasteable(each.note, where)) for each in checked.findings)
    return replace(checked, findings=findings)


def _look(
    chosen: "list[Entry]", world: "World", given: dict[str, str]
) -> "tuple[list[Checked], list[Result], Exception | None]":
    """Each check and its result. One runbook that is broken must not hide what the others see; where there is only
    that one, its failure is handed back, for the results to be delivered before it is told."""
    from aiprod_ops.cli import problems
    from aiprod_ops.domain.findings import Finding
    from aiprod_ops.engine import results
    from aiprod_ops.engine.planning import Checked, check
    from aiprod_ops.units import Seconds

    seen: list[Checked] = []
    told: list[Result] = []
    failure: Exception | None = None
    clock = world.context.clock
    for entry in chosen:
        began = clock.monotonic()
        exports: tuple[str, ...] = ()
        try:
            exports = entry.book.exports
            params = entry.read_params(known(entry, given), world.context.promises)
            checked = check(entry, world.context, params)
        except click.UsageError:
            raise
        except Exception as error:  # noqa: BLE001 the one place where a check's failure becomes UNKNOWN
            failure = error if len(chosen) == 1 else None
            problem = problems.of(error) if failure is None else None
            note = problem.told if problem else ""
            checked = Checked(entry.id, (Finding("check", None, note=note),))
        seen.append(checked)
        took = Seconds(round(clock.monotonic() - began, 3))
        told.append(results.of_check(world.context, checked, given, exports, took))
    return seen, told, failure


def unused(waivers: "Iterable[Waiver]", target: str, results: "Iterable[Checked]") -> "list[Waiver]":
    """Waivers for a target that cover no finding of any runbook: only a check of all of them can tell."""
    there = {finding.id for result in results for finding in result.findings}
    return [waiver for waiver in waivers if waiver.target in ("", target) and waiver.finding not in there]


def known(entry: Any, given: dict[str, str]) -> dict[str, str]:
    """The given options, checked against the runbook's own; raises a usage error naming those it has."""
    context = click.get_current_context(silent=True)
    taken = {option for each in (context.command.params if context else ()) for option in each.opts}
    needed = {"prove": "prove", "plan": "plan", "run": "plan"}.get(str(context.info_name) if context else "", "facts")
    if (hidden := [p.option for p in entry.params if p.option in taken]) and needed in entry.book.phases:
        raise ConfigurationError(
            f"{entry.path}: its option {hidden[0]} cannot be given, for the command itself has one of that name",
            hint="give the parameter another name",
        )
    names = {param.name for param in entry.params}
    if unknown := sorted(set(given) - names):
        have = ", ".join(param.option for param in entry.params) or "none"
        raise click.UsageError(f"{entry.id} has no option --{unknown[0].replace('_', '-')}; it has: {have}")
    return given
