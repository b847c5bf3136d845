"""The command line's own manners: exit codes, streams, help, start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aiprod_ops import cli
from aiprod_ops.adapters.local.programs import find, fitting, of_major
from aiprod_ops.cli import redaction
from aiprod_ops.cli.lab import leading_to
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.lab import folder


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, no state but an empty folder's."""
    for name in [name for name in os.environ if name.startswith("AIPROD_OPS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["check", "--help"], 0),
        (["nonsense"], 64),
        (["plan"], 64),
        (["plan", "no-such-runbook"], 64),
        (["plan", "add-missing-index", "--no-such-option", "1"], 64),
        (["plan", "add-missing-index"], 78),
        (["run", "add-missing-index", "--apply", "0123456789ab"], 78),
        (["resume", "no-such-run"], 64),
        (["check", "--no-such-option"], 3),
        (["check", "add-missing-index"], 3),
        (["check"], 3),
        (["evidence", "verify"], 0),
        (["evidence", "nonsense"], 3),
        (["runs", "list"], 0),
    ],
)
def test_exit_codes_without_a_server(arguments: list[str], code: int) -> None:
    assert cli.call(arguments) == code


def test_an_error_goes_to_stderr_and_names_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    cli.call(["plan", "add-missing-index"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "there is no instance to work on: there is no configuration file\n" in err
    assert "aiprod-ops lab up" in err


@pytest.mark.parametrize("option", [["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]])
def test_in_json_mode_errors_are_json(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.call(["plan", "add-missing-index", *option])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit"] == code == 78
    assert set(error) == {"kind", "message", "hint", "exit"}


@pytest.mark.parametrize("words", [[], ["runs"], ["evidence"], ["lab"], ["docs"], ["schedule"]])
def test_the_help_of_a_group_is_not_cut(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call([*words, "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines()[1:] if line.endswith("...")] == []


def test_what_goes_with_a_lab_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "lab"
    for name in (folder.MARKER, "state/runs/one/journal.jsonl", "state/evidence/000001.json", "state/evidence/HEAD"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("{}")
    assert cli.call(["lab", "down", "--folder", str(place)]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"removed {place} and what was kept there: 1 journal, 1 record of evidence\n")
    assert not place.exists()


def test_the_programs_of_the_servers_version_are_found_where_debian_puts_them(tmp_path: Path) -> None:
    wheel = find().major
    for major in (wheel, wheel + 1):
        program = tmp_path / str(major) / "postgres"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {major}.3'\n")
        program.chmod(0o755)
    debian = f"{tmp_path}/{{major}}"
    assert of_major(wheel + 1, None, debian).bin == (tmp_path / str(wheel + 1)).resolve()
    assert of_major(wheel, None, debian).bin == find().bin
    assert of_major(wheel + 2, None, debian).bin == find().bin
    assert of_major(wheel + 1, find().bin, debian).bin == find().bin, "what was named is taken"
    assert fitting(wheel + 1, None, debian).major == wheel + 1
    with pytest.raises(ConfigurationError, match=rf"the server is PostgreSQL {wheel + 2}, .* are {wheel}") as refused:
        fitting(wheel + 2, None, debian)
    assert f"postgresql-{wheel + 2}" in refused.value.hint


def test_one_line_of_several_checks_is_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["check", "--all", "--dsn", "host=/nowhere"]) == 3
    assert "No such file or directory. Check that the server runs" in capsys.readouterr().out


def test_who_has_a_configuration_is_led_to_the_lab_and_not_to_production(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = tmp_path / "state/lab/aiprod-ops.toml"
    lab.parent.mkdir(parents=True)
    lab.write_text('[targets.lab]\nprobe = "host=/nowhere"\nenvironment = "lab"\n')
    assert leading_to(lab, None) == ""
    own = tmp_path / "config/aiprod-ops/config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[targets.production]\nprobe = "host=/nowhere"\n')
    assert leading_to(lab, None) == " --target lab"
    assert leading_to(lab, lab.parent) == f" --config {lab}"
    for words, says in (
        ((), "the lab is up: add --target lab\n"),
        (("--target", "production"), "the lab is up: add --target lab in place of --target\n"),
    ):
        assert cli.call(["drill", "verify-indexes", *words]) == 64
        assert capsys.readouterr().err.endswith(f"next: {says}")
    lab.unlink()
    assert cli.call(["drill", "verify-indexes"]) == 64
    assert "next: aiprod-ops lab up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add-missing-index"], "there is no instance to work on"),
        (["no-such-runbook"], "there is no runbook 'no-such-runbook'"),
        (["slow-queries", "--by", "a|b"], "--by is 'a/b', expected one of"),
        (["slow-queries", "--no-such-option", "1"], "has no option --no-such-option"),
        ([], "which runbook?"),
        (["slow-queries", "--dsn", "host=/nowhere user=x"], "No contact to x@/nowhere"),
    ],
)
def test_a_plugin_that_cannot_look_says_why(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dsn", "host=/nowhere"] if words and "--dsn" not in words and words != ["add-missing-index"] else []
    assert cli.call(["check", *words, *where, "-o", "nagios"]) == 3
    out, err = capsys.readouterr()
    assert (out.startswith("UNKNOWN - "), out.count("\n"), "|" in out, err) == (True, 1, False, "")
    assert says in out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "is not TOML"),
        ("[targets.a]", "no `probe` DSN"),
        ('[targets.a]\nprobe = "x"\ntypo = 1', "unknown keys: typo"),
        ("typo = 1", "unknown keys: typo"),
        ('runbooks = ["/no/such/folder"]\n[targets.a]\nprobe = "x"', "no folder of runbooks"),
        ('[targets.a]\nprobe = "env:NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE"),
        ('[targets.a]\nprobe = "not a dsn"', "DSN"),
    ],
)
def test_a_wrong_configuration_is_one_clear_error(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(["plan", "add-missing-index", "--config", config(tmp_path, text)]) == 78
    assert says in capsys.readouterr().err


def test_a_runbook_that_others_can_write_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "books"
    folder.mkdir(mode=0o700)
    (folder / "mine.py").write_text("")
    (folder / "mine.py").chmod(0o666)
    assert cli.call(["list", "--runbooks", str(folder)]) == 78
    assert "can be written by others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = (", "cannot be loaded: SyntaxError"),
        ("x = 1", "has no `book"),
        ("from aiprod_ops import api\nbook = api.Runbook(symptom='', owner='')", "no facts and no judge"),
        ("from aiprod_ops import api\nbook = api.Runbook(symptom='', owner='', risk='odd')", "risk is 'odd'"),
    ],
)
def test_a_broken_runbook_is_one_clear_error(
    tmp_path: Path, source: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "mine.py").chmod(0o600)
    tmp_path.chmod(0o700)
    assert cli.call(["check", "mine", "--runbooks", str(tmp_path), "--dsn", "host=/nowhere"]) == 3
    assert says in capsys.readouterr().err


def test_a_bug_in_a_runbook_is_called_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "from aiprod_ops import api\nbook = api.Runbook(symptom='', owner='')\n"
        "@book.facts\ndef facts(ctx, params) -> dict:\n    return params.typo\n"
        "@book.judge\ndef judge(facts, params):\n    return ()\n"
    )
    (tmp_path / "mine.py").write_text(source)
    tmp_path.chmod(0o700)
    assert cli.call(["plan", "mine", "--runbooks", str(tmp_path), "--dsn", "host=/nowhere"]) == 64, "it only checks"
    assert cli.call(["check", "mine", "--runbooks", str(tmp_path), "--dsn", "host=/nowhere"]) == 3
    assert "this is a bug in the runbook mine.py, line 5, facts: AttributeError" in capsys.readouterr().err


def test_the_runbook_folder_is_never_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('loaded')")
    (tmp_path / "aiprod-ops.toml").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert cli.call(["list"]) == 0
    assert "mine" not in capsys.readouterr().out


def test_secrets_are_redacted_by_value_and_by_form() -> None:
    redaction.learn("postgresql://ops:hunter%2F22@db/aiprod")
    redaction.learn("host=db password=swordfish dbname=x")
    text = redaction.redact("hunter/22 hunter%2F22 swordfish postgresql://a:other@h/d password=third")
    for secret in ("hunter", "swordfish", "other", "third"):
        assert secret not in text


def test_every_command_has_help_and_an_implementation() -> None:
    root = cli.cli
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None, name
        assert command.help, name


def test_no_heavy_import_happens_at_the_start() -> None:
    program = "import aiprod_ops.cli, sys; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"sqlalchemy", "psycopg2", "pglast", "msgspec", "jinja2", "mkdocs", "alembic", "psutil", "redis"}
    heavy |= {"googleapiclient", "google", "httplib2"}
    assert not heavy & set(loaded)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m aiprod_ops --help | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


FULL = "standard output: No space left on device: the result is not there"


@pytest.mark.parametrize(
    ("command", "to", "code", "said"),
    [
        ("digest l.log", ">/dev/full", 10, FULL),
        ("digest l.log -o json", ">/dev/full", 10, FULL),
        ("list -o json", ">/dev/full", 10, FULL),
        ("evidence list", ">/dev/full", 3, FULL),
        ("check nosuch -o json", ">/dev/full", 3, FULL),
        ("--version", ">/dev/full", 10, FULL),
        ("evidence list", ">&-", 3, "standard output: it is closed"),
    ],
)
def test_a_result_that_cannot_be_written_is_told_in_one_line(
    command: str, to: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "l.log").write_text("2026-01-01 00:00:00.000 UTC [1] LOG:  duration: 12.0 ms  statement: select 1\n")
    env = {**os.environ, "HOME": str(tmp_path), "AIPROD_OPS_CONFIG": str(tmp_path / "aiprod-ops.toml")}
    (tmp_path / "aiprod-ops.toml").write_text('state = "state"\n')
    line = f"{sys.executable} -m aiprod_ops {command} {to}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[0].startswith(f"aiprod-ops: {said}"), done.stderr
    assert "Traceback" not in done.stderr
