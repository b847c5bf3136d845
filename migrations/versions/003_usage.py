"""Create the usage ledger: what each job cost, the sum of each user's month, and the warnings that came of it.

The ledger is only ever added to: a trigger refuses all else, whatever role asks. Cost units are whole numbers, so that
a month's sum is exact. Nothing that exists is altered, and no table is rewritten.
"""

from datetime import date

import sqlalchemy as sa
from alembic import op

revision = "003"
down_revision = "002"
branch_labels = None
depends_on = None

PRESETS = ("quick_social", "brand_campaign", "premium_spot")

REFUSAL = """
CREATE FUNCTION refuse_change_of_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the usage ledger is only added to: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', HINT = 'Correct an entry by another one.';
END
$$
"""
TRIGGER = """
CREATE TRIGGER usage_is_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON usage
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_usage()
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    allowed = ", ".join(f"'{preset}'" for preset in PRESETS)
    op.create_table(
        "usage",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _user(),
        sa.Column("job_id", sa.Uuid(as_uuid=False), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("preset", sa.Text, sa.CheckConstraint(f"preset IN ({allowed})"), nullable=False),
        sa.Column("seconds", sa.Integer, sa.CheckConstraint("seconds >= 0"), nullable=False),
        sa.Column("cost_units", sa.BigInteger, sa.CheckConstraint("cost_units >= 0"), nullable=False),
        sa.Column(
            "moment", sa.DateTime(timezone=True), nullable=False, comment="when the job ended: its UTC month pays"
        ),
        sa.UniqueConstraint("job_id", name="usage_once_a_job"),
    )
    op.create_index("idx_usage_user_id_moment", "usage", ["user_id", "moment"])
    op.create_index("idx_usage_moment", "usage", ["moment", "id"])
    op.create_table(
        "usage_months",
        _user(primary_key=True),
        _month(),
        sa.Column("cost_units", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "usage_warnings",
        _user(primary_key=True),
        _month(),
        sa.Column("percent", sa.SmallInteger, primary_key=True),
        sa.Column("cost_units", sa.BigInteger, nullable=False, comment="spent when it was reached"),
        sa.Column("monthly_cost_units", sa.BigInteger, nullable=False, comment="what the tier allowed then"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.execute(REFUSAL)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in ("usage_warnings", "usage_months", "usage"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change_of_usage()")


def _user(*, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "user_id", sa.Uuid(as_uuid=False), sa.ForeignKey("users.id"), primary_key=primary_key, nullable=False
    )


def _month() -> sa.Column[date]:
    return sa.Column(
        "month",
        sa.Date(),
        sa.CheckConstraint("extract(day FROM month) = 1"),
        primary_key=True,
        comment="its first day, UTC",
    )
