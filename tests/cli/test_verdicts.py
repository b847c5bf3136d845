"""How checks are told: text, JSON, a plugin's line, Prometheus; waivers, ids, and what is new since the last check."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import click
import pytest

from aiprod_ops import cli
from aiprod_ops.cli import options, render, verdicts
from aiprod_ops.cli.checks import unused
from aiprod_ops.domain.findings import Finding, Waiver, waived
from aiprod_ops.domain.plans import Action, Draft, Identity, Plan
from aiprod_ops.domain.results import counts
from aiprod_ops.engine import registry
from aiprod_ops.engine.planning import Checked
from aiprod_ops.errors import UsageError

TODAY = date(2026, 11, 21)
KNOWN = Waiver("lag", date(2027, 1, 31), "the link is slow")
FOUND = waived(
    [
        Finding("lag", 12.0, "s", warn=5, crit=30),
        Finding("disk", None, note="`GRANT pg_monitor TO x;`"),
        Finding("times over", 2.0, "×", 1, 4, columns={"statement": "SELECT 1"}, id="statement:7"),
        Finding("times over", 5.0, "×", 1, 4, columns={"statement": "SELECT 2"}, id="statement:-8"),
    ],
    [KNOWN, Waiver("statement:-8", date(2027, 1, 31), "the report of Mondays")],
    "lab",
    TODAY,
)
RESULT = Checked("books", tuple(FOUND), datetime(2026, 11, 21, 9, tzinfo=UTC), ("statement:7",), ("statement:9", "x"))


def told(capsys: pytest.CaptureFixture[str], output: str, result: Checked = RESULT, *, ids: bool = False) -> str:
    assert verdicts.tell([result], "lab", output, ids=ids) == int(result.status)
    return click.unstyle(capsys.readouterr().out)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "text") == (
        "WARNING  books on lab\n"
        "  OK  lag: 12.0 s (waived until 2027-01-31: the link is slow; WARNING underneath)\n"
        "  UNKNOWN  disk: - (`GRANT pg_monitor TO x;`)\n"
        "\n"
        "  STATUS   STATEMENT\n"
        "  WARNING  SELECT 1\n"
        "  OK       SELECT 2\n"
        "\n"
        "  statement:-8: waived until 2027-01-31: the report of Mondays; CRITICAL underneath\n"
        "  since 2026-11-21 09:00 UTC: new: statement:7; gone: statement:9, x\n"
    )


def test_ids_for_waivers(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "text", ids=True)
    assert "  UNKNOWN  disk: - (`GRANT pg_monitor TO x;`) [disk]\n" in text
    assert "  WARNING  SELECT 1   statement:7\n" in text
    assert "  OK       SELECT 2   statement:-8\n" in text


def test_json_tells_what_is_underneath(capsys: pytest.CaptureFixture[str]) -> None:
    (check,) = json.loads(told(capsys, "json"))["checks"]
    lag, _, _, monday = check["findings"]
    assert (lag["id"], lag["status"], lag["judged"]) == ("lag", "OK", "WARNING")
    assert monday["waived"] == "until 2027-01-31: the report of Mondays"
    assert (check["since"], check["new"], check["gone"]) == (
        "2026-11-21T09:00:00+00:00",
        ["statement:7"],
        ["statement:9", "x"],
    )


def test_a_plugin_and_monitoring_count_what_is_waived_as_ok(capsys: pytest.CaptureFixture[str]) -> None:
    line = told(capsys, "nagios")
    assert line.startswith("WARNING - times over: 2.00 × | 'lag'=12s;5;30 'statement:7'=2;1;4 'statement:-8'=5;1;4")
    assert list(counts(FOUND).values()) == [2, 1, 0, 1]


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (Checked("b", (Finding("x", 1.0),)), ""),
        (Checked("b", (Finding("x", 1.0),), RESULT.since), ""),
        (Checked("b", (Finding("x", 1.0),), RESULT.since, (), ("x",)), "  since 2026-11-21 09:00 UTC: gone: x\n"),
        (
            Checked("b", (Finding("x", 1.0, warn=1),), RESULT.since),
            "  since 2026-11-21 09:00 UTC: nothing new, nothing gone\n",
        ),
    ],
)
def test_a_comparison_is_told_where_there_is_something_to_tell(
    result: Checked, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "text", result)
    assert text.endswith(f"x: 1\n{line}")


def test_waivers_that_cover_nothing_are_told_by_a_check_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    gone, theirs = Waiver("gone", TODAY, "old"), Waiver("gone", TODAY, "old", target="other")
    idle = unused([KNOWN, gone, theirs], "lab", [RESULT])
    assert idle == [gone]
    verdicts.tell([RESULT], "lab", "text", idle=idle)
    assert "the waiver of gone until 2026-11-21 (old) covers nothing now" in capsys.readouterr().out
    verdicts.tell([RESULT], "lab", "json", idle=idle)
    assert json.loads(capsys.readouterr().out)["idle_waivers"][0]["finding"] == "gone"


def test_an_option_that_is_yes_or_no_may_stand_alone() -> None:
    entries = registry.find([Path(__file__).parents[1] / "engine/books"])
    book = "watch-lamps"
    for words, given in (
        ((book, "--bright"), "yes"),
        (("--bright", book), "yes"),
        ((book, "--bright", "no"), "no"),
        ((book, "--bright=no"), "no"),
    ):
        assert options.split_params(words, entries) == ([book], {"bright": given})
    assert options.split_params(("x", "--limit", "3"), entries) == (["x"], {"limit": "3"})
    for words in ((book, "--limit"), ("switch-lamps", "--bright"), ("-b",)):
        with pytest.raises(click.UsageError):
            options.split_params(words, entries)


def test_a_runbooks_own_objection_to_an_option_is_a_usage_error() -> None:
    entry = registry.find()["slow-queries"]
    promises = {"database": {"statement_mean": "500 ms", "statement_load": 0.01}}
    with pytest.raises(UsageError, match="expected one of total, mean, calls, temp, wal"):
        entry.read_params({"by": "odd"}, registry.Promises(promises, "test"))


@pytest.mark.parametrize(
    ("actions", "says"),
    [((), "Nothing to do: switch-lamps plans no change for lab/x.\n"), ((Action("on", "b", name="b"),), "  digest ")],
)
def test_a_plan_tells_what_it_leaves_out_and_why(
    actions: tuple[Action, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = registry.find([Path(__file__).parents[1] / "engine/books"])["switch-lamps"]
    entry.book.kinds["on"].type = str
    plan = Plan("switch-lamps", "", Identity("lab", "7", "x"), {}, actions, ("a", "c"))
    draft = Draft(
        plan, plan.digest, RESULT.since, RESULT.since, "me", accepted=("a",), omitted={"d": "a copy refused it"}
    )  # type: ignore[arg-type]
    render.plan(entry, draft, "text", "…")
    out = capsys.readouterr().out
    assert says in out
    assert "  left out  a (waived), c\n  left out  d: a copy refused it\n" in out


BUG = (
    "from aiprod_ops import api\nbook = api.Runbook(symptom='', owner='')\n"
    "@book.facts\ndef facts(ctx, params) -> dict:\n    return params.typo\n"
    "@book.judge\ndef judge(facts, params):\n    return ()\n"
)
FINE = BUG.replace("return params.typo", "return {}").replace("return ()", "return [api.Finding('fine', 1.0)]")


def test_a_broken_runbook_hides_nothing_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    books = tmp_path / "books"
    books.mkdir(mode=0o700)
    for name, source in (("broken", "x = ("), ("bug", BUG), ("fine", FINE)):
        (books / f"{name}.py").write_text(source)
        (books / f"{name}.py").chmod(0o600)
    assert cli.call(["check", "--all", "-o", "json", "--runbooks", str(books), "--dsn", "host=/nowhere"]) == 3
    checks = {check["runbook"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"add-missing-index", "slow-queries", "broken", "bug", "fine"} <= set(checks)
    assert checks["fine"]["status"] == "OK"
    assert "SyntaxError" in checks["broken"]["findings"][0]["note"]
    assert "bug in the runbook bug.py" in checks["bug"]["findings"][0]["note"]
    assert cli.call(["check", "--all", "--no-such", "1", "--runbooks", str(books), "--dsn", "host=/nowhere"]) == 3
    assert "has no option --no-such" in capsys.readouterr().err
