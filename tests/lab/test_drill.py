"""Drills: the problem is provoked, the runbook is run, the time is measured, the evidence says that it was a drill."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aiprod_ops import cli
from aiprod_ops.lab import bench as benches
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import switching, traces
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.known import KnownLab
from aiprod_ops.pages.sources import site

pytestmark = pytest.mark.lab
DRILLS = (("terminate-idle-sessions", "--limit", "0.5s"), ("add-missing-index",))


@pytest.fixture(scope="module")
def drill_lab(short_path: Path) -> Iterator[Fleet]:
    """A small lab with its workload, as somebody drills on."""
    folder = short_path / "drill"
    made = fleets.up(folder, 20_000)
    KnownLab.of(made).work(3)  # each statement of the application: what is served must not depend on chance
    yield made
    fleets.down(folder)


@pytest.mark.parametrize("words", DRILLS, ids=lambda words: words[0])
def test_drill(drill_lab: Fleet, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(drill_lab.config), "--runbooks", str(site() / "examples")]
    before = traces.look(drill_lab)
    assert cli.call(["drill", *words, "-o", "json", "--prom-file", str(tmp_path / "drill.prom"), *where]) == 0
    drilled = json.loads(capsys.readouterr().out)
    assert (drilled["exit"], drilled["reason"]) == (0, "")
    assert drilled["rto_s"] > 0
    assert before.changes(traces.look(drill_lab), ("rows written", "statistics")) == []
    assert cli.call(["evidence", "list", "-o", "json", *where[:2]]) == 0
    *_, run, evidence = (record["body"] for record in json.loads(capsys.readouterr().out))
    assert (run["kind"], run["trigger"]) == ("run", "drill")
    assert (evidence["kind"], evidence["trigger"], evidence["environment"]) == ("drill", "drill", "lab")
    assert (evidence["run"], evidence["exit"]) == (drilled["run"], 0)
    assert evidence["drill"]["rto_s"] == drilled["rto_s"]
    labels = f'environment="lab",runbook="{words[0]}",target="lab"'
    metrics = (tmp_path / "drill.prom").read_text()
    assert f"aiprod_ops_drill_status{{{labels}}} 0.0\n" in metrics
    assert f"aiprod_ops_drill_rto_seconds{{{labels}}} {drilled['rto_s']}\n" in metrics


@pytest.mark.parametrize("mode", ["planned", "unplanned"])
def test_a_drill_of_a_move_tells_what_it_cost(drill_lab: Fleet, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(drill_lab.config)]
    first = drill_lab.config.read_text()
    assert cli.call(["drill", "fail-over-replica", "--mode", mode, "-o", "json", *where]) == 0
    drilled = json.loads(capsys.readouterr().out)
    assert drilled["acknowledged_writes"] > 100
    assert 0 < drilled["write_stop_median_ms"] <= drilled["write_stop_ms"]
    assert drilled["rpo_s"] == 0 or mode == "unplanned"
    assert drilled["lost_writes"] == 0 or mode == "unplanned"
    move = "fail-over" if mode == "unplanned" else "switch-over"
    assert [phase.split()[0] for phase in drilled["phases"]] == [move, "rejoin"]
    assert sum(drilled["phases"].values()) < drilled["rto_s"]
    picture = drill_lab.folder / "state" / "runs" / drilled["run"] / "files" / "writes.svg"
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert cli.call(["evidence", "list", "-o", "json", *where]) == 0
    sealed = json.loads(capsys.readouterr().out)[-1]["body"]
    assert (sealed["drill"]["write_stop_ms"], sealed["phases"]) == (drilled["write_stop_ms"], drilled["phases"])
    assert switching.primary(switching.cluster(drill_lab)) == "primary", "each has the role that it had"
    assert drill_lab.config.read_text() == first


def test_a_drill_is_refused_where_it_is_no_lab(
    drill_lab: Fleet, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short_path / "production.toml"
    benches.write_config(config, short_path / "production", drill_lab, environment="production")
    assert cli.call(["drill", "add-missing-index", "--config", str(config)]) == 64
    assert "is no lab; a drill breaks things" in capsys.readouterr().err


def test_a_drill_that_is_refused_is_reported_as_failed(
    drill_lab: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--config", str(drill_lab.config), "--prom-file", str(tmp_path / "drill.prom"))
    assert cli.call(["drill", "slow-queries", *where]) == 10
    assert "has no drill" in capsys.readouterr().err
    assert (
        'aiprod_ops_drill_status{environment="lab",runbook="slow-queries",target="lab"} 2.0\n'
        in (tmp_path / "drill.prom").read_text()
    )
