"""The API's database: one engine a process, and what has to be there before it serves."""

import psycopg
from sqlalchemy import ExceptionContext, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from aiprod_ops.errors import ConfigurationError, Unreachable
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.tables import metadata, service_secrets

#: From the catalogue: what the role may not read would be missing in information_schema.
_COLUMNS = text("""
select c.relname as table, a.attname as column, has_table_privilege(c.oid, 'SELECT') as may_read
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = any (select oid from pg_namespace where nspname = any (current_schemas(false)))
  and c.relkind in ('r', 'p', 'v') /* aiprod-ops: whether the API's schema is there */
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

    made = create_async_engine(
        "postgresql+psycopg://",
        async_creator=connect,
        pool_size=connections or settings.connections,
        max_overflow=0,
        pool_timeout=settings.patience,
        # An error's text goes into logs: prompts and hashes must not.
        hide_parameters=True,
    )
    event.listen(made.sync_engine, "handle_error", _leave_a_standby)
    return made


def _leave_a_standby(context: ExceptionContext) -> None:
    """A server that takes no writes was the primary, maybe: the name leads to another one now. So its connections are
    closed, as after a lost contact."""
    if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
        context.is_disconnect = True


async def check(connection: AsyncConnection) -> None:
    """Raise ConfigurationError where a table or a column is missing, or where the role may not read it."""
    found: dict[str, set[str]] = {}
    closed: set[str] = set()
    for table, column, may_read in await connection.execute(_COLUMNS):
        found.setdefault(table, set()).add(column)
        if not may_read and table in metadata.tables:
            closed.add(table)
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
    if closed:
        raise ConfigurationError(
            f"the API's role may not read {', '.join(sorted(closed))}",
            hint="as their owner: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO …",
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
