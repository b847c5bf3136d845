"""Create AIPROD's schema: users, API keys, jobs, results and pipeline jobs.

The referencing side of the foreign keys has no index, as in the first version of the service.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = None
branch_labels = None
depends_on = None

STATUSES = ("queued", "processing", "completed", "failed", "cancelled")
PRIORITIES = ("low", "normal", "high", "urgent")
PRESETS = ("quick_social", "brand_campaign", "premium_spot")
LANGUAGES = ("en", "fr", "es", "de", "it", "pt", "ja", "zh", "ko")
TIERS = ("free", "pro", "enterprise", "premium")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.create_table(
        "users",
        _key(),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        _choice("tier", TIERS),
        _time("created_at"),
    )
    op.create_table(
        "api_keys",
        _key(),
        _reference("user_id", "users.id"),
        sa.Column("key_hash", sa.Text, nullable=False, comment="SHA-256 of the key; the key itself is never stored"),
        sa.Column("label", sa.Text, nullable=False),
        _time("created_at"),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "jobs",
        _key(),
        _reference("user_id", "users.id"),
        _choice("status", STATUSES),
        _choice("priority", PRIORITIES),
        _choice("preset", PRESETS),
        _choice("language", LANGUAGES),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        _time("created_at"),
        _time("updated_at"),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "results",
        _key(),
        _reference("job_id", "jobs.id"),
        sa.Column("video_url", sa.Text, nullable=False),
        sa.Column("thumbnail_url", sa.Text, nullable=False),
        sa.Column("duration_seconds", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("quality_score", sa.REAL, nullable=False),
        _time("created_at"),
    )
    op.create_table(
        "pipeline_jobs",
        _key(),
        _reference("job_id", "jobs.id"),
        _choice("status", STATUSES),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        _time("created_at"),
        _time("updated_at"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in ("pipeline_jobs", "results", "jobs", "api_keys", "users"):
        op.drop_table(table)


def _key() -> sa.Column[str]:
    return sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True)


def _reference(name: str, target: str) -> sa.Column[str]:
    return sa.Column(name, sa.Uuid(as_uuid=False), sa.ForeignKey(target), nullable=False)


def _choice(name: str, values: tuple[str, ...]) -> sa.Column[str]:
    allowed = ", ".join(f"'{value}'" for value in values)
    return sa.Column(name, sa.Text, sa.CheckConstraint(f"{name} IN ({allowed})"), nullable=False)


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
