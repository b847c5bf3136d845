"""`schedule list` and `schedule render`: files that are ours, never a secret, never a drill in production."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from aiprod_ops import cli

CONFIG = """\
state = "state"
[targets.production]
probe = "env:OPS_PROBE_DSN"
actor = "env:OPS_ACTOR_DSN"
backup = "postgresql://backup:hunter22@db/app"
[targets.lab]
environment = "lab"
probe = "host=/nowhere dbname=app password=hunter22"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "default"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def render(config: Path, form: str, *more: str) -> int:
    return cli.call(["schedule", "render", "--format", form, "--config", str(config), *more])


IN_CONTAINERS = ("--image", "ops:1", "--project", "p", "--location", "europe-west1", "--service-account", "a@b.c")


@pytest.mark.parametrize("form", ["systemd", "cron", "kubernetes", "cloud-scheduler", "prometheus-rules"])
def test_files_are_written_twice_the_same_and_hold_no_secret(form: str, config: Path, tmp_path: Path) -> None:
    fitting = {"cloud-scheduler": IN_CONTAINERS, "kubernetes": IN_CONTAINERS[:2]}.get(form, ())
    options = (*fitting, "--pages", "https://ops.example.com")
    written = []
    for _ in range(2):
        assert render(config, form, "--output", str(tmp_path / "out"), *options) == 0
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert written[0] == written[1]
    assert b"hunter22" not in b"".join(written[0].values())
    told = b"".join(written[0].values()).decode()
    assert (" drill " in told) == (form in ("systemd", "cron", "prometheus-rules")), "a container has no lab"
    assert [line for line in told.splitlines() if "drill" in line and "production" in line] == []


