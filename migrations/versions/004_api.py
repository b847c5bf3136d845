"""Add what the API keeps: a job's title, length and progress, keys with scopes and an end, answers to repeated POSTs.

Every new column has a constant default, so that no table is rewritten (PostgreSQL manual, ALTER TABLE, Notes). The
indexes are built first, concurrently, and each step of it can be repeated: what an interrupted build left behind is
dropped and built again. Jobs are listed by id, which grows with time; their owner's index alone would sort.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import JSONB

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

INDEXES = (
    ("idx_jobs_user_id_id", "jobs (user_id, id)"),
    ("idx_pipeline_jobs_job_id", "pipeline_jobs (job_id)"),
    ("idx_api_keys_user_id", "api_keys (user_id)"),
    ("idx_users_email", "users (lower(email))"),
)
JOBS = (
    ("title", "text NOT NULL DEFAULT ''"),
    ("duration_seconds", "integer NOT NULL DEFAULT 30"),
    ("aspect_ratio", "text NOT NULL DEFAULT '16:9'"),
    ("reference_urls", "text[] NOT NULL DEFAULT '{}'"),
    ("progress", "smallint NOT NULL DEFAULT 0"),
    ("error_code", "text"),
)
KEYS = (
    ("prefix", "text"),
    ("scopes", "text[] NOT NULL DEFAULT '{jobs}'"),
    ("expires_at", "timestamptz"),
)
INVALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"


def upgrade() -> None:
    with op.get_context().autocommit_block(), _no_timeouts(op.get_bind()) as connection:
        for name, target in INDEXES:
            if connection.execute(text(INVALID), {"name": name}).first():
                connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
            connection.execute(text(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {target}"))
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table, columns in (("jobs", JOBS), ("api_keys", KEYS)):
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in columns))
    op.create_index("api_keys_prefix_key", "api_keys", ["prefix"], unique=True)
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid(as_uuid=False), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False, comment="SHA-256 of method, path and body"),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("user_id", "key"),
    )
    op.create_index("idx_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    made = op.create_table(
        "service_secrets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
    )
    # What all processes of the API have to share, and nobody has to configure: cursors are sealed with it.
    op.bulk_insert(made, [{"name": "cursors", "secret": secrets.token_bytes(32)}])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.drop_table("service_secrets")
    op.drop_table("idempotency_keys")
    op.drop_index("api_keys_prefix_key")
    for table, columns in (("jobs", JOBS), ("api_keys", KEYS)):
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"DROP COLUMN {name}" for name, _ in columns))
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
