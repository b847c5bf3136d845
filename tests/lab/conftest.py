"""One small fleet for all tests of the lab, without a workload beside them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from delivered import Webhooks
from hammering import FAKETIME
from receivers import Receiver, receiving
from redis_servers import Server
from repositories import HAS_PGBACKREST
from served_api import Api, database, served

from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import folder as folders
from aiprod_ops.lab import patroni
from aiprod_ops.lab.fleet import Fleet

ROWS = 30_000

#: Left out where there is no pgBackRest, or no system PostgreSQL that it knows (`scripts/test-servers` installs both).
collect_ignore = [] if HAS_PGBACKREST else ["test_pgbackrest.py"]
#: And what needs etcd, where there is none.
collect_ignore += ["test_patroni.py"] if patroni.lacks() else []
#: And what sets the clocks of processes apart, where there is no libfaketime.
collect_ignore += [] if FAKETIME else ["test_limits_hammered.py"]


@pytest.fixture(scope="session")
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, and open to the user that a server may have to run as."""
    folder = Path(tempfile.mkdtemp(prefix="ops-", dir="/tmp")).resolve()
    folder.chmod(0o711)
    yield folder
    for marker in folder.glob(f"*/{folders.MARKER}"):
        fleets.down(marker.parent)  # of a test that failed before it did that itself
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fleet(short_path: Path) -> Iterator[Fleet]:
    """Primary, two replicas and Redis with 30,000 jobs at revision 001."""
    folder = short_path / "fleet"
    yield fleets.up(folder, ROWS, workload=False)
    fleets.down(folder)


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The API on a PostgreSQL of its own."""
    with served() as made:
        yield made


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """A Redis of a module's own, which it may stop and kill."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def stored(redis: Server) -> Iterator[Api]:
    """The API with that Redis."""
    with served(redis.environment) as made:
        yield made


@pytest.fixture(scope="session")
def webhook_rows() -> Iterator[Webhooks]:
    """A database with webhooks, and nothing that serves it. What is committed there survives a crash."""
    with database() as made:
        made.sql("ALTER DATABASE aiprod SET synchronous_commit = on")
        yield Webhooks(made)


@pytest.fixture
def hooks(webhook_rows: Webhooks) -> Iterator[Webhooks]:
    """Its rows, of which none is left by the test before."""
    yield webhook_rows
    webhook_rows.clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A customer's server."""
    with receiving() as made:
        yield made
