"""Add what the worker and batches keep: who works on a job and was last heard when, a job's place in its batch,
batches, periodic work, and the checksums of results.

New columns are null or have a constant default, so that no table is rewritten; the foreign key is validated by 007,
under a lock that lets everybody work. Source: PostgreSQL manual, ALTER TABLE, Notes.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "006"
down_revision = "005"
branch_labels = None
depends_on = None

JOBS = (
    ("worker", "text"),
    ("started_at", "timestamptz"),
    ("heartbeat_at", "timestamptz"),
    ("due_at", "timestamptz"),
    ("batch_id", "uuid"),
    ("batch_position", "integer NOT NULL DEFAULT 0"),
)
RESULTS = (("crc32", "bigint"), ("sha256", "bytea"))


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("user_id", sa.Uuid(as_uuid=False), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("jobs", sa.Integer, nullable=False, comment="that were accepted"),
        sa.Column("rejected", sa.Integer, nullable=False, server_default="0", comment="items that were not"),
        sa.Column("errors", JSONB, nullable=False, server_default="[]", comment="of the first rejected items"),
        sa.Column("retry_of", sa.Uuid(as_uuid=False), comment="the batch whose failed jobs these are"),
        _time("created_at"),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True), comment="when every job had ended, and it was told"),
    )
    op.create_index("idx_batches_user_id_id", "batches", ["user_id", "id"])
    op.create_index("idx_batches_open", "batches", ["id"], postgresql_where=sa.text("completed_at IS NULL"))
    once = sa.text("retry_of IS NOT NULL AND cancelled_at IS NULL")
    op.create_index("idx_batches_retry_of", "batches", ["retry_of"], unique=True, postgresql_where=once)
    op.create_table(
        "periodic_work",
        sa.Column("name", sa.Text, primary_key=True),
        _time("due_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    for table, columns in (("jobs", JOBS), ("results", RESULTS)):
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in columns))
    op.execute(
        "ALTER TABLE jobs ADD CONSTRAINT jobs_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES batches (id) NOT VALID"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table, columns in (("jobs", JOBS), ("results", RESULTS)):
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"DROP COLUMN {name}" for name, _ in columns))
    op.drop_table("periodic_work")
    op.drop_table("batches")


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
