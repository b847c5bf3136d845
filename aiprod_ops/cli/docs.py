"""`docs build | serve | check`. MkDocs also loads this file as its hook: see `on_config`."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from aiprod_ops.cli import options

if TYPE_CHECKING:
    from aiprod_ops.config import Settings
    from aiprod_ops.engine.registry import Entry
    from aiprod_ops.pages.sources import Sources

_OUT = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build"), show_default=True,
    help="Folder that gets docs/ (Markdown) and site/ (HTML).",
)  # fmt: skip
_STATE = click.option(
    "--state", "states", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="Further evidence, from a folder of state. It is shown, its files are not published.",
)  # fmt: skip
_RUNBOOKS = click.option(
    "--runbooks", "folders", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
    help="Further runbooks and playbooks.",
)  # fmt: skip


def gather(settings: "Settings", states: Iterable[Path] = ()) -> "Sources":
    """All that the pages are made from, but for the reference of commands.

    Raises Broken when evidence was altered, ConfigurationError for a file that cannot be read.
    """
    from datetime import UTC, datetime
    from os import environ

    from aiprod_ops.adapters.clock import SystemClock
    from aiprod_ops.adapters.files import FolderStore
    from aiprod_ops.engine import playbook, registry
    from aiprod_ops.pages import sources

    site = sources.site()
    shipped = sources.evidence(FolderStore(site / "recorded"), str(site / "recorded"), is_shipped=True)
    others = [each for state in states for each in sources.evidence(FolderStore(state), str(state), is_shipped=False)]
    epoch = environ.get("SOURCE_DATE_EPOCH")
    return sources.Sources(
        templates=sources.templates(site),
        runbooks=registry.find(settings.runbook_folders),
        playbooks=playbook.find(settings.runbook_folders),
        promises=settings.promises,
        commands=(),
        recorded=sources.recorded(site / "recorded"),
        evidence=(*shipped, *others),
        now=datetime.fromtimestamp(int(epoch), UTC) if epoch else SystemClock().now(),
    )


def gather_all(states: Iterable[Path] = (), folders: tuple[Path, ...] = ()) -> "Sources":
    """What the site is made from: also the reference, for which every command's module is imported."""
    from aiprod_ops import cli
    from aiprod_ops.cli.world import settings_of
    from aiprod_ops.pages import commands

    sources = gather(settings_of(options.Where(runbooks=folders)), states)
    return replace(sources, commands=tuple(commands.walk(cli.cli)))


@click.group("docs")
def docs_command() -> None:
    """The site: plain Markdown from templates, runbooks and sealed evidence, then HTML by MkDocs."""


@docs_command.command("build")
@_OUT
@_STATE
@_RUNBOOKS
def build(out: Path, states: tuple[Path, ...], folders: tuple[Path, ...]) -> int:
    """Write the pages to OUT/docs and build OUT/site. A link that leads nowhere fails it."""
    from aiprod_ops.pages import publish
    from aiprod_ops.pages.render import navigation, render

    sources = gather_all(states, folders)
    pages = render(sources)
    publish.build(pages, navigation(sources), out)
    click.echo(f"{sum(name.endswith('.md') for name in pages)} pages in {out / 'docs'}, the site in {out / 'site'}")
    return 0


@docs_command.command("serve")
@_OUT
@click.option("--address", default="127.0.0.1:8000", show_default=True, metavar="HOST:PORT", help="Where to listen.")
def serve(out: Path, address: str) -> int:
    """Serve the site, and build it again whenever a page changes."""
    from aiprod_ops.pages import publish
    from aiprod_ops.pages.render import navigation, render

    sources = gather_all()
    place = publish.prepare(render(sources), navigation(sources), out, hook=Path(__file__))
    return publish.serve(place, address)


@docs_command.command("check")
@_STATE
@_RUNBOOKS
def check(states: tuple[Path, ...], folders: tuple[Path, ...]) -> int:
    """Try the documents: commands parse, links lead somewhere.

    Every command that a page prints is parsed by the real parser; the site is built strictly, in a temporary folder.
    """
    from aiprod_ops.errors import ConfigurationError
    from aiprod_ops.pages import publish
    from aiprod_ops.pages.render import navigation, render

    sources = gather_all(states, folders)
    pages = render(sources)
    wrong = [each for name, text in pages.items() if name.endswith(".md") for each in misprints(name, text, sources)]
    if wrong:
        raise ConfigurationError("the documents print commands that do not exist:\n" + "\n".join(wrong))
    with TemporaryDirectory() as folder:
        publish.build(pages, navigation(sources), Path(folder))
    click.echo(f"{len(pages)} files: every command parses, every link leads somewhere")
    return 0


def misprints(name: str, text: str, sources: "Sources") -> list[str]:
    """The commands of one document that the real command line would not take, each with its place and the reason."""
    from aiprod_ops import cli
    from aiprod_ops.pages import commands
    from aiprod_ops.pages.sources import example

    entries = {example().id: example(), **sources.runbooks}
    wrong: list[str] = []
    for printed in commands.printed(text):
        try:
            context = commands.parse(cli.cli, printed.words)
            _check_own_options(context, entries, sources.playbooks)
        except click.exceptions.Exit:
            continue  # --version, --help
        except click.ClickException as error:
            reason = error.format_message().strip().splitlines()[0]
            wrong.append(f"{name}:{printed.line}: aiprod-ops {' '.join(printed.words)}: {reason}")
    return wrong


def _check_own_options(context: click.Context, entries: "dict[str, Entry]", playbooks: Collection[str]) -> None:
    """Commands that pass words on: the ids have to exist, and the options have to be the runbook's own."""
    from aiprod_ops.cli.checks import known

    names, given = options.split_params(context.params.get("words") or (), entries)
    for name in names:
        if name not in entries:
            raise click.UsageError(f"there is no runbook {name}")
        known(entries[name], given)
    if context.command.name == "explain" and context.params["name"] not in (*entries, *playbooks):
        raise click.UsageError(f"there is no page {context.params['name']}")


def on_config(config: Any) -> Any:
    """MkDocs' hook: render again before each build, so that `mkdocs serve` shows what was just edited."""
    from aiprod_ops.pages import publish
    from aiprod_ops.pages.render import navigation, render

    sources = gather_all()
    publish.write(render(sources), Path(config.docs_dir))
    config.nav = navigation(sources)
    return config
