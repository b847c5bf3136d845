"""`schedule list | render`."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where

if TYPE_CHECKING:
    from datetime import date

    from aiprod_ops.config import Settings, Target
    from aiprod_ops.domain.results import Result
    from aiprod_ops.domain.schedules import Interval, Job
    from aiprod_ops.engine.registry import Entry
    from aiprod_ops.ports import Store
    from aiprod_ops.schedules.installation import Installation

_NOTHING = "nothing is scheduled: no runbook says check_every, prove_every, run_every or drill_every"
_FORMATS = ("systemd", "cron", "kubernetes", "cloud-scheduler", "terraform", "prometheus-rules")
_WHERE = (
    click.option("--target", default="", metavar="NAME", help="Only this instance of the configuration; else all.",
                 shell_complete=options.complete_target),
    click.option("--runbooks", multiple=True, type=click.Path(path_type=Path), metavar="DIR", help="Further runbooks."),
    click.option("--config", default="", metavar="FILE", help="Configuration instead of the user's or the lab's."),
)  # fmt: skip


def _where(function: options.F) -> options.F:
    for option in reversed(_WHERE):
        function = option(function)
    return function


@click.group("schedule")
def schedule_command() -> None:
    """What runs when, and the files for what starts it: systemd, cron, Kubernetes, Cloud Scheduler; its alerts."""


@schedule_command.command("list")
@options.output("text", "json")
@_where
def schedule_list(output: str, target: str, runbooks: tuple[Path, ...], config: str) -> int:
    """List what is scheduled, and when it last ran.

    When is told in systemd's words; how the last one ended, when one last succeeded.
    """
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import entries_of, settings_of, store_of
    from aiprod_ops.schedules.planned import planned, wishes

    where = Where(config=config, target=target, runbooks=runbooks)
    settings, store = settings_of(where), store_of(where)
    targets = {place.name: place for place in _targets(settings, target)}
    entries = entries_of(where)
    jobs, unapproved = planned(
        targets.values(), wishes(entries.values()), settings.promises, (), settings.standing_approvals, today=_today()
    )
    rows = [_row(job, _last(job.wish, entries, targets[job.place.target], settings, store)) for job in jobs]
    if output == "json":
        render.as_json(rows)
    else:
        for line in render.table(rows) or [_NOTHING]:
            render.say(line)
    for why in unapproved:
        click.echo(why, err=True)
    return 0


def _today() -> "date":
    """The day by which approvals are judged (UTC)."""
    from aiprod_ops.adapters.clock import SystemClock

    return SystemClock().now().date()


def _row(job: "Job", last: "Result | None") -> dict[str, str]:
    from aiprod_ops.units import show

    return {
        "work": job.wish.work,
        "runbook": job.wish.runbook,
        "target": job.place.target,
        "when": job.calendar.systemd if job.calendar else f"every {show(job.wish.every, 's')}",
        "last": f"{last.ended:%Y-%m-%d %H:%M}" if last else "never",
        "status": last.status.name if last else "",
        "took": show(last.took, "s") if last else "",
        "success": f"{last.succeeded:%Y-%m-%d %H:%M}" if last and last.succeeded else "never",
    }


def _last(
    wish: "Interval", entries: "Mapping[str, Entry]", place: "Target", settings: "Settings", store: "Store"
) -> "Result | None":
    from dataclasses import asdict

    from aiprod_ops.engine import results
    from aiprod_ops.engine.history import history_of

    if wish.work == "drill":
        return results.last_drill(store, place, wish.runbook)
    if wish.work == "prove":
        params = entries[wish.runbook].read_params({}, settings.promises)
        return results.last_proof(store, place, wish.runbook, asdict(params))
    if wish.work == "run":
        return results.last_run(history_of(store, place.name, settings.promises), place, wish.runbook)
    return results.last_check(history_of(store, place.name, settings.promises), place, wish.runbook)


def _targets(settings: "Settings", name: str) -> "list[Target]":
    """The instance of that name, or all; raises ConfigurationError where there is none."""
    return list(settings.targets.values()) if settings.targets and not name else [settings.target(name)]


@schedule_command.command("render")
@click.option("--format", "form", type=click.Choice(_FORMATS), required=True, help="For what the files are.")
@click.option("--output", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write the files there; without it a single file is printed.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite files that were not written by this command.")
@click.option(
    "--no-drills", is_flag=True, help="No drills; elsewhere than in a lab, and in containers, there are none anyway."
)
@click.option("--program", default="", metavar="PATH", help="The program that the jobs start; else this one.")
@click.option("--config-in-place", default="", metavar="PATH", help="Where the jobs find the configuration; else where"
              " it is now, in containers /etc/aiprod-ops/config.toml.")  # fmt: skip
@click.option("--user", default="aiprod-ops", show_default=True, help="The user that the jobs run as.")
@click.option("--environment-file", default="/etc/aiprod-ops/environment", show_default=True, metavar="PATH",
              help="NAME=value lines with the DSNs that the configuration takes from the environment.")  # fmt: skip
@click.option("--passfile", default="", metavar="PATH", help="libpq's file of passwords: a credential of the unit.")
@click.option("--mailto", default="root", show_default=True, help="Who gets cron's mail.")
@click.option("--prom-folder", default="", metavar="DIR", help="Where node_exporter's textfile collector reads.")
@click.option("--push", default="", metavar="URL", help="Where the jobs push their metrics: see `check --help`.")
@click.option("--image", default="", help="Container image (Kubernetes, Cloud Run).")
@click.option("--namespace", default="", help="Kubernetes namespace.")
@click.option("--secret", default="", metavar="NAME", help="Kubernetes: the Secret with the DSNs, by variable;"
              " Cloud Run: the secret with config.toml. Else aiprod-ops.")  # fmt: skip
@click.option("--project", default="", help="Google Cloud project.")
@click.option("--location", default="", help="Google Cloud location.")
@click.option("--service-account", default="", metavar="EMAIL", help="Who executes the Cloud Run jobs.")
@click.option("--state-nfs", default="", metavar="SERVER:/PATH", help="Cloud Run: the share that keeps the state;"
              " without it nothing that leaves or judges evidence is scheduled.")  # fmt: skip
@click.option("--subnetwork", default="", metavar="NAME", help="Cloud Run: the VPC subnetwork of that share.")
@click.option("--pages", default="", metavar="URL", help="Where the site is; else as service.toml says.")
@_where
def schedule_render(
    form: str, folder: Path | None, force: bool, no_drills: bool, target: str, runbooks: tuple[Path, ...], config: str,
    **named: Any,
) -> int:  # fmt: skip
    """Write the files for every runbook with a schedule. The same command line gives the same bytes.

    No file holds a secret: DSNs come from the configuration, or from variables that a file or a secret holds.
    """
    from aiprod_ops.cli.redaction import has_password
    from aiprod_ops.cli.world import entries_of, settings_of
    from aiprod_ops.errors import UsageError
    from aiprod_ops.schedules.formats import FORMATS, fit, render
    from aiprod_ops.schedules.planned import planned, wishes

    if has_password(named["push"]):
        raise UsageError("--push has a password, and the files would show it",
                         hint="put AIPROD_OPS_PUSH=… into the jobs' environment instead")  # fmt: skip
    fit(form, named)
    where = Where(config=config, target=target, runbooks=runbooks)
    settings, is_contained = settings_of(where), FORMATS[form].contains
    in_place = named.pop("config_in_place") or _config_of(settings, is_contained=is_contained)
    further = [word for each in runbooks for word in ("--runbooks", str(each.absolute()))]
    without = no_drills or is_contained  # a lab runs beside its drills, and no container has one
    left_out = {"drill"} if without else set()
    forgets = FORMATS[form].forgets
    left_out |= {"run"} if forgets else set()
    wanted = [wish for wish in wishes(entries_of(where).values()) if wish.work not in left_out]
    if forgets and not named["state_nfs"]:
        lost = ", ".join(f"{wish.work} {wish.runbook}" for wish in wanted if wish.on_evidence)
        wanted = [wish for wish in wanted if not wish.on_evidence]
        if lost:
            click.echo(f"left out, for no evidence would outlive a job: {lost}\n"
                       "  next: add --state-nfs SERVER:/PATH --subnetwork NAME", err=True)  # fmt: skip
    ending, approvals = ("--config", in_place, *further), settings.standing_approvals
    targets = _targets(settings, target)
    jobs, unapproved = planned(targets, wanted, settings.promises, ending, approvals, today=_today())
    for why in unapproved:
        click.echo(why, err=True)
    if is_contained:
        jobs = _in_containers(jobs, settings)
    if "run" in left_out and approvals:
        click.echo(f"nothing that acts is scheduled for {form}: no lease holds from one job to another", err=True)
    if not jobs:
        raise UsageError(_NOTHING, hint="aiprod-ops list")
    if FORMATS[form].makes:
        named |= _of_instance(targets, named, settings)
    installation = _installation(settings, named, is_contained=is_contained, reads=(in_place, *further))
    return _hand_over(render(form, jobs, installation), folder, force=force)


def _of_instance(targets: "list[Target]", named: dict[str, Any], settings: "Settings") -> dict[str, Any]:
    """What is known of the one instance that is to be made: its name is the target's, its region where the jobs run."""
    from aiprod_ops.actions.instance_promise import installed
    from aiprod_ops.errors import ConfigurationError, UsageError

    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise UsageError(f"these files are of one instance, and there are {names}", hint="add --target NAME")
    target = targets[0]
    if target.platform != "cloudsql" or not target.instance:
        raise ConfigurationError(
            f"target {target.name!r} is no instance on Cloud SQL",
            hint='add platform = "cloudsql", project = "…" and instance = "…" to its configuration',
        )
    promised = installed(settings.promises, target.instance)
    return {
        "target": target.name,
        "promised": promised,
        "project": named["project"] or target.project,
        "location": named["location"] or promised.setups.main.region,
        "subnetwork": named["subnetwork"] or promised.subnetwork,
    }


