"""`usage`: what the jobs of a month cost, for billing."""

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli.serve import api_settings, require, where
from aiprod_ops.errors import UsageError

if TYPE_CHECKING:
    from aiprod_ops.service.settings import Settings


@click.command("usage")
@click.argument("month", required=False, default="")
@click.option("--user", "email", default="", metavar="EMAIL", help="Only of this user.")
@click.option(
    "--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True,
    help="CSV (RFC 4180), or a JSON object a line.",
)  # fmt: skip
@where
def usage_command(month: str, email: str, form: str, target: str, config: str, app_dsn: str) -> int:
    """Write what the jobs of MONTH (UTC, such as 2026-11; default: the present one) cost to standard output.

    An entry a job, oldest first. Cost units are whole numbers: their sum is exact.
    """
    import asyncio

    require()
    first = _first_day(month)
    settings, _ = api_settings(target, config, app_dsn)
    asyncio.run(_write(settings, first, email, form))
    return 0


def _first_day(month: str) -> date:
    if not month:
        return datetime.now(UTC).date().replace(day=1)
    try:
        return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise UsageError(f"{month!r} is no month", hint="aiprod-ops usage 2026-11") from error


async def _write(settings: "Settings", month: date, email: str, form: str) -> None:
    from aiprod_ops.service import database
    from aiprod_ops.service.operations import users
    from aiprod_ops.service.usage import export

    out = sys.stdout.buffer
    engine = database.engine(settings)
    try:
        await database.check_ready(engine)
        async with engine.connect() as connection:
            user = await users.found(connection, email) if email else None
            if email and user is None:
                raise UsageError(f"there is no user with the address {email!r}")
            whose = None if user is None else user["id"]
            if form == "csv":
                pieces = export.as_csv(connection, month, whose)
            else:
                pieces = export.as_json_lines(connection, month, whose)
            async for piece in pieces:
                out.write(piece)
        out.flush()
    finally:
        await engine.dispose()
