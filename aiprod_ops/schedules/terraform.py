"""Values of the variables in deploy/terraform: the instance that is promised, and the jobs of the Cloud Run format."""

import json
from dataclasses import asdict
from typing import Any

from aiprod_ops.actions.instance_promise import Installed
from aiprod_ops.domain.instances import Setup
from aiprod_ops.domain.schedules import Job
from aiprod_ops.errors import UsageError
from aiprod_ops.schedules import cloud
from aiprod_ops.schedules.installation import MARK, Installation


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """`NAME.auto.tfvars.json`, which Terraform reads by itself. A key of slashes is what its JSON has for a comment."""
    if where.promised is None:
        raise UsageError("--format terraform is for one instance on Cloud SQL", hint="add --target NAME")
    setups, (server, path) = where.promised.setups, cloud.share(where)
    values: dict[str, Any] = {
        "//": MARK,
        "project": where.project,
        "location": where.location,
        "network": where.promised.network,
        "subnetwork": where.subnetwork or where.promised.subnetwork,
        "database": _database(where.promised),
        "replicas": {name: setup.region for name, setup in setups.replicas.items()},
        "dr_replica": setups.dr_replica,
        "redis": {"name": f"{setups.name}-cache", **asdict(where.promised.cache)},
        "image": where.image,
        "program": where.program,
        "config_secret": where.secret,
        "state_share": {"server": server, "path": path} if server else None,
        "jobs": {job.name: _job(job, where) for job in jobs},
    }
    return {f"{where.target}.auto.tfvars.json": json.dumps(values, indent=2) + "\n"}


def _database(promised: Installed) -> dict[str, Any]:
    setups, main = promised.setups, promised.setups.main
    day, hour = main.maintenance or (7, 4)
    return {
        "name": setups.name,
        **_common(main),
        "availability": main.availability,
        "region": main.region,
        "disk_gb": promised.disk_gb,
        "backup_start": promised.backup_start,
        "retained_backups": main.retained,
        "log_days": main.log_days,
        "maintenance": {"day": day, "hour": hour},
    }


def _common(setup: Setup) -> dict[str, Any]:
    """What primary and replicas have in common."""
    return {
        "version": setup.version,
        "edition": setup.edition,
        "tier": setup.tier,
        "disk_grows": setup.disk_grows,
        "insights": setup.insights,
        "deletion_protection": setup.protected,
        "public_address": setup.public_address,
        "ssl_mode": setup.ssl_mode,
        "flags": dict(setup.flags or {}),
    }


def _job(job: Job, where: Installation) -> dict[str, Any]:
    return {
        "title": job.title,
        "args": cloud.arguments(job, where),
        "schedule": job.counted_by("Cloud Scheduler").cron,
        "timeout_s": round(job.deadline),
        "secrets": {name: cloud.secret(name) for name in job.place.variables},
        "state": cloud.state_of(job, where),
        "restores": job.wish.work == "prove",
    }
