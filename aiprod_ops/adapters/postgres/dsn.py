"""DSNs as people write them, read by libpq's own parser without ever repeating the password."""

import re
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from aiprod_ops.errors import ConfigurationError

EXAMPLE = "postgresql://USER@HOST:5432/DATABASE, or host=/run/postgresql dbname=DATABASE user=USER"
_DRIVER = re.compile(r"\A(postgres(?:ql)?)\+[a-z0-9_]+://")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a DSN leads. `parameters` holds the password, if the DSN has one: never shown."""

    parameters: dict[str, str] = field(repr=False)
    identity: str  #: what the configuration calls it: `probe`, `actor`, `backup`

    @property
    def host(self) -> str:
        return self.parameters.get("host") or self.parameters.get("hostaddr", "")

    @property
    def role(self) -> str:
        """Who it is, in words: the user where the DSN names one."""
        return self.parameters.get("user") or f"the role of the {self.identity} DSN"

    @property
    def port(self) -> str:
        return self.parameters.get("port", "")

    def __str__(self) -> str:
        """User, host, port and database for messages; what libpq fills in from its own defaults is left out."""
        user = f"{self.parameters['user']}@" if self.parameters.get("user") else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.host or 'localhost'}{port}/{self.parameters.get('dbname', '')}".removesuffix("/")


def target(dsn: str, identity: str) -> Target:
    """Read `postgresql://…`, `postgres://…`, SQLAlchemy's `postgresql+driver://…` or libpq's `key=value` form.

    Raises ConfigurationError. It quotes nothing of the DSN and has neither cause nor context: in a DSN that is cut at
    the wrong place, any part may be the password.
    """
    parameters = _parsed(_DRIVER.sub(r"\1://", dsn.strip()))
    if parameters is None:
        problem = "libpq cannot read it"
    elif "@" in parameters.get("host", "") or ("://" in dsn and "@" in parameters.get("dbname", "")):
        problem = "there is more than one @: write @ / : ? # % of the password as %40 %2F %3A %3F %23 %25"
    elif not re.fullmatch(r"[0-9,]*", parameters.get("port", "")):
        problem = "the port is not a number (or the password holds an unescaped / or :)"
    else:
        return Target(parameters, identity)
    raise ConfigurationError(f"The {identity} DSN is not valid: {problem}.", hint=f"Expected, for example: {EXAMPLE}")


def _parsed(dsn: str) -> dict[str, str] | None:
    try:
        return dict(parse_dsn(dsn))
    except psycopg2.ProgrammingError:
        return None


def without_password(dsn: str) -> tuple[str, dict[str, str]]:
    """A DSN that may stand in the process list, and the environment that carries the rest."""
    parts = parse_dsn(dsn)
    password = parts.pop("password", None)
    return make_dsn(**parts), {} if password is None else {"PGPASSWORD": password}


def at(dsn: str, place: str) -> str:
    """A DSN with the host and the port of another: it leads there, whatever role that server has.

    >>> at("host=a,b user=monitor target_session_attrs=read-write", "host=10.1.2.3")
    'user=monitor host=10.1.2.3 port=5432'
    """
    there = parse_dsn(place)
    ours = {name: value for name, value in parse_dsn(dsn).items() if name not in _CHOICES}
    return str(make_dsn(**{**ours, "host": there.get("host", ""), "port": there.get("port", "5432")}))


#: How libpq chooses among several hosts.
_CHOICES = ("hostaddr", "target_session_attrs", "load_balance_hosts")
