"""`check`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where

if TYPE_CHECKING:
    from aiprod_ops.domain.findings import Waiver
    from aiprod_ops.engine.planning import Checked


@click.command("check", context_settings=options.PASS_THROUGH)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ID]… [--OPTION VALUE]…",
                shell_complete=options.complete_runbook)  # fmt: skip
@click.option("--all", "all_of_them", is_flag=True, help="Every runbook that can check.")
@click.option("--ids", is_flag=True, help="Print each finding's id: what a waiver names.")
@options.output("text", "json", "nagios", "prom")
@options.where
def check_command(words: tuple[str, ...], all_of_them: bool, ids: bool, output: str, where: Where) -> int:
    """Read the facts and judge them. Changes nothing; a monitoring role is enough.

    What is new or gone is told since the last check of the same target. A runbook's own options are listed by
    `aiprod-ops explain ID`. Exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    from aiprod_ops.cli import problems, render, verdicts
    from aiprod_ops.cli.world import entries_of, open_world
    from aiprod_ops.domain.findings import Finding
    from aiprod_ops.engine import registry
    from aiprod_ops.engine.planning import Checked, check

    entries = entries_of(where)
    names, given = options.split_params(words, entries)
    if not names and not all_of_them:
        raise click.UsageError(f"which runbook? There are: {', '.join(sorted(entries))}; or --all")
    chosen = [registry.pick(entries, name) for name in (sorted(entries) if all_of_them else names)]
    results: list[Checked] = []
    with open_world(where, quiet=output != "text") as world:
        for entry in chosen:
            try:
                params = entry.read_params(known(entry, given), world.context.promises)
                results.append(check(entry, world.context, params))
            except Exception as error:  # one runbook that is broken must not hide what the others see
                if len(chosen) == 1 or isinstance(error, click.UsageError):
                    raise
                problem = problems.of(error)
                note = f"{problem.message} {problem.hint}".strip()
                results.append(Checked(entry.id, (Finding("check", None, note=note),)))
        target = world.context.target.name
        idle = unused(world.context.waivers, target, results) if all_of_them else ()
        code = verdicts.tell(results, target, output, ids=ids, idle=idle)
    if output == "text" and code in (1, 2):
        worst = max(results, key=lambda result: result.status.severity)
        book = entries[worst.runbook].book
        step = "plan" if "plan" in book.phases else "explain"
        render.say(f"next: aiprod-ops {step} {worst.runbook}{options.repeated(where)}")
    return code


def unused(waivers: "Iterable[Waiver]", target: str, results: "Iterable[Checked]") -> "list[Waiver]":
    """Waivers for a target that cover no finding of any runbook: only a check of all of them can tell."""
    there = {finding.id for result in results for finding in result.findings}
    return [waiver for waiver in waivers if waiver.target in ("", target) and waiver.finding not in there]


def known(entry: Any, given: dict[str, str]) -> dict[str, str]:
    """The given options, checked against the runbook's own; raises a usage error naming those it has."""
    names = {param.name for param in entry.params}
    if unknown := sorted(set(given) - names):
        have = ", ".join(param.option for param in entry.params) or "none"
        raise click.UsageError(f"{entry.id} has no option --{unknown[0].replace('_', '-')}; it has: {have}")
    return given
