"""What the API is started with: read once from the environment, passed down."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import Bytes, Seconds

DSN = "AIPROD_OPS_APP_DSN"  #: the environment variable of the API's own identity
REPLICAS = "AIPROD_OPS_APP_REPLICAS"  #: DSNs of its replicas, one a line
PRIVATE_WEBHOOKS = "AIPROD_OPS_PRIVATE_WEBHOOKS"  #: "1": endpoints may be http:// and private, as in a lab
SERVICE = "AIPROD_OPS_SERVICE"  #: a `service.toml` of one's own
EVIDENCE = "AIPROD_OPS_EVIDENCE"  #: the folder of sealed evidence
PROCESSES = (
    "AIPROD_OPS_API_PROCESSES"  #: that serve, on all machines together: each has its part of a limit without Redis
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How one process of the API works. `dsn` is PostgreSQL's, as libpq reads it, of a role that may read and write the
    service's tables, `replicas` are those of servers whose lag its health tells. `evidence` holds when a backup was
    last verified; `processes` share the limits.
    """

    dsn: str = field(repr=False)
    connections: int = 10
    patience: Seconds = Seconds(5)  #: so long a request waits for a connection
    statement: Seconds = Seconds(10)  #: so long a statement may take
    largest_body: Bytes = Bytes(256 * 1024)
    private_webhooks: bool = False  #: in a lab: endpoints at http:// and at private addresses
    replicas: tuple[str, ...] = field(default=(), repr=False)
    service: Path | None = None
    evidence: Path | None = None
    processes: int = 1


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment gives; raises ConfigurationError where it names no database."""
    environ = os.environ if environ is None else environ
    if not environ.get(DSN):
        raise ConfigurationError(
            f"the API does not know its database: {DSN} is not set",
            hint=f"export {DSN}=postgresql://USER@HOST/DATABASE",
        )
    processes = environ.get(PROCESSES) or "1"
    if not processes.isdecimal() or int(processes) < 1:
        raise ConfigurationError(f"{PROCESSES} is {processes!r}, expected a whole number from 1")
    return Settings(
        dsn=environ[DSN],
        replicas=tuple(line for line in environ.get(REPLICAS, "").splitlines() if line.strip()),
        service=Path(environ[SERVICE]) if environ.get(SERVICE) else None,
        evidence=Path(environ[EVIDENCE]) if environ.get(EVIDENCE) else None,
        processes=int(processes),
        private_webhooks=environ.get(PRIVATE_WEBHOOKS) == "1",
    )


def redis_variables(url: str) -> dict[str, str]:
    """What REDIS_HOST and its siblings are for the Redis at a URL; raises ConfigurationError, without quoting it.

    >>> redis_variables("redis://app:w%2Ford@cache/2")["REDIS_PASSWORD"]
    'w/ord'
    """
    try:
        parts = urlsplit(url)
        port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
    except ValueError:
        parts, port, database = urlsplit(""), 0, 0
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigurationError(
            "the URL of Redis is not one",
            hint="redis://USER:PASSWORD@HOST:6379/0, rediss:// with TLS; in a password write @ / : as %40 %2F %3A",
        )
    return {
        "REDIS_HOST": parts.hostname,
        "REDIS_PORT": str(port),
        "REDIS_DB": str(database),
        "REDIS_USERNAME": unquote(parts.username or ""),
        "REDIS_PASSWORD": unquote(parts.password or ""),
        "REDIS_TLS": str(int(parts.scheme == "rediss")),
    }
