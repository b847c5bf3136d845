"""What goes wrong between a primary and its replicas is found, each fault by its own finding, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from command_line import Bench, lab, until

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import faults, postgres

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def fleet_bench() -> Iterator[Bench]:
    with lab(5_000) as made:
        yield made


@pytest.fixture
def bench(fleet_bench: Bench) -> Bench:
    """The fleet, in order."""
    until(lambda: fleet_bench.run("check", "replication").exit == 0, "the fleet is not in order")
    return fleet_bench


def bad(bench: Bench, *options: str) -> dict[str, Any]:
    """Findings that are not OK, without the replica's place in their ids."""
    done = bench.run("check", "replication", "-o", "json", *options)
    (check,) = done.json()["checks"]
    return {each["id"].partition(":")[0]: each for each in check["findings"] if each["status"] != "OK"}


def on(bench: Bench, server: PostgresServer, text: str) -> list[tuple[Any, ...]]:
    return postgres.rows(bench.fleet.dsn("postgres", server), text)


def test_a_paused_replay_lags(bench: Bench) -> None:
    replica = bench.fleet.replicas[0]
    on(bench, replica, "SELECT pg_wal_replay_pause()")
    try:
        bench.sql("CREATE TABLE lag AS SELECT generate_series(1, 1000) AS n")
        found = until(lambda: (seen := bad(bench, "--lag", "1s")).keys() == {"paused", "lag"} and seen, "not seen")
        assert found["paused"]["note"] == "SELECT pg_wal_replay_resume()"
        assert "behind" in found["lag"]["note"]
    finally:
        on(bench, replica, "SELECT pg_wal_replay_resume()")
        bench.sql("DROP TABLE lag")


def test_a_dead_replica_is_missing_and_its_slot_keeps_wal(bench: Bench) -> None:
    replica = bench.fleet.replicas[0]
    faults.kill_postmaster(replica)
    try:
        bench.sql("CREATE TABLE wal AS SELECT generate_series(1, 20000) AS n")
        found = bad(bench, "--retained", "100kB")
        assert found.keys() == {"missing", "slot"}
        assert found["missing"]["status"] == "CRITICAL"
        assert found["slot"]["note"] == "nobody reads from it"
    finally:
        replica.start()
        bench.sql("DROP TABLE wal")


def test_a_cut_between_us_and_a_replica_is_not_its_death(bench: Bench) -> None:
    config = bench.config.with_name("cut.toml")
    port = f"port={bench.fleet.replicas[0].port}"
    config.write_text(bench.config.read_text().replace(port, "port=1"))
    try:
        found = bad(bench, "--config", str(config))
    finally:
        config.unlink()
    assert found.keys() == {"missing"}
    assert found["missing"]["status"] == "UNKNOWN"
    assert "no contact from here, though the primary streams to 2" in found["missing"]["note"]


def test_a_frozen_replica_is_missing(bench: Bench) -> None:
    with faults.frozen(bench.fleet.replicas[1]):
        assert "missing" in bad(bench)


def test_settings_that_stop_a_standby_one_day(bench: Bench) -> None:
    primary = bench.fleet.primary
    (before,) = on(bench, primary, "SHOW max_connections")[0]
    bench.sql(f"ALTER SYSTEM SET max_connections = {int(before) + 20}")
    try:
        primary.stop()
        primary.start()
        found = until(lambda: (seen := bad(bench)).keys() >= {"settings", "paused"} and seen, "not seen")
        assert f"max_connections {before} < {int(before) + 20}" in found["settings"]["note"]
        assert found.keys() - {"lag"} == {"settings", "paused"}, "PostgreSQL pauses the replay by itself"
    finally:
        bench.sql("ALTER SYSTEM RESET max_connections")
        primary.stop()
        primary.start()
        for replica in bench.fleet.replicas:  # none starts with less than what the WAL says that the primary had
            on(bench, replica, f"ALTER SYSTEM SET max_connections = {int(before) + 20}")
            replica.stop()
            replica.start()
            on(bench, replica, "ALTER SYSTEM RESET max_connections")
        bench.sql("CHECKPOINT")


def test_without_the_primary_nothing_of_it_is_ok(bench: Bench) -> None:
    faults.kill_postmaster(bench.fleet.primary)
    try:
        found = bad(bench)
        assert found.keys() == {"primary", "missing"}
        assert bench.run("check", "replication").exit == 3
    finally:
        bench.fleet.primary.start()


def test_a_replica_that_was_promoted_writes_beside_the_primary(fleet_bench: Bench) -> None:
    """Last: nothing brings it back here."""
    until(lambda: fleet_bench.run("check", "replication").exit == 0, "the fleet is not in order")
    on(fleet_bench, fleet_bench.fleet.replicas[0], "SELECT pg_promote()")
    found = bad(fleet_bench)
    assert found.keys() == {"split"}
    assert "write: fence all but one" in found["split"]["note"]
