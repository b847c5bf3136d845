"""Validate the batch of a job, and index the jobs that wait, those of a batch, and those
that count against a tier's number at a time.

Each step can be repeated: what an interrupted build left behind is dropped and built again.
Source: PostgreSQL manual, ALTER TABLE, Notes; CREATE INDEX, "Building Indexes Concurrently".
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text

revision = "007"
down_revision = "006"
branch_labels = None
depends_on = None

#: The order in which waiting jobs are taken; `aiprod_ops.service.working.claims` asks in these words.
RANK = "(CASE priority WHEN 'urgent' THEN 0 WHEN 'high' THEN 1 WHEN 'normal' THEN 2 ELSE 3 END)"
INDEXES = (
    ("idx_jobs_waiting", f"jobs (user_id, {RANK}, batch_position, id) WHERE status = 'queued'"),
    ("idx_jobs_batch", "jobs (batch_id, status, batch_position) WHERE batch_id IS NOT NULL"),
    ("idx_jobs_under_way", "jobs (user_id) WHERE status IN ('queued', 'processing') AND batch_id IS NULL"),
)
INVALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"


def upgrade() -> None:
    with op.get_context().autocommit_block(), _no_timeouts(op.get_bind()) as connection:
        connection.execute(text("ALTER TABLE jobs VALIDATE CONSTRAINT jobs_batch_id_fkey"))
        for name, target in INDEXES:
            if connection.execute(text(INVALID), {"name": name}).first():
                connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
            connection.execute(text(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {target}"))


def downgrade() -> None:
    with op.get_context().autocommit_block(), _no_timeouts(op.get_bind()) as connection:
        for name, _ in INDEXES:
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


@contextmanager
def _no_timeouts(connection: Connection) -> Iterator[Connection]:
    """Whatever the role or the database sets, for the time of the builds: giving up is what leaves INVALID ones."""
    for setting in ("lock_timeout", "statement_timeout"):
        connection.execute(text(f"SET {setting} = 0"))
    yield connection
    for setting in ("lock_timeout", "statement_timeout"):
        connection.execute(text(f"RESET {setting}"))
