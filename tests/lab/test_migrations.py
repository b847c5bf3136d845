"""The migrations go up, down, and up again after every kind of interruption."""

from collections.abc import Iterator

import pytest

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.lab import faults, postgres
from aiprod_ops.lab.fleet import Fleet

pytestmark = pytest.mark.lab
INDEXES = """
    SELECT c.relname, i.indisvalid, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname LIKE 'idx\\_%' ORDER BY c.relname
"""


def indexes(fleet: Fleet) -> dict[str, bool]:
    return {name: valid for name, valid, _ in postgres.rows(fleet.dsn("aiprod_probe"), INDEXES)}


@pytest.fixture
def at_001(fleet: Fleet) -> Iterator[Fleet]:
    yield fleet
    names = ", ".join(["idx_none", *indexes(fleet)])
    postgres.rows(fleet.dsn("postgres"), f"DROP INDEX IF EXISTS {names}")
    postgres.rows(fleet.dsn("postgres"), "UPDATE alembic_version SET version_num = '001'")


def test_the_eight_come_and_go(at_001: Fleet) -> None:
    dsn = at_001.dsn("postgres")
    postgres.migrate(dsn, "002")
    assert list(indexes(at_001)) == [
        "idx_jobs_created_at",
        "idx_jobs_status",
        "idx_jobs_user_id",
        "idx_jobs_user_status",
        "idx_pipeline_jobs_created_at",
        "idx_pipeline_jobs_status",
        "idx_results_created_at",
        "idx_results_job_id",
    ]
    assert all(indexes(at_001).values())
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'idx\\_%'"
    assert postgres.rows(dsn, owners) == [("aiprod_owner",)]
    postgres.migrate(dsn, "001", downgrade=True)
    assert indexes(at_001) == {}


def test_an_interrupted_build_is_built_again(at_001: Fleet) -> None:
    faults.leave_invalid_index(at_001, "idx_jobs_status", "jobs", "status")
    assert indexes(at_001) == {"idx_jobs_status": False}
    postgres.migrate(at_001.dsn("postgres"), "002")
    assert len(indexes(at_001)) == 8
    assert all(indexes(at_001).values())


def test_what_was_built_before_the_interruption_is_kept(at_001: Fleet) -> None:
    dsn = at_001.dsn("postgres")
    postgres.rows(dsn, "CREATE INDEX idx_jobs_status ON jobs (status)")
    [(before,)] = postgres.rows(dsn, "SELECT 'idx_jobs_status'::regclass::oid::bigint")
    postgres.migrate(dsn, "002")
    assert postgres.rows(dsn, "SELECT 'idx_jobs_status'::regclass::oid::bigint") == [(before,)]


def test_another_index_of_that_name_is_not_accepted(at_001: Fleet) -> None:
    dsn = at_001.dsn("postgres")
    postgres.rows(dsn, "CREATE INDEX idx_jobs_status ON jobs (status, created_at)")
    with pytest.raises(RuntimeError, match="another index named idx_jobs_status"):
        postgres.migrate(dsn, "002")
    assert postgres.rows(dsn, "SELECT version_num FROM alembic_version") == [("001",)]


def test_a_short_lock_timeout_of_the_role_does_not_break_the_wait(at_001: Fleet) -> None:
    dsn = at_001.dsn("postgres")
    postgres.rows(dsn, "ALTER DATABASE aiprod SET lock_timeout = '50ms'")
    try:
        postgres.migrate(dsn, "002")
    finally:
        postgres.rows(dsn, "ALTER DATABASE aiprod RESET lock_timeout")
    assert all(indexes(at_001).values())


def test_a_revision_that_does_not_exist(fleet: Fleet) -> None:
    with pytest.raises(ConfigurationError, match="no migration to 999"):
        postgres.migrate(fleet.dsn("postgres"), "999")
