"""A backup of the lab is taken, tested and reported by one command; spoiled in every way by another."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Bench, lab

from aiprod_ops.engine.registry import find
from aiprod_ops.lab.bad_backups import WAYS

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with lab(20_000) as made:
        yield made


def test_a_drill_takes_a_backup_tests_it_and_tells_rto_and_rpo(bench: Bench) -> None:
    done = bench.run("drill", "test-backup", "-o", "json", timeout_s=200)
    assert done.exit == 0, done.said
    told = done.json()
    assert told["rto_s"] > 0
    assert told["rpo_s"] >= 0
    check = bench.run("check", "test-backup", "-o", "json")
    assert check.exit == 0, check.said
    shown = bench.run("explain", "test-backup")
    assert "Last drilled" in shown.out, shown.said
    assert ", RTO " in shown.out
    assert ", RPO " in shown.out
    bench.sound()


@pytest.mark.soak
def test_monitoring_gets_each_figure_that_is_promised_to_it(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("drill", "test-backup", timeout_s=200).exit == 0
    proven = bench.run("prove", "test-backup", "--prom-file", str(tmp_path / "proof.prom"))
    assert proven.exit == 0, proven.said
    checked = bench.run("check", "backups", "test-backup", "-o", "prom")
    text = checked.out + (tmp_path / "proof.prom").read_text()
    for book in ("backups", "test-backup"):
        for metric in find()[book].book.exports:
            assert f"aiprod_ops_{metric.replace(' ', '_')}_seconds{{" in text, f"{book} promises {metric}:\n{text}"


def test_whatever_is_spoiled_is_noticed(bench: Bench) -> None:
    done = bench.run("lab", "fault", "backups", "--folder", str(bench.fleet.folder), "-o", "json", timeout_s=200)
    assert done.exit == 0, done.said
    caught = {row["spoiled"]: row["caught by"] for row in done.json()}
    assert caught.keys() == WAYS.keys()
    assert [what for what, by in caught.items() if by == "-"] == ["nothing"]
    assert not (bench.fleet.folder / "spare").exists()
