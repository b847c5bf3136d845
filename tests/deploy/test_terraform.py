"""deploy/terraform by the real Terraform: canonical, valid by Google's schema, and planned as service.toml says."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from stand_in import SCHEMA, Google, Terraform

from aiprod_ops import cli

SOURCE = Path(__file__).parents[2] / "deploy/terraform"
CONFIG = """\
service = "service.toml"
[targets.production]
platform = "cloudsql"
project = "acme"
instance = "aiprod"
probe = "env:OPS_PROBE_DSN"
backup = "env:OPS_BACKUP_DSN"
[targets.lab]
environment = "lab"
probe = "host=/nowhere dbname=app password=hunter22"
"""

SHARE = ("--state-nfs", "10.0.0.2:/ops", "--subnetwork", "default")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIPROD_OPS_STATE", str(tmp_path / "state"))
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "service.toml").write_text("")
    return tmp_path / "config.toml"


@pytest.fixture
def terraform(tmp_path: Path) -> Terraform:
    """A copy of the folder: Terraform writes beside what it reads."""
    folder = shutil.copytree(SOURCE, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfvars*"))
    return Terraform(folder)


def render(config: Path, *more: str, promised: str = "", target: str = "production") -> int:
    config.with_name("service.toml").write_text(promised)
    words = ["schedule", "render", "--format", "terraform", "--config", str(config), "--image", "ops:1"]
    return cli.call([*words, "--target", target, *more] if target else [*words, *more])


def values(config: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    assert render(config, **more) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.lab
def test_the_files_are_as_terraform_writes_them(terraform: Terraform) -> None:
    done = terraform("fmt", "-check", "-diff", "-recursive")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    (terraform.folder / "other.tf").write_text('variable "a" {\n type = string\n}\n')
    assert terraform("fmt", "-check").returncode == 3, "a file that is not is told"


@pytest.mark.lab
def test_they_are_valid_by_the_providers_schema(terraform: Terraform) -> None:
    done = terraform("validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    primary = terraform.folder / "primary.tf"
    for wrong, right, says in (
        ("disk_autogrow", "disk_autoresize", "Unsupported argument"),
        ("insights", "insights_config", "Unsupported block type"),
        ("var.database.disk_gigabytes", "var.database.disk_gb", "Unsupported attribute"),
    ):
        primary.write_text((SOURCE / "primary.tf").read_text().replace(right, wrong))
        done = terraform("validate", "-no-color")
        assert (done.returncode, says in done.stderr + done.stdout) == (1, True), done.stdout + done.stderr


def test_each_variable_is_written_and_nothing_else(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = set(re.findall(r'^variable "(\w+)"', (SOURCE / "variables.tf").read_text(), re.MULTILINE))
    assert set(values(config, capsys)) == declared | {"//"}
    assert "default" not in re.findall(r"^\s+(\w+)\s+=", (SOURCE / "variables.tf").read_text(), re.MULTILINE)
    used = set(re.findall(r"\bvar\.(\w+)", "".join(path.read_text() for path in SOURCE.glob("*.tf"))))
    assert used == declared


@pytest.mark.lab
def test_the_plan_is_what_the_file_promises(terraform: Terraform, config: Path) -> None:
    assert render(config, "--output", str(terraform.folder)) == 0
    plan = terraform.planned()
    primary = plan["google_sql_database_instance.primary"]
    (settings,) = primary["settings"]
    (backups,) = settings["backup_configuration"]
    assert (primary["name"], primary["region"], primary["database_version"]) == ("aiprod", "us-central1", "POSTGRES_18")
    assert (settings["availability_type"], settings["tier"]) == ("REGIONAL", "db-perf-optimized-N-2")
    assert primary["deletion_protection"]
    assert settings["deletion_protection_enabled"]
    assert (backups["enabled"], backups["point_in_time_recovery_enabled"]) == (True, True)
    assert backups["backup_retention_settings"][0]["retained_backups"] == 30
    assert settings["maintenance_window"][0]["day"] == 7
    assert settings["ip_configuration"][0]["private_network"] == "projects/acme/global/networks/default"
    assert {"name": "log_min_duration_statement", "value": "500"} in settings["database_flags"]
    assert primary["replication_cluster"] == [], "Google designates no replica that is not there yet"
    assert plan['google_sql_database_instance.replica["aiprod-dr"]']["region"] == "us-east1"
    assert plan["google_redis_instance.cache"]["memory_size_gb"] == 1


@pytest.mark.lab
def test_the_dr_replica_is_designated_once_it_is_there(terraform: Terraform, config: Path) -> None:
    assert render(config, "--output", str(terraform.folder)) == 0
    there = Terraform(terraform.folder, Google(["aiprod", "aiprod-replica1", "aiprod-dr"]))
    (cluster,) = there.planned()["google_sql_database_instance.primary"]["replication_cluster"]
    assert cluster["failover_dr_replica_name"] == "acme:aiprod-dr"


@pytest.mark.lab
@pytest.mark.parametrize("share", [(), SHARE], ids=["no share", "a share"])
def test_the_jobs_are_those_of_the_cloud_scheduler_format(
    share: tuple[str, ...], terraform: Terraform, config: Path, tmp_path: Path
) -> None:
    assert render(config, "--output", str(terraform.folder), *share) == 0
    words = ["--image", "ops:1", "--project", "acme", "--location", "us-central1", "--service-account", "a@b.c", *share]
    form = ["schedule", "render", "--format", "cloud-scheduler", "--config", str(config), "--target", "production"]
    assert cli.call([*form, *words, "--output", str(tmp_path / "bodies")]) == 0
    plan = terraform.planned()
    bodies = {path.name: json.loads(path.read_text()) for path in (tmp_path / "bodies").iterdir()}
    names = {name.partition(".")[0] for name in bodies}
    assert {f'google_cloud_run_v2_job.job["{name}"]' for name in names} <= set(plan)
    assert len([each for each in plan if each.startswith("google_cloud_scheduler_job.")]) == len(names) >= 6
    for name in names:
        body = bodies[f"{name}.run.json"]["template"]["template"]
        (made,) = plan[f'google_cloud_run_v2_job.job["{name}"]']["template"][0]["template"]
        (container,), (wanted,) = made["containers"], body["containers"]
        assert (container["args"], container["command"]) == (wanted["args"], wanted["command"])
        assert (container["resources"][0]["limits"], made["timeout"]) == (
            wanted["resources"]["limits"],
            body["timeout"],
        )
        assert container["env"][0]["value"] == wanted["env"][0]["value"]
        mounts = [(each["name"], each["mount_path"]) for each in container["volume_mounts"]]
        assert mounts == [(each["name"], each["mountPath"]) for each in wanted["volumeMounts"]]
        assert [each["nfs"][0]["path"] for each in made["volumes"] if each["nfs"]] == [
            each["nfs"]["path"] for each in body["volumes"] if "nfs" in each
        ]
        assert [each["name"] for each in container["env"]] == [each["name"] for each in wanted["env"]]
        secrets = [each["value_source"][0]["secret_key_ref"][0]["secret"] for each in container["env"][1:]]
        assert secrets == [each["valueSource"]["secretKeyRef"]["secret"] for each in wanted["env"][1:]]
        scheduler, when = plan[f'google_cloud_scheduler_job.job["{name}"]'], bodies[f"{name}.scheduler.json"]
        assert (scheduler["schedule"], scheduler["time_zone"]) == (when["schedule"], when["timeZone"])
        assert scheduler["http_target"][0]["body"] == when["httpTarget"]["body"]


@pytest.mark.lab
def test_each_identity_may_do_the_least(terraform: Terraform, config: Path) -> None:
    """No role that writes for what checks; what restores copies may change copies only."""
    assert render(config, "--output", str(terraform.folder), *SHARE) == 0
    plan = terraform.planned()
    assert {plan[f'google_project_iam_member.viewer["{kind}"]']["role"] for kind in ("checks", "proofs")} == {
        "roles/cloudsql.viewer"
    }
    (condition,) = plan["google_project_iam_member.copies"]["condition"]
    assert "instances/ops-" in condition["expression"]
    roles = {each["role"] for name, each in plan.items() if "iam_member" in name and "role" in each}
    assert roles <= {"roles/cloudsql.viewer", "roles/run.invoker", "roles/secretmanager.secretAccessor"}
    assert not [name for name in plan if "secret_version" in name], "no secret passes through Terraform's state"
    readers = {name for name in plan if name.startswith("google_secret_manager_secret_iam_member")}
    for kind in ("checks", "proofs"):
        assert f'google_secret_manager_secret_iam_member.reader["{kind}/ops-probe-dsn"]' in readers


def test_a_file_of_ones_own_counts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promised = """
[backups]
every = "12 h"
daily = "90 d"
[cloudsql]
edition = "ENTERPRISE"
recovery = "7 d"
replicas = {b = "", c = "europe-west4"}
dr_replica = ""
flags = {track_io_timing = false, log_temp_files = "1024"}
"""
    made = values(config, capsys, promised=promised)
    assert made["database"]["retained_backups"] == 90, "Google takes one a day"
    assert made["database"]["log_days"] == 7
    assert made["database"]["flags"] == {"track_io_timing": "off", "log_temp_files": "1024"}
    assert made["replicas"] == {"aiprod-b": "us-central1", "aiprod-c": "europe-west4"}
    assert made["dr_replica"] == ""


@pytest.mark.parametrize(
    ("promised", "says"),
    [
        ("[cloudsql]\nedition = 'PLUS'", "cloudsql.edition is 'PLUS', expected ENTERPRISE or ENTERPRISE_PLUS"),
        ("[cloudsql]\ntier = ''", "cloudsql.tier is '', expected a tier such as db-custom-2-8192"),
        ("[cloudsql]\navailability = 'HA'", "cloudsql.availability is 'HA', expected REGIONAL or ZONAL"),
        ("[cloudsql]\nregion = 'Oregon'", "cloudsql.region is 'Oregon', expected a region such as"),
        ("[cloudsql]\ndisk = '5 GB'", "cloudsql.disk is '5 GB', expected 10 GB to 65536 GB"),
        ("[cloudsql]\ndisk = true", "cloudsql.disk is True"),
        ("[cloudsql]\ndisk_grows = 1", "cloudsql.disk_grows is 1, expected true or false"),
        ("[cloudsql]\nbackup_start = '25:00'", "cloudsql.backup_start is '25:00', expected a time such as 03:00, UTC"),
        ("[cloudsql]\nrecovery = '60 d'", "cloudsql.recovery is '60 d', expected 1 d to 35 d"),
        ("[cloudsql]\nrecovery = 'long'", "cloudsql.recovery is 'long'"),
        ("[cloudsql]\nmaintenance = 'Sunday'", "expected a day and an hour such as 'Sunday 04:00', UTC"),
        ("[cloudsql]\nssl_mode = 'on'", "expected ALLOW_UNENCRYPTED_AND_ENCRYPTED, ENCRYPTED_ONLY"),
        ("[cloudsql]\nreplicas = 2", "cloudsql.replicas is 2, expected a table of regions"),
        ("[cloudsql]\nreplicas = {a = 3}", "cloudsql.replicas.a is 3, expected a region such as"),
        ("[cloudsql]\nreplicas = {}", "cloudsql.dr_replica is 'dr', expected one of [cloudsql.replicas]"),
        ("[cloudsql]\ndr_replica = 'replica1'", "in another region than us-central1"),
        ("[cloudsql]\nedition = 'ENTERPRISE'\nrecovery = '7 d'", "only ENTERPRISE_PLUS designates one"),
        ("[cloudsql]\nflags = {'drop table' = 1}", "expected a flag of PostgreSQL"),
        ("[cloudsql]\nflags = {work_mem = [1]}", "cloudsql.flags.work_mem is [1]"),
        ("[memorystore]\nmemory = '0'", "memorystore.memory is '0', expected 1 GB to 300 GB"),
        ("[memorystore]\nversion = '7'", "memorystore.version is '7'"),
        ("[backups]\ndaily = '400 d'", "backups.daily is '400 d', expected at most 365 backups"),
        ("[backups]\nleast = 'few'", "backups.least is 'few'"),
    ],
)
def test_what_makes_no_sense_is_one_error(
    promised: str, says: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(config, promised=promised) == 78
    out, err = capsys.readouterr()
    assert says in err
    assert "service.toml: " in err
    assert out == ""


def test_only_one_instance_on_cloud_sql_is_rendered(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(config, target="") == 64
    assert "add --target NAME" in capsys.readouterr().err
    assert render(config, target="lab") == 78
    assert "target 'lab' is no instance on Cloud SQL" in capsys.readouterr().err


def test_the_recorded_schema_is_of_a_version_that_is_asked_for() -> None:
    asked = re.search(r'version = ">= ([0-9.]+), < (\d+)"', (SOURCE / "versions.tf").read_text())
    assert asked is not None
    assert SCHEMA["provider"].startswith(asked[1])
    written = "".join(path.read_text() for path in SOURCE.glob("*.tf"))
    assert set(re.findall(r'^resource "(\w+)"', written, re.MULTILINE)) == set(SCHEMA["resource"])
    assert set(re.findall(r'^data "(\w+)"', written, re.MULTILINE)) == set(SCHEMA["data"])
