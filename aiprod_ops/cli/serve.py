"""`serve` and `api-key`: the API on this machine, and the first key to it."""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aiprod_ops.cli import options
from aiprod_ops.errors import ConfigurationError

if TYPE_CHECKING:
    from aiprod_ops.service.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

#: One line each, to stderr: what a client did wrong is in the answer, what we did wrong is here.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("uvicorn", "aiprod_ops")
    },
}


def where(function: F) -> F:
    """Options that say whose API it is."""
    for option in (
        click.option("--target", default="", metavar="NAME", help="Instance from the configuration: its `app` DSN."),
        click.option("--config", default="", metavar="FILE", help="Configuration instead of the user's or the lab's."),
        click.option(
            "--app-dsn", default="", metavar="DSN", envvar="AIPROD_OPS_APP_DSN", callback=options.not_empty,
            help="The API's own identity.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Where it listens.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document instead.")
@where
def serve_command(
    host: str, port: int, workers: int, openapi: bool, target: str, config: str, app_dsn: str
) -> int | None:
    """Serve the API until Ctrl-C. It refuses to start where its schema is missing."""
    require()
    if openapi:
        return _print_document()
    import uvicorn

    from aiprod_ops.service.app import from_environment

    settings, more = api_settings(target, config, app_dsn)
    check_database(settings)
    check_free(host, port)
    # Each worker process reads them again: they are not shown in the process list.
    os.environ.update({"AIPROD_OPS_APP_DSN": settings.dsn, **more})
    os.environ.setdefault("AIPROD_OPS_API_PROCESSES", str(workers))
    with ExitStack() as stack:
        if workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            # Each process writes its series to a file, and whichever is asked adds them up.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aiprod-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from_environment()  # what its settings lack is told now, once, and not by each process
        click.echo(f"The API starts at http://{host}:{port}/api/v1  (its pages: /docs)", err=True)
        stack.enter_context(suppress(KeyboardInterrupt))  # Ctrl-C or SIGTERM, after it has ended what it was doing
        uvicorn.run(
            "aiprod_ops.service.app:from_environment",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_config=LOGGING,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=25,  # seconds: a client that never ends its request does not keep it up
        )
    return None


@click.command("api-key")
@click.argument("email")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(["jobs", "webhooks", "admin"]), default=("jobs",),
    show_default=True, help="What it may do. May be repeated.",
)  # fmt: skip
@click.option("--label", default="made by aiprod-ops", show_default=True, help="What it is called.")
@click.option("--name", default="", help="Of a user that is not there yet. Default: the address.")
@click.option(
    "--tier", type=click.Choice(["free", "pro", "enterprise", "premium"]),
    help="Of a user that is not there yet. Default: free.",
)  # fmt: skip
@where
def api_key_command(
    email: str, scopes: tuple[str, ...], label: str, name: str, tier: str | None, target: str, config: str, app_dsn: str
) -> int:
    """Make an API key for a user, and the user where there is none. The key is printed once."""
    import asyncio

    require()
    from aiprod_ops.service import issuing

    settings, _ = api_settings(target, config, app_dsn)
    click.echo(asyncio.run(issuing.issue(settings, email, name or email, tier or "", label, scopes)))
    return 0


def _print_document() -> int:
    import json

    from aiprod_ops.service.app import create_app
    from aiprod_ops.service.settings import Settings

    click.echo(json.dumps(create_app(Settings(dsn="")).openapi(), indent=1, ensure_ascii=False))
    return 0


def api_settings(target: str, config: str, app_dsn: str) -> "tuple[Settings, dict[str, str]]":
    """The API's settings: the DSN of the command line or of a target; and what else the target names (replicas, Redis,
    service.toml, evidence), as variables of the environment."""
    from aiprod_ops.cli.redaction import learn, learn_secret
    from aiprod_ops.cli.world import settings_of
    from aiprod_ops.service.settings import Settings, redis_variables

    more: dict[str, str] = {}
    if not app_dsn:
        given = settings_of(options.Where(config=config, target=target))
        found = given.target(target)
        app_dsn, url = found.dsn("app"), found.redis_url()
        more = redis_variables(url) if url else {}
        more["AIPROD_OPS_EVIDENCE"] = str(given.state / "evidence")
        more["AIPROD_OPS_APP_REPLICAS"] = "\n".join(found.replicas)
        if given.service is not None:
            more["AIPROD_OPS_SERVICE"] = str(given.service)
        learn_secret(more.get("REDIS_PASSWORD", ""))
    for dsn in (app_dsn, *more.get("AIPROD_OPS_APP_REPLICAS", "").splitlines()):
        learn(dsn)
    return Settings(dsn=app_dsn), more


def check_free(host: str, port: int, option: str = "--port") -> None:
    """Raises ConfigurationError where nobody can listen there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, kind, number, _, address in found:
            with socket.socket(family, kind, number) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened at: {error.strerror}", hint=f"give another {option}"
        ) from error


def check_database(settings: "Settings") -> None:
    import asyncio

    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    from aiprod_ops.service import database

    try:
        conninfo_to_dict(settings.dsn)
    except ProgrammingError as error:  # its text may quote a password
        raise ConfigurationError("the DSN of `app` is not one", hint="postgresql://USER@HOST/DATABASE") from error

    async def look() -> None:
        engine = database.engine(settings)
        try:
            await database.check_ready(engine)
        finally:
            await engine.dispose()

    asyncio.run(look())


def require() -> None:
    """Raise ConfigurationError where the extra `service` is not installed."""
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "psycopg")):
        raise ConfigurationError("the API needs FastAPI, uvicorn and psycopg", hint="pip install 'aiprod-ops[service]'")
