"""A CronJob for each job, in one YAML file. Source: Kubernetes API reference, CronJob v1 batch."""

from typing import Any

import yaml

from aiprod_ops.domain.schedules import PROGRAM, Job
from aiprod_ops.schedules.installation import HEAD, HOME, STATE, Installation

NAME = f"{PROGRAM}.yaml"
_NOBODY = 65532


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """One file with a document for each job."""
    documents = [_document(job, where) for job in jobs]
    text = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120, explicit_start=True)
    return {NAME: HEAD + text}


class _Plain(yaml.SafeDumper):
    """Labels are written out each time they occur, not as anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _document(job: Job, where: Installation) -> dict[str, Any]:
    when = job.counted_by("a CronJob")
    labels = {
        "app.kubernetes.io/name": PROGRAM,
        "app.kubernetes.io/managed-by": PROGRAM,
        "aiprod-ops/work": job.wish.work,
    }
    notes = {"aiprod-ops/title": job.title, **({"aiprod-ops/note": when.note} if when.note else {})}
    namespace = {"namespace": where.namespace} if where.namespace else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": job.name, **namespace, "labels": labels, "annotations": notes},
        "spec": {
            "schedule": when.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            # Missed starts older than this are left out; with none at all a hundred of them stop the CronJob for good.
            "startingDeadlineSeconds": max(60, int(min(job.wish.every // 2, 3600))),
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": {"labels": labels},
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": int(job.deadline),
                    "template": {"metadata": {"labels": labels}, "spec": _pod(job, where)},
                },
            },
        },
    }


def _pod(job: Job, where: Installation) -> dict[str, Any]:
    """Nothing can be written but the state and a folder of its own; the state has to outlive the pod."""
    mounts = {"config": HOME, "state": where.state or STATE, "scratch": "/tmp"}  # noqa: S108 of the container
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 300,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
            "fsGroup": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": PROGRAM,
                "image": where.image,
                "command": [where.program],
                "args": list(where.command(job, *(("--warning-ok",) if job.wish.work == "check" else ()))[1:]),
                "env": [
                    {"name": "AIPROD_OPS_STATE", "value": where.state or STATE},
                    {"name": "HOME", "value": mounts["scratch"]},
                    *(
                        {"name": name, "valueFrom": {"secretKeyRef": {"name": where.secret, "key": name}}}
                        for name in job.place.variables
                    ),
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"memory": "1Gi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": name, "mountPath": path, **({"readOnly": True} if name == "config" else {})}
                    for name, path in mounts.items()
                ],
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": PROGRAM}},
            {"name": "state", "persistentVolumeClaim": {"claimName": PROGRAM}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
