"""Add the eight indexes of the performance plan, built concurrently.

Each step can be repeated: what an interrupted build left behind (an INVALID index) is dropped and built again, a valid
index with the same definition is kept, and one with another definition stops the migration. There is no lock_timeout:
while it waits, a concurrent build blocks nobody, and giving up there is what leaves INVALID indexes behind.
Source: PostgreSQL manual, CREATE INDEX, "Building Indexes Concurrently".
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None

INDEXES = (
    ("idx_jobs_status", "jobs", ("status",)),
    ("idx_jobs_created_at", "jobs", ("created_at",)),
    ("idx_jobs_user_id", "jobs", ("user_id",)),
    ("idx_jobs_user_status", "jobs", ("user_id", "status")),
    ("idx_results_job_id", "results", ("job_id",)),
    ("idx_results_created_at", "results", ("created_at",)),
    ("idx_pipeline_jobs_status", "pipeline_jobs", ("status",)),
    ("idx_pipeline_jobs_created_at", "pipeline_jobs", ("created_at",)),
)

EXISTING = """
    SELECT i.indisvalid AS valid, pg_get_indexdef(i.indexrelid) AS definition, n.nspname AS schema,
           (SELECT p.pid FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS builder
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :name AND i.indrelid = to_regclass(:table)
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        with _no_timeouts(connection):
            for name, table, columns in INDEXES:
                _build(connection, name, table, columns)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        with _no_timeouts(connection):
            for name, _, _ in reversed(INDEXES):
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


@contextmanager
def _no_timeouts(connection: Connection) -> Iterator[None]:
    """Whatever the role or the database sets, for the time of the builds."""
    for setting in ("lock_timeout", "statement_timeout"):
        connection.execute(text(f"SET {setting} = 0"))
    yield
    for setting in ("lock_timeout", "statement_timeout"):
        connection.execute(text(f"RESET {setting}"))


def _build(connection: Connection, name: str, table: str, columns: tuple[str, ...]) -> None:
    existing = connection.execute(text(EXISTING), {"name": name, "table": table}).mappings().one_or_none()
    if existing is not None and existing["valid"]:
        keys = ", ".join(columns)
        wanted = f"CREATE INDEX {name} ON {existing['schema']}.{table} USING btree ({keys})"
        if existing["definition"] != wanted:
            raise RuntimeError(
                f"there is another index named {name}: {existing['definition']}; expected: {wanted}. "
                f"Rename or drop it, then run the migration again."
            )
        return
    if existing is not None and existing["builder"] is not None:
        raise RuntimeError(f"{name} is being built by another session (pid {existing['builder']}): wait for it to end.")
    if existing is not None:
        connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
    connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON {table} ({', '.join(columns)})"))
