"""What a user of the service library imports: cheap, and without the extra until something of it is used."""

import subprocess
import sys

import pytest

from aiprod_ops import service


def test_the_import_is_cheap() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import aiprod_ops.service, sys; print(*sorted(sys.modules))"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    heavy = {"fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg", "redis", "uvicorn"}
    assert heavy.isdisjoint(said)


def test_every_name_leads_somewhere() -> None:
    for name in service._NAMES:
        assert getattr(service, name) is not None, name
    assert set(service._NAMES) <= set(dir(service))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        service.nothing  # noqa: B018
