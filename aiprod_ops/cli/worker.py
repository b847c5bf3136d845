"""`worker`: renders jobs, does periodic work, delivers webhooks, until it is told to end."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli.serve import LOGGING, api_settings, check_database, check_free, require, where

if TYPE_CHECKING:
    from aiprod_ops.ports import Sender
    from aiprod_ops.service.settings import Settings
    from aiprod_ops.service.working.rendering import Renderer


@click.command("worker")
@click.option(
    "--concurrency", type=click.IntRange(0, 1000), default=8, show_default=True,
    help="Jobs at a time; 0: only webhooks and periodic work.",
)  # fmt: skip
@click.option(
    "--renderer", default="", metavar="MODULE:NAME", envvar="AIPROD_OPS_RENDERER",
    help="What renders a job: an object with `render`, or its class.",
)  # fmt: skip
@click.option(
    "--longest", type=click.FloatRange(min=0, min_open=True), default=1800, show_default=True,
    help="Seconds that an attempt at a job may take.",
)  # fmt: skip
@click.option(
    "--attempts", type=click.IntRange(1, 1000), default=3, show_default=True,
    help="Attempts at a job, until it has failed; one whose worker was lost counts.",
)  # fmt: skip
@click.option(
    "--drain", type=click.FloatRange(min=0), default=20, show_default=True,
    help="Seconds that jobs may go on after SIGTERM; then they are given back.",
)  # fmt: skip
@click.option(
    "--sender", type=click.Choice(["aiohttp", "pycurl", "none"]), default="aiohttp", show_default=True,
    help="What webhooks are sent with; none: they are not.",
)  # fmt: skip
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Where Prometheus asks, on the loopback.")
@where
def worker_command(
    concurrency: int, renderer: str, longest: float, attempts: int, drain: float, sender: str,
    metrics_port: int | None, target: str, config: str, app_dsn: str,
) -> int:  # fmt: skip
    """Work until SIGTERM or Ctrl-C. On as many machines as you like: who is killed is taken over from within 10 s."""
    import asyncio
    import logging.config

    require()
    from aiprod_ops.service.working import process
    from aiprod_ops.service.working.settings import WorkSettings
    from aiprod_ops.units import Seconds

    if metrics_port is not None:
        check_free("127.0.0.1", metrics_port, "--metrics-port")
    made = _renderer(concurrency, renderer)
    settings = _completed(*api_settings(target, config, app_dsn))
    check_database(settings)
    logging.config.dictConfig(LOGGING)
    work = WorkSettings(concurrency=concurrency, longest=Seconds(longest), most_attempts=attempts, drain=Seconds(drain))
    send = _sender(sender, private=settings.private_webhooks)
    asyncio.run(process.run(settings, work, made, send, metrics_port=metrics_port))
    return 0


def _renderer(concurrency: int, name: str) -> "Renderer":
    from aiprod_ops.service.working import rendering
    from aiprod_ops.service.working.settings import renderer_name

    return rendering.load(name or renderer_name(os.environ)) if concurrency else rendering.Nothing()


def _sender(name: str, *, private: bool) -> "Callable[[], Sender] | None":
    """What makes it: inside of the loop, where it belongs."""
    from aiprod_ops.errors import ConfigurationError

    if name == "none":
        return None
    if name == "aiohttp":
        from aiprod_ops.adapters.aiohttp_sender import AiohttpSender

        return lambda: AiohttpSender(private=private)
    try:
        from aiprod_ops.adapters.pycurl_sender import PycurlSender
    except ModuleNotFoundError as error:
        raise ConfigurationError("--sender pycurl needs pycurl", hint="pip install 'aiprod-ops[pycurl]'") from error
    return lambda: PycurlSender(private=private)


def _completed(settings: "Settings", more: dict[str, str]) -> "Settings":
    """With what else the target names, and the environment."""
    from aiprod_ops.service.settings import DSN, from_environment

    os.environ.update(more)  # Redis is found by its variables
    return from_environment({**os.environ, DSN: settings.dsn})
