"""`aiprod-ops digest`: what it prints, what it never prints, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aiprod_ops import cli

PREFIX = "2026-11-22 10:00:{second:02d}.123 UTC [77]: [5-1] user=app,db=shop,app=api,client=10.0.0.1 "
GOLDEN = """\
4 calls of 2 statements, 1.10 s in all
2026-11-22 10:00:00 to 2026-11-22 10:00:03 UTC (3.00 s), {size} kB read

  #  STATEMENT                             CALLS  PREPARED   TOTAL   SHARE    MEAN     P50     P95     P99     MAX     TEMP                FIRST                 LAST
  1  SELECT * FROM jobs WHERE status = $1      3         0  900 ms  81.8 %  300 ms  302 ms  399 ms  399 ms  400 ms  1.50 MB  2026-11-22 10:00:00  2026-11-22 10:00:02
  2  UPDATE jobs SET a = $1                    1         1  200 ms  18.2 %  200 ms  198 ms  198 ms  198 ms  200 ms      0 B  2026-11-22 10:00:03  2026-11-22 10:00:03

  APPLICATION  CALLS  PREPARED BY NAME   TOTAL
  api              4                 1  1.10 s
"""  # noqa: E501 a table
PLAN = """duration: 400.000 ms  plan:
\tQuery Text: SELECT * FROM jobs WHERE status = 'hunter2'
\tSeq Scan on jobs  (cost=0.00..1.05 rows=1 width=4)
\t  Filter: (status = 'hunter2'::text)
"""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, no state but an empty folder's."""
    for name in [name for name in os.environ if name.startswith("AIPROD_OPS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "postgresql.log"
    lines = [f"duration: {ms}.000 ms  statement: SELECT * FROM jobs WHERE status = 'hunter2'" for ms in (200, 300, 400)]
    lines.append("duration: 200.000 ms  execute S_1: UPDATE jobs SET a = $1")
    text = "".join(f"{PREFIX.format(second=second)}LOG:  {line}\n" for second, line in enumerate(lines))
    text += f"{PREFIX.format(second=3)}DETAIL:  Parameters: $1 = 'hunter2'\n"
    text += f"{PREFIX.format(second=4)}LOG:  {PLAN}"
    spill = 'temporary file: path "base/pgsql_tmp/pgsql_tmp77.0", size 1500000'
    text += f"{PREFIX.format(second=4)}LOG:  {spill}\n"
    path.write_text(f"{text}{PREFIX.format(second=4)}STATEMENT:  SELECT * FROM jobs WHERE status = 'hunter2'\n")
    return path


def test_the_table(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["digest", str(log)]) == 0
    out, err = capsys.readouterr()
    size = f"{log.stat().st_size / 1000:.2f}"
    assert out == GOLDEN.format(size=size)
    assert err == ""


@pytest.mark.parametrize("arguments", [[], ["--plans"], ["-o", "json"], ["--plans", "-o", "json"]])
def test_no_value_is_shown_unless_asked_for(
    arguments: list[str], log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(["digest", str(log), *arguments]) == 0
    assert "hunter2" not in capsys.readouterr().out
    assert cli.call(["digest", str(log), *arguments, "--show-parameters"]) == 0
    assert "hunter2" in capsys.readouterr().out


def test_plans(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["digest", str(log), "--plans"]) == 0
    out = capsys.readouterr().out
    assert "     Seq Scan on jobs  (cost=0.00..1.05 rows=1 width=4)\n       Filter: (status = ?::text)\n" in out


@pytest.mark.parametrize(
    ("by", "first"), [("total", "SELECT"), ("calls", "SELECT"), ("temp", "SELECT"), ("p99", "SELECT")]
)
def test_order_and_top(by: str, first: str, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["digest", str(log), "--by", by, "--top", "1", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["text"].split()[0] for row in told["rows"]] == [first]
    assert (told["statements"], told["calls"], told["total"]) == (2, 4, 1100.0)
    for whole, others in (("calls", "others_calls"), ("total", "others_total")):
        assert sum(row[whole] for row in told["rows"]) + told[others] == told[whole], (
            "what is not shown is in the others"
        )
    assert cli.call(["digest", str(log), "--top", "1"]) == 0
    assert "\n  others: 1 call, 200 ms\n" in capsys.readouterr().out


def test_one_is_not_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "the.log"
    path.write_text(f"{PREFIX.format(second=1)}LOG:  duration: 7.000 ms  statement: SELECT 1\nfoo\n")
    assert cli.call(["digest", str(path), str(tmp_path / "the.log")]) == 0
    assert capsys.readouterr().out.startswith("2 calls of 1 statement,")
    assert cli.call(["digest", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 call of 1 statement,")
    assert "note: 1 line could not be read" in out


def test_filters(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = ["--since", "2026-11-22 10:00:01", "--until", "2026-11-22T11:00:03+01:00"]
    assert cli.call(["digest", str(log), *window, "--database", "shop", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["calls"] == 2
    assert cli.call(["digest", str(log), "--database", "other"]) == 64
    assert "all 4 calls are on other databases: shop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 78, "there is no instance"),
        (["--dsn", "host=/nowhere dbname=x"], 64, "no FILE is given"),
        (["no-such-file"], 78, "No such file"),
        (["x", "--since", "yesterday"], 64, "is not a time"),
        (["x", "y", "--follow"], 64, "--follow reads one file"),
        (["x", "--by", "name"], 64, "is not one of"),
    ],
)
def test_wrong_command_lines(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["digest", *arguments]) == code
    assert says in capsys.readouterr().err


def test_nothing_parsed_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "the.log"
    path.write_text(f"{PREFIX.format(second=1)}LOG:  checkpoint starting: time\n")
    assert cli.call(["digest", str(path), "-o", "json"]) == 78
    error = json.loads(capsys.readouterr().out)["error"]
    assert "holds 1 entry of PostgreSQL and not one with a duration" in error["message"]
    assert "log_min_duration_statement" in error["hint"]


def test_the_targets_log_is_the_default(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["digest", "--dsn", "host=/nowhere dbname=shop", "--log", str(log), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["calls"] == 4


def test_follow_ends_with_the_digest(log: Path) -> None:
    command = [sys.executable, "-m", "aiprod_ops", "digest", str(log), "--follow", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 30
        while str(log) not in [file.path for file in psutil.Process(child.pid).open_files()]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with log.open("a") as file:
            file.write(f"{PREFIX.format(second=9)}LOG:  duration: 7.000 ms  statement: SELECT 1\n")
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert json.loads(out)["calls"] == 5