def test_one_file_is_printed_and_several_want_a_folder(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(config, "cron", "--target", "production") == 0
    out, err = capsys.readouterr()
    assert out.startswith("# Written by `aiprod-ops schedule render`")
    assert "check verify-indexes --target production --config" in out
    assert "on lab" not in out
    assert err.startswith("not scheduled: run take-backup on production: ")
    assert render(config, "systemd") == 64
    assert "add --output DIR" in capsys.readouterr().err


def test_a_file_that_is_not_ours_stays(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tmp_path / "out/aiprod-ops"
    theirs.parent.mkdir()
    theirs.write_text("# by hand\n")
    assert render(config, "cron", "--output", str(theirs.parent)) == 10
    assert "was not written by this command" in capsys.readouterr().err
    assert theirs.read_text() == "# by hand\n"
    assert render(config, "cron", "--output", str(theirs.parent), "--force") == 0
    assert capsys.readouterr().err.endswith(f"\n{theirs}\n")
    assert theirs.read_text() != "# by hand\n"


def test_drills_can_be_left_out(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(config, "cron") == 0
    assert " drill verify-indexes --target lab" in capsys.readouterr().out
    assert render(config, "cron", "--no-drills") == 0
    assert " drill " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "elsewhere"), "has no target 'elsewhere'"),
        (("--push", "http://ops:hunter22@gateway"), "--push has a password, and the files would show it"),
    ],
)
def test_what_cannot_be_is_one_error(
    words: tuple[str, ...], says: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(config, "cron", *words) in (64, 78)
    out, err = capsys.readouterr()
    assert says in err
    assert out == ""
    assert "hunter22" not in err


def test_an_interval_that_is_none_is_named_with_its_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "books"
    folder.mkdir(mode=0o700)
    (folder / "now_and_then.py").write_text(
        "from aiprod_ops import api\nbook = api.Runbook(symptom='', owner='', check_every='now and then')\n"
        "@book.facts\ndef facts(ctx, params) -> dict:\n    return {}\n"
        "@book.judge\ndef judge(facts, params):\n    return ()\n"
    )
    (folder / "now_and_then.py").chmod(0o600)
    assert render(config, "cron", "--runbooks", str(folder)) == 78
    assert "now_and_then.py: check_every: 'now and then' is not a duration" in capsys.readouterr().err


def test_the_list_tells_when_each_last_ran(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(config)]
    assert cli.call(["schedule", "list", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8
    assert all(line.endswith("never") for line in lines[1:])
    assert not [line for line in lines if "drill" in line and "production" in line]
    assert cli.call(["check", "verify-indexes", "--target", "lab", *where]) == 3
    capsys.readouterr()
    assert cli.call(["schedule", "list", "--target", "lab", *where]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check  verify-indexes")]
    assert "UNKNOWN" in line
    assert line.endswith("never"), "it ran, and has not succeeded yet"


APPROVED_UNTIL = """
[[standing_approvals]]
runbook = "take-backup"
target = "production"
until = {until}
by = "ana"
reason = "OPS-7"
"""
APPROVED = APPROVED_UNTIL.format(until=datetime.now(UTC).date() + timedelta(days=30))


def test_a_run_is_scheduled_where_an_approval_stands_and_a_proof_everywhere(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(config, "cron", "--no-drills", "--prom-folder", "/metrics") == 0
    plain = capsys.readouterr().out
    assert " run " not in plain
    assert "prove test-backup --target production" in plain
    assert "--prom-file /metrics/aiprod-ops-prove-test-backup-production.prom" in plain
    config.write_text(CONFIG + APPROVED)
    assert render(config, "cron", "--no-drills", "--prom-folder", "/metrics") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "said=" in line and " run " in line]
    assert "run take-backup --standing --target production --config" in line
    assert "--prom-file" not in line
    assert render(config, "kubernetes", "--image", "ops:1") == 0
    assert "OPS_ACTOR_DSN" in capsys.readouterr().out, "it acts"
    assert render(config, "cloud-scheduler", *IN_CONTAINERS, "--output", str(config.parent / "out")) == 0
    assert "no lease holds from one job to another" in capsys.readouterr().err
    written = [path.name for path in (config.parent / "out").iterdir()]
    assert not [name for name in written if name.startswith("aiprod-ops-run-")]


def test_a_cloud_job_that_needs_evidence_needs_a_share(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needing = {f"aiprod-ops-{each}-production" for each in ("check-prune-backups", "check-test-backup",
                                                            "prove-test-backup")}  # fmt: skip

    def written(*more: str) -> set[str]:
        folder = config.parent / f"out{len(more)}"
        words = ("--target", "production", "--output", str(folder), *more)
        assert render(config, "cloud-scheduler", *IN_CONTAINERS, *words) == 0
        return {path.name.split(".")[0] for path in folder.iterdir()}

    without = written()
    said = capsys.readouterr().err
    assert "no evidence would outlive a job: check prune-backups, check test-backup, prove test-backup\n" in said
    assert "next: add --state-nfs SERVER:/PATH --subnetwork NAME" in said
    assert "aiprod-ops-check-backups-production" in without
    assert without & needing == set()
    assert written("--state-nfs", "10.0.0.2:/ops", "--subnetwork", "default") == without | needing
    assert "evidence" not in capsys.readouterr().err


def test_an_approval_is_looked_for_before_the_database_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "take-backup", "--standing", "--target", "lab", "--config", str(config)]
    assert cli.call(words) == 12
    assert "no standing approval names take-backup on lab" in capsys.readouterr().err
    config.write_text(CONFIG + APPROVED_UNTIL.format(until="2020-01-01").replace("production", "lab"))
    assert cli.call(words) == 12
    assert "standing approval of ana until 2020-01-01: OPS-7 has expired" in capsys.readouterr().err
    assert cli.call(["run", "prune-backups", *words[2:]]) == 12
    assert "is severe" in capsys.readouterr().err
    for more in (["--now"], ["--dry-run"], ["--apply", "0" * 12], ["--without", "a"]):
        assert cli.call([*words, *more]) == 64
        assert "takes no other plan, and no option of its own" in capsys.readouterr().err


def test_a_unit_may_write_where_backups_are_stored(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("[targets.lab]", 'backups = "/srv/backups"\narchive = "/home/a"\n[targets.lab]'))
    assert render(config, "systemd", "--target", "production", "--output", str(tmp_path / "out")) == 0
    told = (tmp_path / "out/aiprod-ops-check-backups-production.service").read_text()
    assert "-/srv/backups" in told
    assert "ProtectHome=read-only" in told


def test_no_two_alerts_are_easily_confused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At night a name is read once: another letter or two are not enough."""
    assert render(config, "prometheus-rules", "--pages", "https://x", "--output", str(config.parent / "out")) == 0
    capsys.readouterr()
    told = yaml.safe_load((config.parent / "out/aiprod-ops.rules.yml").read_text())
    names = sorted({rule["alert"] for group in told["groups"] for rule in group["rules"]})
    assert {"RestoreTestOverdueOrFailed", "BackupsCheckOverdue", "TestBackupProofNotReporting"} <= {*names}
    assert [pair for pair in itertools.combinations(names, 2) if letters_between(*pair) < 4] == []
    assert letters_between("BackupNotVerified", "BackupsNotVerified") == 1


def letters_between(one: str, other: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def test_a_container_has_no_folder_with_backups_and_that_is_said(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = 'backups = "/srv/backups"\narchive = "/srv/wal"\n'
    config.write_text(CONFIG.replace("[targets.lab]", f"{folders}[targets.lab]") + APPROVED)
    assert render(config, "kubernetes", *IN_CONTAINERS[:2], "--target", "production") == 0
    out, err = capsys.readouterr()
    args = [each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
            for each in yaml.safe_load_all(out)]  # fmt: skip
    assert ["check", "backups"] not in [each[:2] for each in args]
    assert [each for each in args if each[0] in ("prove", "run")] == []
    assert ["check", "verify-indexes"] in [each[:2] for each in args]
    assert "left out on production, for no container has /srv/backups, /srv/wal: " in err
    assert all(f"{each}" in err for each in ("check backups", "prove test-backup", "run take-backup"))
    assert "the configuration says state = " in err
    assert render(config, "cron", "--target", "production") == 0
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("approval", "says"),
    [
        ("", "no standing approval names take-backup on production\n  next: add [[standing_approvals]]"),
        (APPROVED_UNTIL.format(until="2020-01-01"), "until 2020-01-01: OPS-7 has expired"),
        (APPROVED_UNTIL.format(until="2999-01-01"), "stands for more than 366 days\n  next: name a day within a year"),
    ],
)
def test_a_run_without_an_approval_that_counts_is_not_scheduled_and_that_is_said(
    approval: str, says: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG + approval)
    for words in (["render", "--format", "cron"], ["list"]):
        assert cli.call(["schedule", *words, "--config", str(config), "--target", "production"]) == 0
        out, err = capsys.readouterr()
        assert "run take-backup" not in out
        assert "not scheduled: run take-backup on production: " in err
        assert says in err


@pytest.mark.parametrize(
    ("form", "words", "says"),
    [
        ("systemd", ("--image", "a", "--state-nfs", "a:/b"), "--format systemd does not know --image, --state-nfs"),
        ("kubernetes", IN_CONTAINERS, "does not know --project, --location, --service-account"),
        ("cloud-scheduler", (*IN_CONTAINERS, "--subnetwork", "default"), "add --state-nfs SERVER:/PATH"),
        ("cloud-scheduler", IN_CONTAINERS[:2], "needs --project, --location, --service-account"),
    ],
)
def test_options_that_do_not_fit_are_one_error(
    form: str, words: tuple[str, ...], says: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(config, form, *words) == 64
    out, err = capsys.readouterr()
    assert says in err
    assert out == ""


def test_a_runbook_says_itself_that_it_needs_backups(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its name."""
    folder = tmp_path / "books"
    folder.mkdir(mode=0o755)
    text = """
from aiprod_ops import api

book = api.Runbook(symptom="s", risk="low", owner="o", check_every="1 d", on_backups=True)


@book.facts
def facts(ctx, params) -> dict:
    return {}


@book.judge
def judge(facts, params):
    return []

"""
    (folder / "copy_elsewhere.py").write_text(text)
    folders = 'backups = "/srv/backups"\n'
    config.write_text(CONFIG.replace("[targets.lab]", f"{folders}[targets.lab]"))
    books = ("--runbooks", str(folder), "--target", "production")
    assert render(config, "kubernetes", *IN_CONTAINERS[:2], *books) == 0
    assert "check copy-elsewhere" in capsys.readouterr().err
    assert render(config, "cron", *books) == 0
    assert "check copy-elsewhere" in capsys.readouterr().out
