"""`conform`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.checks import known
from aiprod_ops.cli.options import Where

if TYPE_CHECKING:
    from aiprod_ops.lab.bench import Bench
    from aiprod_ops.lab.fleet import Fleet
    from aiprod_ops.lab.promises import Result

_ROWS = 20_000  # jobs; enough for a statement without its index to be seen, and loaded in a second
_COLORS = {"holds": "green", "does not hold": "red", "not applicable": "cyan", "not checked": "yellow"}
_WIDTH = max(map(len, _COLORS))


@click.command("conform", context_settings=options.PASS_THROUGH)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="ID [--OPTION VALUE]…",
                shell_complete=options.complete_runbook)  # fmt: skip
@click.option("--lab", "folder", type=click.Path(path_type=Path, file_okay=False),
              help="A running lab without a workload. Default: a small one of its own.")  # fmt: skip
@click.option("--promise", "chosen", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--runbooks", multiple=True, type=click.Path(path_type=Path), metavar="DIR", help="Further runbooks.")
@click.option("--config", default="", metavar="FILE", help="Configuration that names folders of runbooks.")
@options.output("text", "json")
def conform_command(
    words: tuple[str, ...], folder: Path | None, chosen: tuple[str, ...], runbooks: tuple[Path, ...], config: str,
    output: str,
) -> int:  # fmt: skip
    """Hold a runbook against the promises that every runbook makes, on real servers.

    The problem is provoked by the runbook's @book.inject. Exit code: 0 all hold, 1 some could not be checked,
    2 one does not hold.
    """
    from aiprod_ops.lab.conformance import PROMISES, conform
    from aiprod_ops.lab.promises import exit_code

    if unknown := sorted(set(chosen) - {promise.id for promise in PROMISES}):
        raise click.UsageError(f"no promise {unknown[0]}; there are: {', '.join(promise.id for promise in PROMISES)}")
    wanted = [promise for promise in PROMISES if not chosen or promise.id in chosen]
    where = Where(config=config, runbooks=tuple(path.absolute() for path in runbooks))
    quiet = output != "text"
    with _lab(folder, quiet=quiet) as fleet, on_bench(fleet, words, where) as bench:
        report = (lambda _: None) if quiet else (lambda text: click.echo(f"… {text}", err=True))
        results = list(conform(bench, report, wanted))
        _tell(bench.entry.id, results, output)
    return exit_code(results)


@contextmanager
def _lab(folder: Path | None, *, quiet: bool) -> Iterator["Fleet"]:
    from aiprod_ops.lab import fleet as fleets

    if folder is not None:
        yield fleets.load(folder)
        return
    # Not below $TMPDIR: the path of a socket is limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        place = Path(name) / "lab"
        try:
            yield fleets.up(
                place, _ROWS, report=lambda text: None if quiet else click.echo(text, err=True), workload=False
            )
        finally:
            fleets.down(place)


@contextmanager
def on_bench(fleet: "Fleet", words: tuple[str, ...], where: Where) -> Iterator["Bench"]:
    """A runbook with its options on the bench of a lab; `where` names the folders of runbooks."""
    from aiprod_ops.cli.world import entries_of, open_world, settings_of
    from aiprod_ops.engine import registry
    from aiprod_ops.lab import bench as benches
    from aiprod_ops.lab.known import KnownLab

    entries = entries_of(where)
    names, given = options.split_params(words, entries)
    if len(names) != 1:
        raise click.UsageError(f"expected one runbook, got {len(names)}; there are: {', '.join(entries)}")
    folders = settings_of(where).runbook_folders
    entry = registry.pick(entries, names[0])
    with benches.configured(fleet) as place:
        here = Where(config=str(place / "aiprod-ops.toml"), runbooks=folders)
        with open_world(here, trigger="conform", quiet=True) as world:
            given = {**entry.book.drill_with, **known(entry, given)}
            params = entry.read_params(given, world.context.promises)
            rest = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
            yield benches.Bench(KnownLab.of(fleet), place, entry, tuple(rest), folders, world, params)


def _tell(name: str, results: "list[Result]", output: str) -> None:
    from aiprod_ops.cli import render

    if output == "json":
        render.as_json({"runbook": name, "promises": results})
        return
    for result in results:
        verdict = click.style(f"{result.verdict:<{_WIDTH}}", fg=_COLORS[result.verdict], bold=True)
        render.say(f"{verdict}  {result.text}")
        render.say(f"{'':{_WIDTH}}  {result.seen}")
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in _COLORS}
    render.say(f"{name}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items() if count)}")
    if counts["not checked"]:
        render.say("next: write @book.inject, which provokes the problem in the lab; without it these are not proven")
