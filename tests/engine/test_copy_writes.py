"""Whether a restored copy can be written to: what counts against its backup, and what does not."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from aiprod_ops.actions.figures import writable
from aiprod_ops.domain.findings import Status
from aiprod_ops.errors import Failed, OpsError, PermissionMissing
from aiprod_ops.ports import Database


class Refusing:
    """A database in which each statement fails."""

    def __init__(self, error: OpsError) -> None:
        self.error = error

    def execute(self, text: str, *, names: Mapping[str, Any]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Failed("could not extend file (SQLSTATE 53100)"), Status.CRITICAL),
        (Failed("no DDL here (SQLSTATE P0001)"), Status.WARNING),
        (PermissionMissing("permission denied for database app"), Status.UNKNOWN),
    ],
)
def test_a_failed_write(error: OpsError, status: Status) -> None:
    finding = writable(cast("Database", Refusing(error)))
    assert finding.status is status
    assert error.message in finding.note