def _in_containers(jobs: "list[Job]", settings: "Settings") -> "list[Job]":
    """The jobs that a container can do: none that reads or writes folders with backups, for none is mounted. What is
    left out, and a key that has no effect there, is said."""
    from os import environ, geteuid

    from aiprod_ops.config import default_state

    stored = {
        name: ", ".join(folder for folder in (target.backups, target.archive) if folder.startswith("/"))
        for name, target in settings.targets.items()
    }
    lost = [job for job in jobs if stored.get(job.place.target) and job.wish.on_backups]
    for name in sorted({job.place.target for job in lost}):
        left = ", ".join(f"{job.wish.work} {job.wish.runbook}" for job in lost if job.place.target == name)
        told = f"left out on {name}, for no container has {stored[name]}: {left}"
        click.echo(f"{told}\n  next: schedule them by systemd or cron, where the backups are", err=True)
    if settings.state != default_state(environ, is_root=geteuid() == 0):
        click.echo(
            f"the configuration says state = {str(settings.state)!r}: leave that out of the containers' config.toml,"
            " where it would take the place of the volume that AIPROD_OPS_STATE names",
            err=True,
        )
    return [job for job in jobs if job not in lost]


#: Where pgBackRest writes unless it is configured otherwise: repository, log, spool, locks.
_PGBACKREST = ["/var/lib/pgbackrest", "/var/log/pgbackrest", "/var/spool/pgbackrest", "/tmp/pgbackrest"]  # noqa: S108


