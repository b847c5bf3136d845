"""A Cloud Run job for each job, and the Cloud Scheduler job that executes it: the bodies that the REST APIs take.

Source: the discovery documents of run v2 (GoogleCloudRunV2Job) and cloudscheduler v1 (Job).
"""

import base64
import json
import re
from typing import Any

from aiprod_ops.domain.schedules import PROGRAM, Job, name_of
from aiprod_ops.errors import UsageError
from aiprod_ops.schedules.installation import HOME, MARK, STATE, Installation

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """`NAME.run.json` for projects.locations.jobs.create of Cloud Run, `NAME.scheduler.json` for Cloud Scheduler's."""
    made: dict[str, str] = {}
    for job in jobs:
        made[f"{job.name}.run.json"] = _json(_run(job, where))
        made[f"{job.name}.scheduler.json"] = _json(_scheduler(job, where))
    return made


def _run(job: Job, where: Installation) -> dict[str, Any]:
    """Without a share no state outlives an execution; a Pushgateway keeps the last success.

    A bucket would be no state: gcsfuse has no locks, and rewrites a journal for each record. Cloud Run mounts NFS
    without locks, too, so that each target has a folder of its own there: one job seals evidence in it.
    """
    server, path = share(where)
    state = state_of(job, where)
    mounts = [{"name": "config", "mountPath": HOME}, *([{"name": "state", "mountPath": STATE}] if server else [])]
    mounted = [{"name": "state", "nfs": {"server": server, "path": path}}] if server else []
    network = {"vpcAccess": {"networkInterfaces": [{"subnetwork": where.subnetwork}]}} if where.subnetwork else {}
    secrets = [
        {"name": name, "valueSource": {"secretKeyRef": {"secret": secret(name), "version": "latest"}}}
        for name in job.place.variables
    ]
    return {
        "annotations": {"aiprod-ops": MARK, "title": job.title},
        "labels": {"managed-by": PROGRAM},
        "template": {
            "taskCount": 1,
            "parallelism": 1,
            "template": {
                "maxRetries": 0,
                "timeout": f"{job.deadline:.0f}s",
                **({"serviceAccount": where.service_account} if where.service_account else {}),
                **network,
                "containers": [
                    {
                        "image": where.image,
                        "command": [where.program],
                        "args": arguments(job, where),
                        "env": [{"name": "AIPROD_OPS_STATE", "value": state}, *secrets],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                        "volumeMounts": mounts,
                    }
                ],
                "volumes": [
                    {
                        "name": "config",
                        "secret": {"secret": where.secret, "items": [{"path": "config.toml", "version": "latest"}]},
                    },
                    *mounted,
                ],
            },
        },
    }


def _scheduler(job: Job, where: Installation) -> dict[str, Any]:
    """It starts an execution and waits for no end: the deadline is the Cloud Run job's."""
    when = job.counted_by("Cloud Scheduler")
    parent = f"projects/{where.project}/locations/{where.location}"
    note = f" ({when.note})" if when.note else ""
    return {
        "description": f"{MARK}: {job.title}{note}",
        "name": f"{parent}/jobs/{job.name}",
        "schedule": when.cron,
        "timeZone": "Etc/UTC",
        "attemptDeadline": "180s",
        # An answer that was lost may have started it: a proof is not started twice.
        "retryConfig": {
            "retryCount": 0 if job.wish.work == "prove" else 2,
            "minBackoffDuration": "10s",
            "maxBackoffDuration": "60s",
        },
        "httpTarget": {
            "uri": f"https://run.googleapis.com/v2/{parent}/jobs/{job.name}:run",
            "httpMethod": "POST",
            "headers": {"Content-Type": "application/json"},
            "body": base64.b64encode(b"{}").decode(),
            # Google's own APIs take an OAuth token; an OIDC token is for services of one's own.
            "oauthToken": {"serviceAccountEmail": where.service_account, "scope": _SCOPE},
        },
    }


def state_of(job: Job, where: Installation) -> str:
    """The folder that a job keeps its state in, within its container."""
    return f"{STATE}/{name_of(job.place.target, 52)}" if where.state_nfs else "/tmp/aiprod-ops"  # noqa: S108


def share(where: Installation) -> tuple[str, str]:
    """Server and path of the share that is the state; both empty without one. Raises UsageError."""
    if not where.state_nfs:
        return "", ""
    if (found := re.fullmatch(r"([\w.-]+):(/(?!/)\S*)", where.state_nfs)) is None:
        raise UsageError(f"--state-nfs is {where.state_nfs!r}, expected SERVER:/PATH", hint="as in 10.0.0.2:/ops")
    if not where.subnetwork:
        raise UsageError(
            "--state-nfs needs --subnetwork: Cloud Run reaches a share only through a VPC network",
            hint="add --subnetwork NAME, in the location of the jobs",
        )
    return found[1], found[2]


def arguments(job: Job, where: Installation) -> list[str]:
    """What follows the program: a WARNING is told by its alert, and fails no execution."""
    return list(where.command(job, *(("--warning-ok",) if job.wish.work == "check" else ()))[1:])


def secret(variable: str) -> str:
    """A variable's secret in Secret Manager.

    >>> secret("OPS_PROBE_DSN")
    'ops-probe-dsn'
    """
    return variable.lower().replace("_", "-")


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2) + "\n"
