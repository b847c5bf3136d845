"""How checks are told: text, JSON, a plugin's line, Prometheus; waivers, ids, and what is new since the last check."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import click
import pytest

from aiprod_ops import cli
from aiprod_ops.cli import options, render, verdicts
from aiprod_ops.cli.checks import unused
from aiprod_ops.config import Settings
from aiprod_ops.domain.findings import Finding, Waiver, waived
from aiprod_ops.domain.plans import Action, Draft, Identity, Plan
from aiprod_ops.domain.results import counts
from aiprod_ops.engine import registry
from aiprod_ops.engine.planning import Checked
from aiprod_ops.errors import ConfigurationError, UsageError

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
        "  since 2026-11-21 09:00 UTC: new: SELECT 1; gone: statement:9, x\n"
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
    assert line == (
        "WARNING - times over: 2.00 ×, SELECT 1; UNKNOWN disk: `GRANT pg_monitor TO x;`"
        " | 'lag'=12s;5;30 'statement:7'=2;1;4 'statement:-8'=5;1;4\n"
    )
    assert list(counts(FOUND).values()) == [2, 1, 0, 1]


def test_a_plugin_names_the_first_of_each_state_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    text = "SELECT a || $1 FROM t WHERE b = $2 AND c IN (SELECT d FROM u WHERE e = $3)"
    slow = [Finding("times over", 9.0 - n, "×", 1, 4, columns={"statement": text}, id=f"s:{n}") for n in range(4)]
    short = Finding("window", None, note="the figures are of 3 s only")
    line = told(capsys, "nagios", Checked("b", (Finding("load", 0.3), *slow, short))).partition(" | ")[0]
    assert line == (
        "CRITICAL - times over: 9.00 ×, SELECT a // $1 FROM t WHERE b = $2 AND c IN (SELECT d FROM …; "
        "8.00 ×, SELECT a // $1 FROM t WHERE b = $2 AND c IN (SELECT d FROM …; 2 more; "
        "UNKNOWN window: the figures are of 3 s only"
    )
    assert told(capsys, "nagios", Checked("b", (short,))) == "UNKNOWN - window: the figures are of 3 s only\n"
    assert told(capsys, "nagios", Checked("b", (Finding("load", 0.3),))) == "OK - load: 0.30 | 'load'=0.3;;\n"


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (Checked("b", (Finding("x", 1.0),)), ""),
        (Checked("b", (Finding("x", 1.0),), RESULT.since), ""),
        (
            Checked("b", (Finding("x", 1.0),), RESULT.since, (), ("x",)),
            "  since 2026-11-21 09:00 UTC: gone: x (OK now)\n",
        ),
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


def test_of_many_that_are_gone_a_few_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    gone = tuple(f"statement:{n}" for n in range(9))
    text = told(capsys, "text", Checked("b", (Finding("x", 1.0),), RESULT.since, (), gone))
    assert text.endswith("gone: statement:0, statement:1, statement:2 and 6 more\n")


@pytest.mark.parametrize(("columns", "says"), [("250", "E" * 150), ("60", "E" * 41 + "…"), ("", "E" * 53 + "…")])
def test_a_statement_has_the_room_that_the_terminal_has(
    columns: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    row = Finding("times over", 2.0, "×", 1, 4, columns={"statement": "E" * 150, "calls": "12"})
    (line,) = [line for line in told(capsys, "text", Checked("b", (row,))).splitlines() if "EEE" in line]
    assert f" {says} " in f"{line} "
    assert len(line) <= int(columns or 120)


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


MISTAKES = {
    "verify-indexes": (
        (("--sequence", "80"), "--sequence: '80' is not a share from 0 to 1, such as 0.8 or '80 %'"),
        (("--bloat", "2"), "--bloat: '2' is not a share"),
        (("--bloat", "-1"), "--bloat: '-1' is not a share"),
        (("--bloat", "150%"), "--bloat: '150%' is not a share"),
        (("--nulls", "nan"), "--nulls: 'nan' is not a share"),
        (("--sequence", "0.99", "--sequence-end", "0.5"), "a warning comes before it is critical"),
        (("--window", "99999999 d"), "--window: '99999999 d' is not a duration of at most a hundred years"),
        (("--read", "-1"), "--read: '-1' is not a size"),
    ),
    "slow-queries": (
        (("--top", "-3"), "--top: '-3' is not a whole number from 0"),
        (("--top", "2.5"), "--top: '2.5' is not a whole number from 0"),
        (("--regression", "0"), "--regression: '0' makes no sense here, expected at least 1"),
        (("--regression", "inf"), "--regression: 'inf' is not a number"),
        (("--objective", "0"), "--objective: '0' makes no sense here, expected at least"),
        (("--load", "1e9"), "--load: '1e9' is not a number of cores from 0 to 10,000"),
        (("--load", "1%"), "--load: '1%' is not a number of cores"),
        (("--over", "3650d"), "--over: '3650d' makes no sense here, expected at most 24.0 h"),
    ),
}


@pytest.mark.parametrize(
    ("book", "words", "says"), [(book, *mistake) for book, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_read(
    book: str, words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "aiprod-ops.toml"
    config.write_text('state = "state"\n[targets.here]\nprobe = "postgresql://nobody@127.0.0.1:9/none"\n')
    for command, code in {"check": 3, "plan": 64}.items():
        assert cli.call([command, book, *words, "--config", str(config)]) == code
        assert says in capsys.readouterr().err


def test_a_share_may_be_written_as_a_percentage_on_the_command_line_and_in_service_toml() -> None:
    entry = registry.find()["verify-indexes"]
    shipped = Settings(Path(), {}).promises
    own = registry.Promises({"indexes": {**shipped.values["indexes"], "nulls": "95 %"}}, "service.toml")
    params = entry.read_params({"bloat": "50%"}, own)
    assert (params.bloat, params.nulls) == (0.5, 0.95)
    wrong = registry.Promises({"indexes": {**shipped.values["indexes"], "nulls": 95}}, "/etc/service.toml")
    with pytest.raises(ConfigurationError, match=r"indexes\.nulls of /etc/service\.toml: 95 is not a share"):
        entry.read_params({}, wrong)


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


def test_a_command_in_a_note_leads_to_the_same_instance() -> None:
    where = options.Where(target="db", config="/etc/my ops.toml")
    ending = " --target db --config '/etc/my ops.toml'"
    for said, command in (
        ("none was ever restored: `aiprod-ops prove test-backup`", "aiprod-ops prove test-backup"),
        ("`aiprod-ops plan take-backup --now` takes one at once", "aiprod-ops plan take-backup --now"),
        ("that long: `aiprod-ops check slow-queries --over 60s`", "aiprod-ops check slow-queries --over 60s"),
        ("wait for it, or look at it: aiprod-ops runs list", "aiprod-ops runs list"),
        ("a limit is too high? aiprod-ops explain take-backup lists its options", "aiprod-ops explain take-backup"),
        ("plan again: aiprod-ops plan ID, and approve it", "aiprod-ops plan ID"),
    ):
        told = options.pasteable(said, where)
        assert told == said.replace(command, command + ending)
        assert options.pasteable(told, where) == told, "once is enough"
        assert options.pasteable(said, options.NOWHERE) == said
    for other in ("aiprod-ops lab up", "/* aiprod-ops: size */", "3 calls of aiprod-ops itself left out"):
        assert options.pasteable(other, where) == other


def test_a_check_prints_commands_that_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    config = tmp_path / "ops.toml"
    config.write_text("[targets.db]\nprobe = 'host=/nowhere dbname=app'\n")
    where = ["--config", str(config), "--target", "db"]
    for output in ("text", "json", "nagios"):
        cli.call(["check", "test-backup", "-o", output, *where])
        assert f"`aiprod-ops prove test-backup --target db --config {config}`" in capsys.readouterr().out


def test_what_is_gone_is_named_as_a_person_would(capsys: pytest.CaptureFixture[str]) -> None:
    still = Finding("age of the newest backup", 60.0, "s", warn=100, id="newest")
    were = {"newest": "age of the newest backup", "failed": "failures since the last success"}
    text = told(capsys, "text", Checked("b", (still,), RESULT.since, (), ("newest", "failed", "unused:t.i"), were))
    assert text.endswith("gone: age of the newest backup (OK now), failures since the last success, unused:t.i\n")


BOOK = """from dataclasses import dataclass
from aiprod_ops import api
@dataclass(frozen=True)
class Params:
    why: str = ""
book = api.Runbook(symptom="", owner="", params=Params)
@book.facts
def facts(ctx: api.Context, params: Params) -> dict:
    return {}
@book.judge
def judge(facts, params):
    return ()
@book.prove
def prove(copy, plan, params):
    return api.Proof(())
"""


@pytest.mark.parametrize("name", ["every", "why"])
def test_an_option_that_the_command_would_swallow_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`prove --every` is the command's own: a runbook's would never be given."""
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    folder = tmp_path / "books"
    folder.mkdir(mode=0o700)
    (folder / "mine.py").write_text(BOOK.replace("why:", f"{name}:"))
    (folder / "mine.py").chmod(0o600)
    where = ["--runbooks", str(folder), "--dsn", "host=/nowhere dbname=x"]
    assert cli.call(["prove", "mine", *where]) == 78
    err = capsys.readouterr().err
    assert f"mine.py: its option --{name} cannot be given, for the command itself has one of that name" in err
    assert cli.call(["check", "mine", f"--{name}", "1", *where]) == 3
    assert "cannot be given" not in capsys.readouterr().err, "check has none of that name"
