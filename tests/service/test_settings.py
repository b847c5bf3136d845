"""What the API is started with, and how a URL of Redis is read."""

import doctest

import pytest

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service import settings
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.operations.webhooks import require_url
from aiprod_ops.service.settings import DSN, PRIVATE_WEBHOOKS, Settings, from_environment, redis_variables


def test_the_environment() -> None:
    assert doctest.testmod(settings).failed == 0
    made = from_environment({"AIPROD_OPS_APP_DSN": "dbname=x password=hush"})
    assert made.dsn == "dbname=x password=hush"
    assert "hush" not in repr(made)
    with pytest.raises(ConfigurationError, match="AIPROD_OPS_APP_DSN is not set"):
        from_environment({})


def test_the_url_of_a_redis() -> None:
    assert list(redis_variables("rediss://u:p@[::1]:7000/3").values()) == ["::1", "7000", "3", "u", "p", "1"]
    assert list(redis_variables("redis://cache").values()) == ["cache", "6379", "0", "", "", "0"]


@pytest.mark.parametrize(
    "url", ["", "cache:6379", "http://hush@cache/", "redis://", "redis://hush@c:x/0", "redis://c/hush"]
)
def test_what_is_no_url_of_a_redis_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not one") as caught:
        redis_variables(url)
    assert "hush" not in caught.value.told
    assert caught.value.__cause__ is None


def test_private_webhooks_are_for_a_lab_that_asks_for_them() -> None:
    assert not from_environment({DSN: "postgresql:///x", PRIVATE_WEBHOOKS: "yes"}).private_webhooks
    lab = from_environment({DSN: "postgresql:///x", PRIVATE_WEBHOOKS: "1"})
    require_url(lab, "http://127.0.0.1:8000/")
    for url, given in (("http://127.0.0.1:8000/", Settings(dsn="")), ("ftp://127.0.0.1/", lab)):
        with pytest.raises(Problem, match="VALIDATION_FAILED"):
            require_url(given, url)
