"""What each format's files hold, by the schemas that Kubernetes and Google publish."""

import base64
import json
import shlex
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from croniter import croniter
from made import EVERY, ODD, WHERE, made

from aiprod_ops import cli
from aiprod_ops.errors import UsageError
from aiprod_ops.pages import commands
from aiprod_ops.schedules import cloud, cron, kubernetes, rules, systemd
from aiprod_ops.schedules.formats import FORMATS, render
from aiprod_ops.schedules.installation import MARK, Installation


def discovery(name: str) -> dict[str, Any]:
    """An API's description, as it ships inside Google's client."""
    documents = resources.files("googleapiclient.discovery_cache") / "documents"
    return json.loads((documents / name).read_text())  # type: ignore[no-any-return]


def strict(schema: Any) -> Any:
    """A type of a discovery document as JSON schema; a field that it does not know is an error, as it is for Google."""
    if "$ref" in schema:
        return {"$ref": f"#/definitions/{schema['$ref']}"}
    kept = {key: schema[key] for key in ("enum", "pattern") if key in schema}
    kept |= {"type": schema["type"]} if schema["type"] != "any" else {}
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    elif "properties" in schema:
        kept["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        kept["additionalProperties"] = False
    return kept


def validator(api: str, name: str) -> jsonschema.Draft4Validator:
    """What takes exactly the values of one of an API's types."""
    definitions = {each: strict(schema) for each, schema in discovery(api)["schemas"].items()}
    return jsonschema.Draft4Validator({"$ref": f"#/definitions/{name}", "definitions": definitions})


RUN = validator("run.v2.json", "GoogleCloudRunV2Job")
SCHEDULER = validator("cloudscheduler.v1.json", "Job")


@pytest.mark.parametrize("version", [kubernetes_validate.latest_version(), "1.27"])
def test_cron_jobs_are_what_kubernetes_takes(version: str) -> None:
    (text,) = kubernetes.files(made(), WHERE).values()
    documents = list(yaml.safe_load_all(text))
    assert len(documents) == len(made())
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
        assert croniter.is_valid(document["spec"]["schedule"])
        pod = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        secret = [each["name"] for each in pod["containers"][0]["env"] if "valueFrom" in each]
        assert secret == (["OPS_ACTOR_DSN", "OPS_PROBE_DSN"] if "production" in document["metadata"]["name"] else [])
    documents[0]["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[0], version, strict=True)


def test_cloud_jobs_are_what_the_apis_take() -> None:
    files = cloud.files(made(), WHERE)
    for name, text in files.items():
        body = json.loads(text)
        schema = RUN if name.endswith(".run.json") else SCHEDULER
        assert [error.message for error in schema.iter_errors(body)] == []
        assert MARK in text[:300]
        if schema is SCHEDULER:
            assert croniter.is_valid(body["schedule"])
            assert json.loads(base64.b64decode(body["httpTarget"]["body"])) == {}
            job = body["name"].rpartition("/")[2]
            assert body["httpTarget"]["uri"].endswith(f"/jobs/{job}:run")
            assert f"{job}.run.json" in files
    wrong = json.loads(text) | {"scheduel": "* * * * *"}
    assert list(SCHEDULER.iter_errors(wrong)), "the schema would take anything"


def test_a_cloud_job_keeps_its_state_on_a_share_where_one_is_named() -> None:
    def of(**changes: Any) -> dict[str, dict[str, Any]]:
        files = cloud.files(made(), replace(WHERE, **changes))
        bodies = {name: json.loads(text) for name, text in files.items() if name.endswith(".run.json")}
        assert [error.message for body in bodies.values() for error in RUN.iter_errors(body)] == []
        return {name: body["template"]["template"] for name, body in bodies.items()}

    def state(task: dict[str, Any]) -> str:
        return next(each["value"] for each in task["containers"][0]["env"] if each["name"] == "AIPROD_OPS_STATE")

    for task in of().values():
        assert [volume["name"] for volume in task["volumes"]] == ["config"]
        assert state(task).startswith("/tmp/")
    shared = of(state_nfs="10.0.0.2:/ops", subnetwork="default")
    for task in shared.values():
        assert {"name": "state", "nfs": {"server": "10.0.0.2", "path": "/ops"}} in task["volumes"]
        (mount,) = [each for each in task["containers"][0]["volumeMounts"] if each["name"] == "state"]
        assert state(task).startswith(f"{mount['mountPath']}/")
        assert task["vpcAccess"] == {"networkInterfaces": [{"subnetwork": "default"}]}
    places = {name: state(task) for name, task in shared.items()}
    assert len(set(places.values())) == 2, "no lock holds between executions: each target has a folder of its own"
    proof, check = (places[f"aiprod-ops-{work}-book-0-production.run.json"] for work in ("prove", "check"))
    assert proof == check, "it reads what the proof has sealed"
    with pytest.raises(UsageError, match="needs --subnetwork"):
        of(state_nfs="10.0.0.2:/ops")
    for wrong in ("10.0.0.2", "10.0.0.2:ops", "gs://ops"):
        with pytest.raises(UsageError, match="expected SERVER:/PATH"):
            of(state_nfs=wrong, subnetwork="default")


def test_the_uri_is_the_one_of_the_run_method() -> None:
    described = discovery("run.v2.json")
    method = described["resources"]["projects"]["resources"]["locations"]["resources"]["jobs"]["methods"]["run"]
    body = json.loads(next(text for name, text in cloud.files(made("1 h"), WHERE).items() if "scheduler" in name))
    job = body["name"].rpartition("/")[2]
    path = method["flatPath"].format(projectsId="example", locationsId="europe-west1", jobsId=job)
    assert body["httpTarget"]["uri"] == described["rootUrl"] + path
    assert body["httpTarget"]["httpMethod"] == method["httpMethod"]


def test_cron_lines() -> None:
    (text,) = cron.files(made(), WHERE).values()
    lines = [line for line in text.splitlines() if line and line[0] in "0123456789"]
    assert len(lines) == len(made())
    for line in lines:
        *when, user, command = line.split(" ", 6)
        assert croniter.is_valid(" ".join(when))
        assert user == "aiprod-ops"
        assert "%" not in command.replace("\\%", ""), "cron takes a bare % for the end of the command"
    assert text.endswith("\n"), "cron ignores a last line without an end"
    with pytest.raises(UsageError, match=r"has 1[0-9]{3} characters; cron takes 998"):
        cron.files(made("1 h"), Installation(program="/" + "x" * 900))


@pytest.mark.parametrize("form", [name for name in FORMATS if name not in ("systemd", "prometheus-rules")])
def test_an_interval_that_a_format_cannot_say_is_one_error(form: str) -> None:
    with pytest.raises(UsageError, match=r"book-0 wants its check every 36\.0 h, which .* cannot say"):
        render(form, made(ODD), WHERE)
    assert render("systemd", made(ODD), WHERE)
    assert render("prometheus-rules", made(ODD), WHERE)


@pytest.mark.parametrize(("form", "option"), [(name, need) for name, each in FORMATS.items() for need in each.needs])
def test_what_is_missing_is_named(form: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"--format {form} needs --{option.replace('_', '-')}"):
        render(form, made("1 h"), replace(WHERE, **{option: ""}))


def words_of(form: str) -> list[tuple[str, ...]]:
    """Every command line in a format's files, as the program gets it."""
    found: list[tuple[str, ...]] = []
    for name, text in render(form, made(), WHERE).items():
        if form == "kubernetes":
            pods = [each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for each in yaml.safe_load_all(text)]
            found += [tuple(pod["containers"][0]["args"]) for pod in pods]
        elif name.endswith(".run.json"):
            found.append(tuple(json.loads(text)["template"]["template"]["containers"][0]["args"]))
        elif name.endswith(".tfvars.json"):
            found += [tuple(job["args"]) for job in json.loads(text)["jobs"].values()]
        elif name == rules.RULES:
            alerts = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
            found += [tuple(shlex.split(rule["annotations"]["command"])[1:]) for rule in alerts]
        elif form == "cron":
            plain = [line.replace("\\%", "%") for line in text.splitlines() if "said=$(" in line]
            inner = [line.partition("said=$(")[2].rpartition(" 2>&1)")[0] for line in plain]
            found += [tuple(shlex.split(line)[4:]) for line in inner]
    return found


@pytest.mark.parametrize("form", [name for name in FORMATS if name != "systemd"])
def test_every_command_line_parses(form: str) -> None:
    found = words_of(form)
    assert len(found) >= len(made())
    for words in found:
        context = commands.parse(cli.cli, words)
        assert context.info_name in ("check", "prove", "run", "drill")
        assert bool(context.params.get("standing")) == (context.info_name == "run")
        assert context.params["target"]
        assert len(context.params["words"]) == 1, "an option was taken for one of the runbook's own"


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_jobs_give_the_same_bytes(form: str) -> None:
    files = render(form, made(), WHERE)
    assert files == render(form, made(), WHERE)
    assert all(MARK in text[:300] for text in files.values())


def test_a_unit_hides_nothing_that_its_job_needs() -> None:
    def unit(**changes: Any) -> str:
        return next(iter(systemd.files(made("1 h"), replace(WHERE, **changes)).values()))

    assert "ProtectHome=yes\nPrivateTmp=yes\n" in unit()
    assert "ProtectHome=read-only\n" in unit(program="/home/ops/venv/bin/aiprod-ops")
    assert "CapabilityBoundingSet=\n" in unit()
    assert "CapabilityBoundingSet" not in unit(user="root"), "a copy's server runs as another user"
    assert "PrivateTmp=no\n" in unit(reads=("/tmp/socket",))
    assert "StateDirectory=ops\n" in unit(state="/var/lib/ops")
    elsewhere = unit(state="/srv/ops state", writes=("/srv/copies",))
    assert 'ReadWritePaths="/srv/ops state" /var/lib/prometheus/node-exporter /srv/copies\n' in elsewhere
    assert "StateDirectory" not in elsewhere


def test_a_unit_needs_the_file_of_dsns_only_where_a_dsn_is_in_it() -> None:
    files = systemd.files(made("1 h"), WHERE)
    (ours,) = [text for name, text in files.items() if name == "aiprod-ops-check-book-0-production.service"]
    assert "EnvironmentFile=/etc/aiprod-ops/environment\n" in ours
    assert "SuccessExitStatus=1\n" in ours
    others = [text for name, text in files.items() if name.endswith(".service") and "production" not in name]
    assert all("EnvironmentFile=-/etc/aiprod-ops/environment\n" in text for text in others)
    assert [("SuccessExitStatus" in text) for name, text in files.items() if "drill" in name] == [False] * 4


def test_each_interval_has_a_timer() -> None:
    timers = [text for name, text in systemd.files(made(), WHERE).items() if name.endswith(".timer")]
    assert len(timers) == 2 * (len(EVERY) + 3)
    assert all("Persistent=true" in text for text in timers)
    (odd, *_) = [text for name, text in systemd.files(made(ODD), WHERE).items() if name.endswith(".timer")]
    assert "OnUnitActiveSec=129600\n" in odd
    assert "Persistent" not in odd
