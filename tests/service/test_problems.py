"""What an exception is to a client, and what is logged of it."""

import errno
import logging

import pytest
from starlette.requests import ClientDisconnect

from aiprod_ops.service.http import problems


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_on_the_disk_may_go_away_by_itself(number: int, caplog: pytest.LogCaptureFixture) -> None:
    told = problems.of(OSError(number, "no room"), "r1")
    assert (told.kind.status, told.headers["Retry-After"]) == (503, "1")
    assert "no room on the server's disk" in told.detail
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, None)


def test_another_error_of_the_system_is_ours() -> None:
    assert problems.of(OSError(errno.EIO, "broken"), "r1").kind.status == 500


def test_a_client_that_breaks_off_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert problems.of(ClientDisconnect(), "r1").kind.status == 400
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
