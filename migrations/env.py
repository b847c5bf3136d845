"""How Alembic reaches the database: the caller's connection, or the environment variable AIPROD_OPS_DSN."""

import os

import psycopg2
from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from aiprod_ops.errors import ConfigurationError

VARIABLE = "AIPROD_OPS_DSN"


def migrate(connection: Connection) -> None:
    """Run the migrations, each in a transaction of its own: a concurrent build cannot be in one."""
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def from_environment() -> None:
    """Connect with the DSN in the environment."""
    dsn = os.environ.get(VARIABLE)
    if not dsn:
        raise ConfigurationError(
            f"Alembic does not know the database: {VARIABLE} is not set", hint=f"export {VARIABLE}=postgresql://…"
        )
    # libpq reads the DSN itself: each form that it knows works, and no driver is guessed from the URL.
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn), poolclass=NullPool)
    with engine.connect() as connection:
        migrate(connection)


if context.is_offline_mode():
    raise ConfigurationError("the migrations look at the database while they run: `--sql` cannot write them down")
if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    from_environment()
