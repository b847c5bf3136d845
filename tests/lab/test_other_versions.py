"""A server of Debian's package beside the wheel's programs, which are of another version."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from command_line import configured, lone_server, short_folder, until

from aiprod_ops.adapters.local.programs import find

pytestmark = pytest.mark.lab

SYSTEM = os.environ.get("AIPROD_OPS_TEST_POSTGRES_BIN", "")


def test_its_backups_are_taken_and_tested_with_its_own_programs() -> None:
    """No `postgres_bin` is configured: the server, then its backups, tell which version they are of."""
    if not SYSTEM or find(Path(SYSTEM)).major == find().major:
        pytest.skip("no second version of PostgreSQL here")
    with short_folder() as folder:
        (folder / "archive").mkdir()
        (folder / "archive").chmod(0o777)
        keep = f"cp %p {folder}/archive/.%f && mv {folder}/archive/.%f {folder}/archive/%f"
        with lone_server(folder, Path(SYSTEM), archive_mode="on", archive_command=keep) as server:
            places = {"backups": str(folder / "backups"), "archive": str(folder / "archive")}
            bench = configured(folder, server, "postgres", **places)
            bench.sql("CREATE ROLE actor LOGIN SUPERUSER")
            bench.sql("CREATE ROLE probe LOGIN IN ROLE pg_monitor, pg_read_all_data")
            bench.sql("CREATE TABLE jobs AS SELECT g AS n FROM generate_series(1, 100) g")
            made = bench.run("plan", "take-backup", "-o", "json")
            assert made.exit == 0, made.said
            taken = bench.run("run", "take-backup", "--apply", made.json()["digest"])
            assert taken.exit == 0, taken.said
            assert bench.run("prove", "test-backup", "--wait", "0").exit == 0
            assert bench.run("check", "backups").exit in (0, 1)
            shutil.rmtree(bench.state / "sources")  # nothing is known of the source when it is lost
            pid = int((server.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            until(lambda: not server.is_running(), "it lives")
            lost = bench.run("prove", "test-backup", "--wait", "0")
            assert lost.exit == 0, lost.said