def _installation(
    settings: "Settings", named: dict[str, Any], *, is_contained: bool, reads: tuple[str, ...]
) -> "Installation":
    from os import environ, geteuid

    from aiprod_ops.config import PGBACKREST, default_state
    from aiprod_ops.schedules.installation import Installation

    program = named["program"] or ("aiprod-ops" if is_contained else _program())
    pages = named["pages"] or str(settings.promises.get("schedule.pages"))
    given: dict[str, Any] = {name: value for name, value in named.items() if value}
    made = Installation(**{**given, "program": program, "pages": pages})
    if is_contained:
        return made
    is_default = settings.state == default_state(environ, is_root=geteuid() == 0)
    targets = settings.targets.values()
    reads = (*reads, *(_socket(target) for target in targets), *(target.log for target in targets))
    stored = sorted({target.backups for target in targets if target.backups.startswith("/")})
    reads = (*reads, *stored, *(target.archive for target in targets))
    # Where none was taken yet the folder may not be there: that must not stop what only checks.
    if any(target.backups.startswith(PGBACKREST) for target in targets):
        stored += _PGBACKREST
    writes = (*sorted({target.copies for target in targets if target.copies}), *(f"-{folder}" for folder in stored))
    return replace(made, state="" if is_default else str(settings.state), reads=reads, writes=writes)


def _socket(target: "Target") -> str:
    """The folder of a socket that a DSN names; empty for a host, and for a DSN that a variable will hold."""
    from aiprod_ops.adapters.postgres.dsn import target as read

    return "" if target.probe.startswith("env:") else str(read(target.probe, "probe").parameters.get("host", ""))


def _program() -> str:
    """The program that runs now, by its absolute path."""
    started = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("aiprod-ops")
    return str(started.absolute() if started.name == "aiprod-ops" else beside)


def _config_of(settings: "Settings", *, is_contained: bool) -> str:
    return "/etc/aiprod-ops/config.toml" if is_contained else str(Path(settings.origin).absolute())


def _hand_over(files: Mapping[str, str], folder: Path | None, *, force: bool) -> int:
    """Write the files, and say which; or print the only one. Nothing is written where one of them is not ours."""
    from aiprod_ops.adapters.files import replace_file
    from aiprod_ops.cli import render
    from aiprod_ops.errors import Refused, UsageError
    from aiprod_ops.schedules.installation import MARK

    if folder is None:
        if len(files) > 1:
            raise UsageError(f"there are {len(files)} files: {', '.join(files)}", hint="add --output DIR")
        render.say("".join(files.values()).rstrip())
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    theirs = [name for name in files if (folder / name).exists() and MARK not in _head(folder / name)]
    if theirs and not force:
        raise Refused(f"{folder / theirs[0]} was not written by this command", hint="look at it, then add --force")
    for name, text in files.items():
        replace_file(folder / name, text.encode(), 0o644)
        click.echo(str(folder / name), err=True)
    return 0


def _head(path: Path) -> str:
    """The first lines; JSON has no comment, so that there the mark stands in the first field."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(300)
