"""Where Redis is, and as whom it is asked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from aiprod_ops.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """One server. As text it is a URL without user and password."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_USERNAME, REDIS_PASSWORD, and REDIS_TLS, 1 or 0. Raises
        ConfigurationError.

        >>> str(RedisPlace.of_environment({"REDIS_HOST": "10.0.0.3", "REDIS_DB": "1"}))
        'redis://10.0.0.3:6379/1'
        """
        given = os.environ if environ is None else environ
        return cls(
            host=given.get("REDIS_HOST") or "localhost",
            port=_whole(given, "REDIS_PORT", 6379, 65535),
            db=_whole(given, "REDIS_DB", 0, 2**31 - 1),
            username=given.get("REDIS_USERNAME", ""),
            password=given.get("REDIS_PASSWORD", ""),
            tls=_whole(given, "REDIS_TLS", 0, 1) == 1,
        )

    def __str__(self) -> str:
        return f"redis{'s' if self.tls else ''}://{self.host}:{self.port}/{self.db}"


def _whole(given: Mapping[str, str], name: str, otherwise: int, most: int) -> int:
    text = given.get(name) or str(otherwise)
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise ConfigurationError(
            f"${name} is {text!r}, expected a whole number from 0 to {most}", hint=f"set {name} to one, or unset it"
        )
    return int(text)
