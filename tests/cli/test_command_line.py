"""The command line's own manners: exit codes, streams, help, start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aiprod_ops import cli
from aiprod_ops.cli import redaction


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
    assert "there is no instance to work on" in err
    assert "aiprod-ops lab up" in err


@pytest.mark.parametrize("option", [["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]])
def test_in_json_mode_errors_are_json(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.call(["plan", "add-missing-index", *option])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit"] == code == 78
    assert set(error) == {"kind", "message", "hint", "exit"}


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
