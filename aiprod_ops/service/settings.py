"""What the API is started with: read once from the environment, passed down."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import Bytes, Seconds

DSN = "AIPROD_OPS_APP_DSN"  #: the environment variable of the API's own identity
REDIS = "REDIS_URL"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one process of the API works. `dsn` is PostgreSQL's, as libpq reads it, of a role that may read and write the
    service's tables; `redis` a URL.
    """

    dsn: str = field(repr=False)
    redis: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    connections: int = 10
    patience: Seconds = Seconds(5)  #: so long a request waits for a connection
    statement: Seconds = Seconds(10)  #: so long a statement may take
    largest_body: Bytes = Bytes(256 * 1024)
    title: str = "AIPROD API"


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment gives; raises ConfigurationError where it names no database.

    >>> from_environment({"AIPROD_OPS_APP_DSN": "dbname=aiprod", "REDIS_HOST": "10.0.0.3", "REDIS_DB": "2"}).redis
    'redis://10.0.0.3:6379/2'
    """
    environ = os.environ if environ is None else environ
    if not environ.get(DSN):
        raise ConfigurationError(
            f"the API does not know its database: {DSN} is not set",
            hint=f"export {DSN}=postgresql://USER@HOST/DATABASE",
        )
    return Settings(dsn=environ[DSN], redis=redis_url(environ))


def redis_url(environ: Mapping[str, str]) -> str:
    """REDIS_URL, or what REDIS_HOST, REDIS_PORT and REDIS_DB say."""
    host, port, database = (
        environ.get(name) or default
        for name, default in (("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", "6379"), ("REDIS_DB", "0"))
    )
    return environ.get(REDIS) or f"redis://{host}:{port}/{database}"
