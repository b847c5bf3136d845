"""Create what webhooks need: endpoints with their secrets, events (an outbox), their deliveries, and each attempt.

An event is written in the transaction of the change that it tells, with a delivery for each endpoint that wants it.
A delivery that is due is leased by whoever sends it; a replay makes the same one due again, so that its id is stable.
Nothing that exists is altered, and no table is rewritten.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None

LARGEST_KEPT_BYTES = 2048  #: of a response's body


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for create in (_endpoints, _secrets, _events, _deliveries, _attempts):
        create()


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    for table in ("attempts", "deliveries", "events", "secrets", "endpoints"):
        op.drop_table(f"webhook_{table}")


def _endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        _id(),
        _reference("user_id", "users.id"),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", ARRAY(sa.Text), nullable=False, comment="types that it wants; none: all"),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.Column(
            "state",
            sa.Text,
            sa.CheckConstraint("state IN ('enabled', 'disabled')"),
            nullable=False,
            server_default="enabled",
        ),
        sa.Column("why_disabled", sa.Text),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column(
            "failures_in_a_row", sa.Integer, nullable=False, server_default="0", comment="deliveries that failed"
        ),
        sa.Column("ordered", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("long_tail", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("in_flight", sa.SmallInteger, nullable=False, server_default="10", comment="at the same time"),
        sa.Column("per_second", sa.Integer, comment="so many a second, at most; NULL: as fast as it answers"),
        _time("created_at"),
        _time("updated_at"),
    )
    op.create_index("idx_webhook_endpoints_user_id_id", "webhook_endpoints", ["user_id", "id"])


def _secrets() -> None:
    op.create_table(
        "webhook_secrets",
        _id(),
        _reference("endpoint_id", "webhook_endpoints.id", ondelete="CASCADE"),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), comment="after a rotation: the end of the overlap"),
    )
    op.create_index("idx_webhook_secrets_endpoint_id", "webhook_secrets", ["endpoint_id"])


def _events() -> None:
    op.create_table(
        "webhook_events",
        _id(),
        _reference("user_id", "users.id"),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False, comment="the bytes that are signed and sent"),
        _time("created_at"),
    )
    op.create_index("idx_webhook_events_user_id_id", "webhook_events", ["user_id", "id"])


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        _id(),
        _reference("event_id", "webhook_events.id", ondelete="CASCADE"),
        _reference("endpoint_id", "webhook_endpoints.id", ondelete="CASCADE"),
        sa.Column(
            "state",
            sa.Text,
            sa.CheckConstraint("state IN ('pending', 'delivered', 'failed', 'cancelled')"),
            nullable=False,
            server_default="pending",
        ),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _time("due_at"),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("leased_by", sa.Text),
        _time("created_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("event_id", "endpoint_id", name="webhook_deliveries_once"),
        sa.CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="webhook_deliveries_ended"),
    )
    pending = sa.text("state = 'pending'")
    op.create_index("idx_webhook_deliveries_due", "webhook_deliveries", ["due_at"], postgresql_where=pending)
    op.create_index(
        "idx_webhook_deliveries_endpoint_due", "webhook_deliveries", ["endpoint_id", "due_at"], postgresql_where=pending
    )
    op.create_index("idx_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"])


def _attempts() -> None:
    op.create_table(
        "webhook_attempts",
        _reference("delivery_id", "webhook_deliveries.id", ondelete="CASCADE"),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("milliseconds", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, comment="of HTTP; NULL where there was no answer"),
        sa.Column("error", sa.Text, comment="a code; NULL where there was an answer"),
        sa.Column(
            "response_body", sa.LargeBinary, sa.CheckConstraint(f"length(response_body) <= {LARGEST_KEPT_BYTES}")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
    )


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True)


def _reference(name: str, to: str, *, ondelete: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Uuid(as_uuid=False), sa.ForeignKey(to, ondelete=ondelete), nullable=False)


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
