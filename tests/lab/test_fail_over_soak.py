"""The primary is moved twenty times in a row while others write: what was lost is looked for each time, and how long
writes stopped is told, never judged."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from command_line import Bench, lab
from moving import LEAST, applied, in_order, lost, on, planned, primary, roles, servers, unplanned

from aiprod_ops.lab import faults
from aiprod_ops.lab.writers import TABLE, writing

pytestmark = [pytest.mark.lab, pytest.mark.soak]
TURNS = 20
QUORUM = 'ANY 1 (replica1, replica2, "primary")'


@pytest.fixture
def bench() -> Iterator[Bench]:
    with lab(5_000) as made:
        made.sql(f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        yield made


def tell(record: Any, name: str, values: list[float], unit: str) -> None:
    text = f"{name}: median {median(values):.3f} {unit}, {min(values):.3f} to {max(values):.3f}, n {len(values)}"
    record(name, text)


def test_twenty_planned_moves_lose_nothing(bench: Bench, tmp_path: Path, record_property: Any) -> None:
    worst, usual = [], []
    for turn in range(TURNS):
        before, digest = primary(bench), planned(bench)
        with writing(bench.fleet, tmp_path / str(turn)) as writers:
            done = applied(bench, digest)
        assert done.exit == 0, done.said
        assert primary(bench) != before
        assert len(roles(bench)) == 3
        assert lost(bench, writers) == []
        worst.append(writers.writes().longest_stop)
        usual.append(writers.writes().median_stop)
    tell(record_property, "write stop of the worst client", worst, "s")
    tell(record_property, "write stop of the median client", usual, "s")
    bench.sound()


@pytest.mark.parametrize("way", ["asynchronous", "quorum"])
def test_twenty_unplanned_moves_lose_no_more_than_was_told(
    bench: Bench, way: str, tmp_path: Path, record_property: Any
) -> None:
    """Asynchronously no more than was told; with a quorum nothing."""
    if way == "quorum":
        for name in servers(bench):
            on(bench, name, f"ALTER SYSTEM SET synchronous_standby_names = '{QUORUM}'")
            on(bench, name, "SELECT pg_reload_conf()")
    told_bytes, told_seconds, found, found_seconds = [], [], [], []
    for turn in range(TURNS):
        in_order(bench)
        before = primary(bench)
        with writing(bench.fleet, tmp_path / str(turn)) as writers:
            faults.kill_postmaster(servers(bench)[before])
            made = unplanned(bench)
            done = applied(bench, made["digest"])
        assert done.exit == 0, done.said
        assert primary(bench) != before
        loss, gone = made["plan"]["actions"][0]["subject"]["loss"], lost(bench, writers)
        moments = [at for at, n in gone]
        told_bytes.append(float(loss["size"]))
        told_seconds.append(float(loss["seconds"]))
        found.append(float(len(gone)))
        found_seconds.append(max(moments) - min(moments) if gone else 0.0)
        if way == "quorum":
            assert gone == []
        assert loss["size"] >= LEAST * len(gone)
        assert loss["seconds"] >= found_seconds[-1]
    tell(record_property, f"{way}: told", told_bytes, "B")
    tell(record_property, f"{way}: told", told_seconds, "s")
    tell(record_property, f"{way}: found lost", found, "writes")
    tell(record_property, f"{way}: found lost", found_seconds, "s")
    bench.sound()
