"""instances: get, list, insert, patch, delete, restart, and the window of recovery."""

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aiprod_ops.errors import Failed
from aiprod_ops.lab.cloudsql import documents, settings
from aiprod_ops.lab.cloudsql.context import Context, Handler, Json, Request, fits, now, page
from aiprod_ops.lab.cloudsql.ledger import Instance, replicas
from aiprod_ops.lab.cloudsql.provisioning import new, restart, spoil
from aiprod_ops.lab.cloudsql.refusals import invalid, is_protected, no_instance, not_valid_here, stale
from aiprod_ops.units import Seconds

REGION = "us-central1"


class Instances:
    """The calls on instances that are not about copies or roles."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "sql.instances.get": self._get,
            "sql.instances.list": self._list,
            "sql.instances.insert": self._insert,
            "sql.instances.patch": self._patch,
            "sql.instances.delete": self._delete,
            "sql.instances.restart": self._restart,
            "sql.projects.instances.getLatestRecoveryTime": self._recovery_time,
        }

    def _get(self, request: Request) -> Json:
        state = self._context.ledger.now
        found = state.instances.get(self._context.bare(request.path["instance"]))
        if found is None:
            raise no_instance()
        return documents.instance(found, state, self._context.url)

    def _list(self, request: Request) -> Json:
        state, url = self._context.ledger.now, self._context.url
        found = [documents.instance(state.instances[name], state, url) for name in sorted(state.instances)]
        chosen = [each for each in found if fits(each, request.query.get("filter", ""))]
        return page("sql#instancesList", chosen, request.query)

    def _insert(self, request: Request) -> Json:
        body = settings.without_nulls(request.body)
        with self._context.ledger.alone():
            if "masterInstanceName" in body:
                return self._insert_replica(body)
            region = body.get("region", REGION)
            zone = body.get("gceZone") or f"{region}-a"
            made = settings.complete(body.get("settings", {}), region, zone)
            instance = new(
                self._context,
                body.get("name", ""),
                version=body.get("databaseVersion", ""),
                region=region,
                made=made,
                password=body.get("rootPassword") or secrets.token_urlsafe(24),
                kms_key=body.get("diskEncryptionConfiguration", {}).get("kmsKeyName", ""),
            )
            operation = self._context.operations.begin(
                "CREATE",
                instance.name,
                (instance.name,),
                lambda: self._create(instance),
                failed=lambda: self._failed(instance),
                spoil=lambda: spoil(self._context, instance),
            )
        return self._context.answer(operation)

    def _create(self, instance: Instance) -> None:
        self._context.servers.create(instance)
        self._ready(instance)

    def _insert_replica(self, body: Json) -> Json:
        primary = self._context.instance(body["masterInstanceName"])
        if primary.primary:
            raise not_valid_here("A replica of a replica is not emulated.")
        if not primary.settings["backupConfiguration"].get("pointInTimeRecoveryEnabled"):
            raise invalid("the primary has to have automated backups and point-in-time recovery enabled.")
        self._context.operations.check(primary.name)
        region = body.get("region") or primary.region
        inherited = ("tier", "edition", "databaseFlags")
        given = {name: primary.settings[name] for name in inherited if name in primary.settings}
        given |= body.get("settings", {})
        instance = new(
            self._context,
            body.get("name", ""),
            version=body.get("databaseVersion", primary.version),
            region=region,
            made=settings.complete(given, region, body.get("gceZone") or f"{region}-b"),
            password=primary.password,
            kms_key=body.get("diskEncryptionConfiguration", {}).get("kmsKeyName", ""),
            primary=primary.name,
        )
        operation = self._context.operations.begin(
            "CREATE_REPLICA",
            body["masterInstanceName"],  # Google answers the primary here, as it was written
            (primary.name, instance.name),
            lambda: self._create_replica(instance, primary),
            failed=lambda: self._failed(instance),
        )
        return self._context.answer(operation)

    def _create_replica(self, instance: Instance, primary: Instance) -> None:
        self._context.replication.create(instance, primary)
        self._ready(instance)

    def _ready(self, instance: Instance) -> None:
        self._context.change(instance.name, state="RUNNABLE")
        self._context.servers.write_passwords(self._context.ledger.now)

    def _failed(self, instance: Instance) -> None:
        self._context.change(instance.name, state="FAILED")

    def _patch(self, request: Request) -> Json:
        with self._context.ledger.alone():
            instance = self._context.instance(request.path["instance"])
            patch: Json = request.body.get("settings") or {}
            wanted = patch.get("settingsVersion")
            if wanted is not None and int(wanted) != instance.settings_version:
                raise stale()
            self._context.operations.check(instance.name)
            fixed = {"name": instance.name, "region": instance.region, "databaseVersion": instance.version}
            for field, is_now in fixed.items():
                if request.body.get(field) not in (None, is_now):
                    raise invalid(f"{field} cannot be changed.")
            made = settings.patched(instance.settings, patch, is_replica=bool(instance.primary))
            is_restart = settings.flags(made) != settings.flags(instance.settings)
            if is_restart and instance.adopted:
                raise not_valid_here("The flags of an adopted server belong to its lab.")
            is_restart = is_restart or settings.is_stopped(made) != settings.is_stopped(instance.settings)
            fields: dict[str, Any] = {"settings": made, "dr_replica": self._dr_replica(instance, request.body)}
            fields["zone"], fields["secondary_zone"] = settings.zones(instance.region, instance.zone, made)
            before = {name: getattr(instance, name) for name in fields}
            changed = self._context.change(instance.name, **fields)
            operation = self._context.operations.begin(
                "UPDATE",
                instance.name,
                (instance.name,),
                lambda: self._reconfigure(changed) if is_restart else None,
                failed=lambda: self._take_back(changed, before, is_restart=is_restart),
            )
        return self._context.answer(operation)

    def _dr_replica(self, instance: Instance, body: Json) -> str:
        """The designated replica after a patch. Google takes one of another region, of an Enterprise Plus instance."""
        cluster: Json = body.get("replicationCluster") or {}
        if "failoverDrReplicaName" not in cluster:
            return instance.dr_replica
        name = self._context.bare(cluster["failoverDrReplicaName"] or "")
        if not name:
            return ""
        replica = self._context.instance(name)
        if replica.primary != instance.name or replica.region == instance.region:
            raise invalid(f"{name} is not a replica of {instance.name} in another region.")
        if {instance.settings["edition"], replica.settings["edition"]} != {"ENTERPRISE_PLUS"}:
            raise invalid("a DR replica needs the edition ENTERPRISE_PLUS.")
        return name

    def _reconfigure(self, instance: Instance) -> None:
        """Restart a server, or stop it where its owner wants that. One that was stopped while another took its place
        comes back as that one's replica, never as it was."""
        upstream = self._context.ledger.now.instances.get(instance.primary)
        servers = self._context.servers
        servers.of(instance).stop("fast")
        if settings.is_stopped(instance.settings):
            return
        if upstream is not None and not servers.follows(instance):
            self._context.replication.rejoin(instance, upstream, is_clean=False)
            return
        if not instance.adopted:
            servers.configure(instance, upstream)
        servers.of(instance).start(timeout=Seconds(600))

    def _take_back(self, instance: Instance, before: dict[str, Any], *, is_restart: bool) -> None:
        restored = self._context.change(instance.name, **before)
        if is_restart:
            self._reconfigure(restored)

    def _restart(self, request: Request) -> Json:
        with self._context.ledger.alone():
            instance = self._context.instance(request.path["instance"])
            self._context.operations.check(instance.name)
            operation = self._context.operations.begin(
                "RESTART", instance.name, (instance.name,), lambda: restart(self._context, instance, "fast")
            )
        return self._context.answer(operation)

    def _delete(self, request: Request) -> Json:
        with self._context.ledger.alone():
            instance = self._context.ledger.now.instances.get(self._context.bare(request.path["instance"]))
            if instance is None:
                raise no_instance()
            if instance.settings.get("deletionProtectionEnabled"):
                raise is_protected()
            if replicas(self._context.ledger.now, instance.name):
                raise not_valid_here("It has replicas: delete them first.")
            touches = tuple(filter(None, (instance.name, instance.primary)))
            self._context.operations.check(*touches)
            self._context.change(instance.name, state="PENDING_DELETE")
            operation = self._context.operations.begin(
                "DELETE",
                instance.name,
                touches,
                lambda: self._remove(instance),
                failed=lambda: self._failed(instance),
            )
        return self._context.answer(operation)

    def _remove(self, instance: Instance) -> None:
        context = self._context
        context.servers.remove(instance)
        if primary := context.ledger.now.instances.get(instance.primary):
            context.replication.detach(instance, primary)
            if primary.dr_replica == instance.name:
                context.change(primary.name, dr_replica="")
        context.ledger.forget(instance.name)
        context.servers.remove_backups(instance.name)
        context.servers.write_passwords(context.ledger.now)

    def _recovery_time(self, request: Request) -> Json:
        """From the oldest backup within the logs' retention to now: a clone archives what is not archived yet."""
        instance = self._context.instance(request.path["instance"])
        answer: Json = {"kind": "sql#getLatestRecoveryTime"}
        backup = instance.settings["backupConfiguration"]
        usable = [
            each.ended
            for each in self._context.ledger.now.backups
            if (each.instance, each.lineage, each.status) == (instance.name, instance.lineage, "SUCCESSFUL")
        ]
        if not backup.get("pointInTimeRecoveryEnabled") or not usable:
            raise not_valid_here("Point-in-time recovery is not enabled, or there is no backup to begin from.")
        latest = now() if self._context.servers.of(instance).is_running() else _last_archived(instance)
        kept = timedelta(days=int(backup.get("transactionLogRetentionDays", 7)))
        oldest = documents.timestamp(datetime.fromisoformat(latest) - kept)
        return {**answer, "earliestRecoveryTime": max(min(usable), oldest), "latestRecoveryTime": latest}


def _last_archived(instance: Instance) -> str:
    times = [path.stat().st_mtime for path in Path(instance.archive).glob("*")]
    if not times:
        raise Failed(f"nothing of {instance.name} was archived")
    return documents.timestamp(datetime.fromtimestamp(max(times)).astimezone())
