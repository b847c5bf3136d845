"""Where results go beside the terminal: a file for node_exporter, a Pushgateway. A delivery that fails is said, and
changes no exit code: the check itself is what that tells, and an alert on age tells what did not arrive."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from aiprod_ops.domain.results import Result

F = TypeVar("F", bound=Callable[..., Any])
_PATIENCE = 10.0  #: seconds that an endpoint has


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What the options ask for."""

    file: Path | None = None
    push: str = ""


def deliveries(function: F) -> F:
    """Add the options; the command gets one `to: Deliveries`."""

    @wraps(function)
    def command(*, prom_file: Path | None, push: str, **given: Any) -> Any:
        return function(to=Deliveries(prom_file, push), **given)

    for option in (
        click.option("--push", default="", metavar="URL", envvar="AIPROD_OPS_PUSH",
                     help="Also push the metrics: to a Pushgateway, or by POST to a URL with a path of its own."),
        click.option("--prom-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.prom",
                     callback=_readable, help="Also write the metrics, for node_exporter's textfile collector."),
    ):  # fmt: skip
        command = option(command)
    return command  # type: ignore[return-value]


def _readable(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix != ".prom":
        raise click.BadParameter(f"{value} does not end in .prom: node_exporter would never read it")
    return value


def deliver(to: Deliveries, results: Iterable["Result"]) -> None:
    """Write and push; what could not be delivered is said on stderr, one line each."""
    if to.file is None and not to.push:
        return
    from aiprod_ops.adapters import prometheus
    from aiprod_ops.adapters.files import replace_file
    from aiprod_ops.cli.redaction import learn, redact
    from aiprod_ops.errors import OpsError
    from aiprod_ops.units import Seconds

    told: Sequence[Result] = list(results)
    if to.file is not None:
        try:
            replace_file(to.file, prometheus.text(told).encode(), 0o644)
        except OSError as error:
            click.echo(f"the metrics were not written: {to.file}: {error.strerror}", err=True)
    if to.push:
        learn(to.push)
        try:
            prometheus.push(to.push, told, Seconds(_PATIENCE))
        except OpsError as error:
            click.echo(redact(f"the metrics were not pushed: {error.told}"), err=True)
