"""The tables that the API reads and writes, as the migrations leave them: for SQLAlchemy's Core."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL

metadata = MetaData()
_MOMENT = DateTime(timezone=True)
_ID = Uuid(as_uuid=False)

users = Table(
    "users",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("email", Text),
    Column("name", Text),
    Column("tier", Text),
    Column("created_at", _MOMENT),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID),
    Column("key_hash", Text),
    Column("label", Text),
    Column("prefix", Text),
    Column("scopes", ARRAY(Text)),
    Column("expires_at", _MOMENT),
    Column("created_at", _MOMENT),
    Column("revoked_at", _MOMENT),
)
jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID),
    Column("status", Text),
    Column("priority", Text),
    Column("preset", Text),
    Column("language", Text),
    Column("prompt", Text),
    Column("title", Text),
    Column("duration_seconds", Integer),
    Column("aspect_ratio", Text),
    Column("reference_urls", ARRAY(Text)),
    Column("progress", SmallInteger),
    Column("attempts", SmallInteger),
    Column("error", Text),
    Column("error_code", Text),
    Column("created_at", _MOMENT),
    Column("updated_at", _MOMENT),
    Column("completed_at", _MOMENT),
    Column("worker", Text),
    Column("started_at", _MOMENT),
    Column("heartbeat_at", _MOMENT),
    Column("due_at", _MOMENT),
    Column("batch_id", _ID),
    Column("batch_position", Integer),
)
batches = Table(
    "batches",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID),
    Column("jobs", Integer),
    Column("rejected", Integer),
    Column("errors", JSONB),
    Column("retry_of", _ID),
    Column("created_at", _MOMENT),
    Column("cancelled_at", _MOMENT),
    Column("completed_at", _MOMENT),
)
periodic_work = Table(
    "periodic_work",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due_at", _MOMENT),
    Column("ended_at", _MOMENT),
)
results = Table(
    "results",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job_id", _ID),
    Column("video_url", Text),
    Column("thumbnail_url", Text),
    Column("duration_seconds", Integer),
    Column("size_bytes", BigInteger),
    Column("quality_score", REAL),
    Column("created_at", _MOMENT),
    Column("crc32", BigInteger),
    Column("sha256", LargeBinary),
)
pipeline_jobs = Table(
    "pipeline_jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job_id", _ID),
    Column("status", Text),
    Column("stage", Text),
    Column("worker", Text),
    Column("created_at", _MOMENT),
    Column("updated_at", _MOMENT),
)
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", _ID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary),
    Column("status", SmallInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    Column("created_at", _MOMENT),
)
service_secrets = Table(
    "service_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary),
)
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID),
    Column("url", Text),
    Column("events", ARRAY(Text)),
    Column("description", Text),
    Column("state", Text),
    Column("why_disabled", Text),
    Column("disabled_at", _MOMENT),
    Column("failures_in_a_row", Integer),
    Column("ordered", Boolean),
    Column("long_tail", Boolean),
    Column("in_flight", SmallInteger),
    Column("per_second", Integer),
    Column("created_at", _MOMENT),
    Column("updated_at", _MOMENT),
)
webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("endpoint_id", _ID),
    Column("secret", LargeBinary),
    Column("created_at", _MOMENT),
    Column("expires_at", _MOMENT),
)
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("user_id", _ID),
    Column("type", Text),
    Column("payload", LargeBinary),
    Column("created_at", _MOMENT),
)
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("event_id", _ID),
    Column("endpoint_id", _ID),
    Column("state", Text),
    Column("attempts", Integer),
    Column("due_at", _MOMENT),
    Column("lease_until", _MOMENT),
    Column("leased_by", Text),
    Column("created_at", _MOMENT),
    Column("ended_at", _MOMENT),
)
webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", _ID, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("began_at", _MOMENT),
    Column("milliseconds", Integer),
    Column("status", SmallInteger),
    Column("error", Text),
    Column("response_body", LargeBinary),
)
usage = Table(
    "usage",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("user_id", _ID),
    Column("job_id", _ID),
    Column("preset", Text),
    Column("seconds", Integer),
    Column("cost_units", BigInteger),
    Column("moment", _MOMENT),
)
usage_months = Table(
    "usage_months",
    metadata,
    Column("user_id", _ID, primary_key=True),
    Column("month", Date, primary_key=True),
    Column("cost_units", BigInteger),
)
usage_warnings = Table(
    "usage_warnings",
    metadata,
    Column("user_id", _ID, primary_key=True),
    Column("month", Date, primary_key=True),
    Column("percent", SmallInteger, primary_key=True),
    Column("created_at", _MOMENT),
)
