"""Scheduled work as systemd, cron, Prometheus, node_exporter and a Pushgateway see it: the real ones."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from command_line import Bench, until

from aiprod_ops.adapters import prometheus
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.results import Result, Subject
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.schedules import cron, rules, systemd
from aiprod_ops.units import Seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "schedules"))
from made import ODD, WHERE, made

pytestmark = pytest.mark.lab
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
RESULT = Result(
    Subject("test-backup", 'a "b" \\ c\nd', "lab"), "check", Status.CRITICAL, NOW, Seconds(3.5), NOW,
    {Status.OK: 3, Status.CRITICAL: 1}, {"aiprod_ops_restore_time_seconds": 12.5},
)  # fmt: skip


def program(name: str, package: str) -> str:
    """A program of the system; scripts/test-servers installs its package where it can."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; it is in Debian's package {package}")
    return found


def run(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **more})


def written(files: dict[str, str], folder: Path) -> list[Path]:
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    units = [*written(systemd.files(made(), WHERE), tmp_path), *written(systemd.files(made(ODD), WHERE), tmp_path)]
    done = run(analyze, "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    service = tmp_path / "aiprod-ops-check-book-0-production.service"
    service.write_text(service.read_text().replace("NoNewPrivileges", "NoNewPriviliges"))
    assert "NoNewPriviliges" in run(analyze, "verify", "--man=no", service).stderr, "it would take anything"


def test_systemd_means_the_times_that_cron_means() -> None:
    analyze = program("systemd-analyze", "systemd")
    from croniter import croniter

    for job in made():
        assert job.calendar is not None
        done = run(analyze, "calendar", "--base-time=2027-01-01 00:00:00 UTC", "--iterations=20", job.calendar.systemd,
                   TZ="UTC", LC_ALL="C")  # fmt: skip
        told = [line.split(": ", 1)[1] for line in done.stdout.splitlines()
                if line.strip().startswith(("Next elapse:", "Iter. #", "Iteration #"))]  # fmt: skip
        seen = [datetime.strptime(each, "%a %Y-%m-%d %H:%M:%S %Z").replace(tzinfo=UTC) for each in told]
        moments = croniter(job.calendar.cron, datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)).all_next(datetime)
        assert len(seen) == 20, done.stdout + done.stderr
        assert seen == [next(moments) for _ in seen], job.name


def test_systemd_reads_a_command_line_word_by_word(tmp_path: Path) -> None:
    """Names that a shell, systemd and cron each would take apart in their own way."""
    (check, *_) = [job for job in made("1 h") if job.place.target != "production"]
    (line,) = [
        each for each in systemd.files([check], WHERE)[f"{check.name}.service"].splitlines() if "ExecStart" in each
    ]
    assert '"50%% $$HOME \'ö\\""' in line
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\nexit 2\n')
    show.chmod(0o755)
    by_shell = cron.command(check, replace(WHERE, program=str(show))).replace("\\%", "%")
    told = run("/bin/sh", "-c", by_shell).stdout.splitlines()
    assert told == [*check.words, "--alone", *WHERE.command(check)[len(check.words) + 1 :]]


def test_cron_takes_every_line(tmp_path: Path) -> None:
    crontab = program("crontab", "cron")
    (text,) = cron.files(made(), WHERE).values()
    lines = [line.split(" ") for line in text.splitlines()]
    own = [" ".join([*words[:5], *words[6:]]) if words[0][:1].isdigit() else " ".join(words) for words in lines]
    (tmp_path / "own").write_text("\n".join(own) + "\n")  # a user's own crontab has no field for the user
    done = run(crontab, "-n", tmp_path / "own")
    assert done.returncode == 0, done.stderr
    (tmp_path / "own").write_text("\n".join(own).replace(" * * * ", " 32 * * ") + "\n")
    assert run(crontab, "-n", tmp_path / "own").returncode != 0, "it would take anything"


