"""`worker`: renders jobs, does periodic work, delivers webhooks, until it is told to end."""

import os
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli.serve import LOGGING, api_settings, check_database, require, where

if TYPE_CHECKING:
    from aiprod_ops.service.settings import Settings


@click.command("worker")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Jobs at a time.")
@click.option(
    "--renderer", default="", metavar="MODULE:NAME", envvar="AIPROD_OPS_RENDERER",
    help="What renders a job: an object with `render`, or its class.",
)  # fmt: skip
@click.option(
    "--longest", type=click.FloatRange(min=0, min_open=True), default=1800, show_default=True,
    help="Seconds that an attempt at a job may take.",
)  # fmt: skip
@click.option(
    "--drain", type=click.FloatRange(min=0), default=20, show_default=True,
    help="Seconds that jobs may go on after SIGTERM; then they are given back.",
)  # fmt: skip
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Where Prometheus asks, on the loopback.")
@where
def worker_command(
    concurrency: int, renderer: str, longest: float, drain: float, metrics_port: int | None,
    target: str, config: str, app_dsn: str,
) -> int:  # fmt: skip
    """Work until SIGTERM or Ctrl-C. On as many machines as you like: who is killed is taken over from within 10 s."""
    import asyncio
    import logging.config

    require()
    from aiprod_ops.service.working import process, rendering
    from aiprod_ops.service.working.settings import WorkSettings, renderer_name
    from aiprod_ops.units import Seconds

    made = rendering.load(renderer or renderer_name(os.environ))
    settings, more = api_settings(target, config, app_dsn)
    settings = _completed(settings, more)
    check_database(settings)
    logging.config.dictConfig(LOGGING)
    work = WorkSettings(concurrency=concurrency, longest=Seconds(longest), drain=Seconds(drain))
    asyncio.run(process.run(settings, work, made, metrics_port=metrics_port))
    return 0


def _completed(settings: "Settings", more: dict[str, str]) -> "Settings":
    """With what else the target names, and the environment."""
    from aiprod_ops.service.settings import DSN, from_environment

    os.environ.update(more)  # Redis is found by its variables
    return from_environment({**os.environ, DSN: settings.dsn})
