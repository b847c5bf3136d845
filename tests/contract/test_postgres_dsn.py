"""DSNs are read the way libpq reads them, and what cannot be read is never repeated."""

import traceback

import pytest

from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.adapters.postgres.dsn import target
from aiprod_ops.errors import ConfigurationError, OpsError, Unreachable
from aiprod_ops.units import Seconds

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://ops:hunter2@db.example:6543/shop", "ops@db.example:6543/shop"),
        ("postgres://ops@/shop?host=/run/pg&port=5433&passfile=/x", "ops@/run/pg:5433/shop"),
        ("postgresql+psycopg2://ops:hunter2@db.example/shop", "ops@db.example/shop"),
        ("host=db.example user=ops password=hunter2 dbname=shop", "ops@db.example/shop"),
        ("host=a,b port=5432,5433 dbname=shop", "a,b:5432,5433/shop"),
        ("postgresql://ops:p%40ss%2Fhunter2@db.example/shop", "ops@db.example/shop"),
        ("", "localhost"),
    ],
)
def test_dsns_that_are_understood(dsn: str, shown: str) -> None:
    where = target(dsn, "probe")
    assert str(where) == shown
    assert SECRET not in repr(where)


@pytest.mark.parametrize(
    "dsn",
    [
        "db.example hunter2",
        "host=db.example pasword=hunter2",
        "postgresql://ops:hunter2@db.example:port/shop",
        "postgresql://ops:12/hunter2@db.example/shop",
        "postgresql://ops:x/hunter2@db.example/shop",
        "postgresql://ops:a@hunter2@db.example/shop",
        "postgresql://ops:hunter2%zz@db.example/shop",
        "postgresql://ops:hunter2@db.example/shop?sslmod=require",
        "mysql://ops:hunter2@db.example/shop",
        "host=127.0.0.1 port=99999999 password=hunter2",
        "host=127.0.0.1 sslmode=hunter2",
        "host=127.0.0.1 connect_timeout=hunter2",
    ],
)
def test_a_dsn_that_is_not_understood_is_not_repeated(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PostgresDatabase(dsn, writes=False, application_name="test").query("SELECT 1")
    assert "postgresql://USER@HOST" in caught.value.hint
    assert not told(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "nosuch.invalid", "/nosuch"])
def test_no_server_there(host: str) -> None:
    database = PostgresDatabase(
        f"host={host} port=1 user=ops password={SECRET}",
        writes=False,
        application_name="test",
        connect_timeout=Seconds(2),
    )
    with pytest.raises(Unreachable, match=f"No contact to ops@{host}:1") as caught:
        database.server()
    assert "pg_isready" in caught.value.hint
    assert not told(caught.value)
    assert SECRET not in repr(database)


def told(error: OpsError) -> bool:
    """Whether the secret stands anywhere in the error, its causes or its traceback's exceptions."""
    seen: list[BaseException | None] = [error]
    while seen[-1] is not None:
        seen.append(seen[-1].__cause__ or seen[-1].__context__)
    texts = [text for each in seen if each is not None for text in (str(each), repr(each), repr(each.args))]
    texts += [error.hint, *traceback.TracebackException.from_exception(error).format_exception_only()]
    return any(SECRET in text for text in texts)