def test_prometheus_takes_the_rules_and_each_one_fires(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    jobs = made("5 min", "1 h", "1 d", "30 d")
    files = rules.files(jobs, WHERE)
    written(files, tmp_path)
    checked = run(promtool, "check", "rules", tmp_path / rules.RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {8 * 5 + 2 * 5 + 2 * 3} rules found" in checked.stdout
    tested = run(promtool, "test", "rules", tmp_path / rules.TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for then, now in (("== 2", "== 3"), ("> 93600", "> 93000"), ("for: 93600s", "for: 94600s")):
        assert then in files[rules.RULES]
        (tmp_path / rules.RULES).write_text(files[rules.RULES].replace(then, now))
        assert run(promtool, "test", "rules", tmp_path / rules.TESTS).returncode != 0, f"nobody sees {now}"


def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=prometheus.text([RESULT]), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextmanager
def serving(*words: str | Path) -> Iterator[str]:
    """A program that serves HTTP; its address as soon as it answers. It finds its port itself, so none is taken."""
    process = subprocess.Popen([*words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        of_it = psutil.Process(process.pid)
        (port,) = until(lambda: [c.laddr.port for c in of_it.net_connections() if c.status == "LISTEN"], "it listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def samples(text: str, name: str = "aiprod_ops_") -> set[str]:
    return {line for line in text.splitlines() if line.startswith(name)}


def test_node_exporter_shows_the_files_of_two_jobs(tmp_path: Path) -> None:
    exporter = program("prometheus-node-exporter", "prometheus-node-exporter")
    other = replace(RESULT, subject=Subject("verify-indexes", "lab", "lab"), succeeded=None, measured={})
    for name, result in (("one", RESULT), ("two", other)):
        (tmp_path / f"{name}.prom").write_text(prometheus.text([result]))
    words = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}",
             "--web.listen-address=127.0.0.1:0")  # fmt: skip
    with serving(exporter, *words) as url:
        text = read(f"{url}/metrics")
    assert samples(text, "node_textfile_scrape_error") == {"node_textfile_scrape_error 0"}
    ours = samples(text)
    assert len(ours) == len(samples(prometheus.text([RESULT]))) + len(samples(prometheus.text([other])))
    assert 'aiprod_ops_check_status{environment="lab",runbook="verify-indexes",target="lab"} 2' in ours


def test_a_pushgateway_keeps_the_success_that_a_machine_forgot() -> None:
    gateway = program("prometheus-pushgateway", "prometheus-pushgateway")
    with serving(gateway, "--web.listen-address=127.0.0.1:0", "--persistence.file=") as url:
        prometheus.push(url, [RESULT], Seconds(10))
        prometheus.push(url, [replace(RESULT, subject=Subject("other", "lab", "lab"))], Seconds(10))
        good = samples(read(f"{url}/metrics"), "aiprod_ops_check_last_success")
        assert len(good) == 2
        prometheus.push(url, [replace(RESULT, status=Status.UNKNOWN, succeeded=None)], Seconds(10))
        text = read(f"{url}/metrics")
    assert samples(text, "aiprod_ops_check_last_success") == good
    assert {line.rpartition(" ")[2] for line in samples(text, "aiprod_ops_check_status")} == {"2", "3"}


def test_a_rendered_line_does_its_work_on_a_lab(fleet: Fleet, tmp_path: Path) -> None:
    """As cron would do it: with its shell, its environment and nothing else."""
    bench = Bench(fleet.config, fleet.dsn("postgres"), fleet)
    beside = Path(sys.executable).with_name("aiprod-ops")
    words = ("--program", str(beside), "--prom-folder", str(tmp_path), "--config", str(fleet.config), "--no-drills")
    made_cron = bench.run("schedule", "render", "--format", "cron", *words)
    assert made_cron.exit == 0, made_cron.said
    lines = made_cron.out.splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and line[0].isupper())
    (line,) = [each for each in lines if "check verify-indexes" in each and each[0].isdigit()]
    command = line.split(" ", 6)[6].replace("\\%", "%")
    done = subprocess.run(
        [settings["SHELL"], "-c", command], env={**settings, "HOME": "/"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.prom")
    text = file.read_text()
    told = run_promtool(text)
    assert told == ""
    assert 'aiprod_ops_check_status{environment="lab",runbook="verify-indexes",target="lab"}' in text
    listed = bench.run("schedule", "list", "-o", "json", "--config", str(fleet.config))
    (row,) = [row for row in listed.json() if (row["work"], row["runbook"]) == ("check", "verify-indexes")]
    assert row["status"] in done.stdout or row["status"] == "OK", "what is not OK is mailed"
    assert row["last"] != "never"


def run_promtool(text: str) -> str:
    promtool = program("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    return done.stdout + done.stderr
