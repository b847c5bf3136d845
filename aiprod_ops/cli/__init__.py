"""The command line: parse, call, render. Its exit codes are an API: see `aiprod_ops.errors`."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from aiprod_ops.cli.streams import code_without_result, lossy, tell_lost
from aiprod_ops.errors import Exit

_COMMANDS = {
    "api-key": ("serve", "Make an API key for a user; it is printed once."),
    "check": ("checks", "Read the facts and judge them; changes nothing."),
    "conform": ("conform", "Hold a runbook against the promises every runbook makes, on a lab of its own."),
    "digest": ("digest", "Add up a PostgreSQL log by statement: calls, total, quantiles."),
    "docs": ("docs", "Build the site from templates, runbooks and sealed evidence."),
    "drill": ("plans", "Provoke the problem in the lab, run the runbook, measure RTO."),
    "evidence": ("evidence", "List or show sealed evidence, or verify its chain."),
    "explain": ("listing", "Show the page of a runbook or a playbook."),
    "lab": ("lab", "A real fleet on this machine: PostgreSQL with two replicas, Redis, a workload."),
    "list": ("listing", "List runbooks and playbooks with their origin and SHA-256."),
    "plan": ("plans", "Show what would be done, and the digest that approves it; changes nothing."),
    "prove": ("plans", "Try the plan on a restored, disposable copy; production is only read."),
    "resume": ("runs", "Go on with a run that was interrupted."),
    "rollback": ("runs", "Take back what a run did."),
    "run": ("plans", "Apply an approved plan: guard, apply, verify, seal."),
    "runs": ("runs", "List runs, or show one step by step."),
    "schedule": ("schedule", "What runs when; units for systemd, cron, Kubernetes, Cloud Scheduler, and their alerts."),
    "serve": ("serve", "Serve the API: jobs, results, pipelines, users, keys, its documentation."),
    "worker": ("worker", "Render jobs, do periodic work, deliver webhooks; on any number of machines."),
    "usage": ("usage", "What the jobs of a month cost, for billing: CSV or JSON lines."),
}
_CHECKING = {"check", "evidence"}  # there every error is 3, UNKNOWN, as monitoring plugins have it
_UNKNOWN = 3


class _Commands(click.Group):
    """Commands by name; a command's module is imported when it is called, so that the start stays cheap."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"aiprod_ops.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from aiprod_ops.cli.world import version

        click.echo(f"aiprod-ops {version()}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show it.")
def cli() -> None:
    """Runbooks that run, and prove themselves.

    check → plan → prove → run --apply DIGEST. Only run, resume and rollback change anything.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM: contexts are left as with Ctrl-C, so that copies are destroyed and sessions closed."""


def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """A signal handler."""
    raise Terminated


def main() -> NoReturn:
    """The entry point `aiprod-ops`."""
    signal.signal(signal.SIGTERM, terminate)
    sys.stdout, file = lossy(sys.stdout)
    code = call(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) went away: not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    if file.lost:
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        tell_lost(file.lost, command)
        code = code_without_result(code, command)
    sys.exit(code)


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--since -1h` as `--since=-1h`: no option of ours begins with a digit, and Click would find `-h` in it.

    >>> _joined(["plan", "x", "--since", "-1h", "--", "-1"])
    ['plan', 'x', '--since=-1h', '--', '-1']
    """
    joined: list[str] = []
    for each in arguments:
        is_value = len(each) > 1 and each[0] == "-" and each[1].isdecimal()
        if is_value and joined and len(joined[-1]) > 2 and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={each}"
        else:
            joined.append(each)
    return joined


def call(arguments: Sequence[str], store: Callable[[Path], Any] | None = None) -> int:
    """Run one command line and answer its exit code. Errors are printed to stderr (as JSON to stdout with -o json).

    `store` makes the Store of a state folder, where it is not to be the usual one.
    """
    color = False if os.environ.get("NO_COLOR") else None
    is_check = bool(arguments) and arguments[0] in _CHECKING
    try:
        return int(cli.main(_joined(arguments), "aiprod-ops", standalone_mode=False, color=color, obj=store) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return _UNKNOWN if is_check else int(Exit.USAGE)
    except SystemExit:  # Click's way to end when the reader of the output (head, less) went away
        return _UNKNOWN if is_check else int(Exit.REFUSED)
    except BaseException as error:  # noqa: BLE001 the one place where the unexpected becomes a message
        from aiprod_ops.cli import problems

        problem = problems.of(error)
        code = _UNKNOWN if is_check else int(problem.exit_code)
        wanted = _output(arguments)
        if wanted == "json":
            click.echo(problems.as_json(problem, code))
        elif wanted == "nagios" and is_check:  # a plugin that prints nothing to stdout says nothing
            click.echo(problems.as_plugin_line(problem))
        else:
            click.echo(problems.as_text(problem), err=True)
        return code


def _output(arguments: Sequence[str]) -> str:
    """The value of `-o`, also on a command line that cannot be parsed."""
    given = ""
    for word, value in itertools.pairwise([*arguments, ""]):
        if word in ("-o", "--output"):
            given = value
        elif word.startswith(("-o", "--output=")):
            given = word.removeprefix("--output=").removeprefix("-o")
    return given
