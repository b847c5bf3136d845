"""The API's database: one engine a process, and what has to be there before it serves."""

import psycopg
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from aiprod_ops.errors import ConfigurationError, Unreachable
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.tables import metadata, service_secrets

_COLUMNS = text("""
select table_name as table, column_name as column from information_schema.columns
where table_schema = any (current_schemas(false)) /* aiprod-ops: whether the API's schema is there */
""")


def engine(
    settings: Settings, *, dsn: str = "", connections: int = 0, application_name: str = "aiprod-ops serve"
) -> AsyncEngine:
    """A pool of connections; it connects when it is first used.

    Statements are never prepared on the server: after ten executions PostgreSQL may change to a generic plan, and the
    worker's pick of waiting jobs went from 0.5 ms to 520 ms by that. Planning each costs some 0.1 ms. Source: measured,
    see decisions/the-api.md; PostgreSQL manual, PREPARE, Notes.
    """

    async def connect() -> psycopg.AsyncConnection[tuple[object, ...]]:
        milliseconds = int(settings.statement * 1000)
        return await psycopg.AsyncConnection.connect(
            dsn or settings.dsn,
            prepare_threshold=None,
            connect_timeout=max(2, int(settings.patience)),
            application_name=application_name,
            # A transaction that nobody goes on with must not hold a job's row for ever.
            options=f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={3 * milliseconds}",
        )

    return create_async_engine(
        "postgresql+psycopg://",
        async_creator=connect,
        pool_size=connections or settings.connections,
        max_overflow=0,
        pool_timeout=settings.patience,
        # An error's text goes into logs: prompts and hashes must not.
        hide_parameters=True,
    )


async def check(connection: AsyncConnection) -> None:
    """Raise ConfigurationError where a table or a column is missing."""
    found: dict[str, set[str]] = {}
    for table, column in await connection.execute(_COLUMNS):
        found.setdefault(table, set()).add(column)
    missing = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if column.name not in found.get(table.name, ())
    ]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise ConfigurationError(
            f"the database lacks what the API needs: {shown}",
            hint="run the migrations (`alembic upgrade head`); for a lab: aiprod-ops lab up --revision head",
        )


async def check_ready(made: AsyncEngine) -> None:
    """Raise Unreachable or ConfigurationError where the API could not serve from this database."""
    try:
        async with made.connect() as connection:
            await check(connection)
    except (psycopg.OperationalError, DBAPIError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Unreachable(f"the API's database does not answer: {reason}", hint="look at the DSN of `app`") from error


async def secret(connection: AsyncConnection, name: str) -> bytes:
    """What all processes share: made by the migration, so that nobody has to configure it."""
    query = select(service_secrets.c.secret).where(service_secrets.c.name == name)
    return bytes((await connection.execute(query)).scalar_one())
