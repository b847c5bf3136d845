"""backupRuns, and what is made of them: restoreBackup and clone."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from aiprod_ops.adapters.local.archive import Archive
from aiprod_ops.lab.cloudsql import documents
from aiprod_ops.lab.cloudsql.context import Context, Handler, Json, Request, now, page
from aiprod_ops.lab.cloudsql.ledger import Backup, Instance, replicas
from aiprod_ops.lab.cloudsql.provisioning import new, spoil
from aiprod_ops.lab.cloudsql.refusals import absent, invalid, not_valid_here
from aiprod_ops.lab.cloudsql.servers import size

#: Recover from a backup's own WAL to its end, and no further.
AT_ONCE = {"recovery_target": "immediate"}


class Backups:
    """The calls on backups, and those that make instances from them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "sql.backupRuns.list": self._list,
            "sql.backupRuns.get": self._get,
            "sql.backupRuns.insert": self._insert,
            "sql.backupRuns.delete": self._delete,
            "sql.instances.restoreBackup": self._restore,
            "sql.instances.clone": self._clone,
        }

    def _list(self, request: Request) -> Json:
        state, name = self._context.ledger.now, request.path["instance"]
        wanted = None if name == "-" else self._context.instance(name).name
        found = sorted(
            (each for each in state.backups if wanted in (None, each.instance)),
            key=lambda each: (each.enqueued, each.id),
            reverse=True,
        )
        items = [documents.backup(each, state, self._context.url) for each in found]
        return page("sql#backupRunsList", items, request.query)

    def _get(self, request: Request) -> Json:
        return documents.backup(self._backup(request), self._context.ledger.now, self._context.url)

    def _backup(self, request: Request) -> Backup:
        instance = self._context.instance(request.path["instance"])
        return self.find(instance.name, request.path["id"])

    def find(self, instance: str, backup_id: str) -> Backup:
        """A backup of an instance. Raises Refusal (404)."""
        for each in self._context.ledger.now.backups:
            if (each.instance, each.id) == (instance, backup_id):
                return each
        raise absent("Cloud SQL backup run", "backupRunDoesNotExist")

    def _insert(self, request: Request) -> Json:
        with self._context.ledger.alone():
            instance = self._context.instance(request.path["instance"])
            if instance.primary:
                raise not_valid_here("A replica is not backed up.")
            self._context.operations.check(instance.name)
            taken = {each.id for each in self._context.ledger.now.backups}
            made = time.time_ns() // 1_000_000
            while str(made) in taken:
                made += 1
            backup = Backup(
                id=str(made),
                instance=instance.name,
                folder=str(self._context.servers.folder / "backups" / instance.name / str(made)),
                version=instance.version,
                lineage=instance.lineage,
                password=instance.password,
                description=request.body.get("description") or "",
                location=request.body.get("location") or instance.settings["backupConfiguration"]["location"],
                enqueued=now(),
                kms_key=instance.kms_key,
            )
            self._context.ledger.put(backup)
            operation = self._context.operations.begin(
                "BACKUP_VOLUME",
                instance.name,
                (instance.name,),
                lambda: self._take(backup, instance),
                failed=lambda: self._give_up(backup),
                backup_id=backup.id,
            )
        return self._context.answer(operation)

    def _take(self, backup: Backup, instance: Instance) -> None:
        backup = replace(backup, status="RUNNING", started=now())
        self._context.ledger.put(backup)
        data = Path(backup.folder, "data")
        self._context.servers.copy(instance, data)
        self._context.ledger.put(replace(backup, status="SUCCESSFUL", ended=now(), size=size(data)))

    def _give_up(self, backup: Backup) -> None:
        self._context.servers.remove_backup(backup)
        self._context.ledger.put(replace(backup, status="FAILED", ended=now(), error="The backup failed."))

    def _delete(self, request: Request) -> Json:
        with self._context.ledger.alone():
            backup = self._backup(request)
            self._context.operations.check(backup.instance)
            self._context.ledger.put(replace(backup, status="DELETION_PENDING"))
            operation = self._context.operations.begin(
                "DELETE_BACKUP",
                backup.instance,
                (backup.instance,),
                lambda: self._remove(backup),
                failed=lambda: self._context.ledger.put(replace(backup, status="DELETION_FAILED")),
                backup_id=backup.id,
            )
        return self._context.answer(operation)

    def _remove(self, backup: Backup) -> None:
        self._context.servers.remove_backup(backup)
        self._context.ledger.forget_backup(backup)

    def _restore(self, request: Request) -> Json:
        given = request.body.get("restoreBackupContext") or {}
        if not given.get("backupRunId"):
            raise invalid("restoreBackupContext.backupRunId is missing; backups by name are not emulated.")
        with self._context.ledger.alone():
            instance = self._context.instance(request.path["instance"])
            source = self._context.instance(given.get("instanceId") or instance.name)
            backup = self.find(source.name, given["backupRunId"])
            if backup.status != "SUCCESSFUL":
                raise not_valid_here(f"The backup is {backup.status}.")
            if instance.primary:
                raise not_valid_here("A replica cannot be restored.")
            if replicas(self._context.ledger.now, instance.name):
                raise not_valid_here("It has replicas: delete them before it is restored.")
            self._context.operations.check(instance.name)
            self._context.change(instance.name, state="MAINTENANCE")
            operation = self._context.operations.begin(
                "RESTORE_VOLUME",
                instance.name,
                (instance.name,),
                lambda: self._overwrite(instance, backup),
                failed=lambda: self._failed(instance),
                spoil=lambda: spoil(self._context, instance),
                backup_id=backup.id,
            )
        return self._context.answer(operation)

    def _overwrite(self, instance: Instance, backup: Backup) -> None:
        """The logs of what was there are of no use any more; its backups stay."""
        renewed = self._context.servers.renewed(instance)
        changed = self._context.change(instance.name, password=backup.password, **renewed)
        self._context.servers.take_in(changed, Path(backup.folder, "data"))
        self._context.servers.recover(changed, AT_ONCE)
        self._ready(changed)

    def _clone(self, request: Request) -> Json:
        given = request.body.get("cloneContext") or {}
        with self._context.ledger.alone():
            source = self._context.instance(request.path["instance"])
            if source.primary:
                raise not_valid_here("A replica cannot be cloned.")
            at = datetime.fromisoformat(given["pointInTime"]).astimezone(UTC) if given.get("pointInTime") else None
            backup = None if at is None else self._before(source, at)
            self._context.operations.check(source.name)
            instance = new(
                self._context,
                given.get("destinationInstanceName", ""),
                version=source.version,
                region=source.region,
                made={**source.settings, "settingsVersion": "1"},
                password=source.password if backup is None else backup.password,
                kms_key=source.kms_key,
            )
            operation = self._context.operations.begin(
                "CLONE",
                instance.name,
                (source.name, instance.name),
                lambda: self._copy(source, instance, backup, at),
                failed=lambda: self._failed(instance),
                spoil=lambda: spoil(self._context, instance),
            )
        return self._context.answer(operation)

    def _before(self, source: Instance, at: datetime) -> Backup:
        """The newest backup that a point in time can be reached from. Raises Refusal."""
        if not source.settings["backupConfiguration"].get("pointInTimeRecoveryEnabled"):
            raise not_valid_here("Point-in-time recovery is not enabled.")
        if at > datetime.now(UTC):
            raise invalid("pointInTime is in the future.")
        usable = [
            each
            for each in self._context.ledger.now.backups
            if (each.instance, each.lineage, each.status) == (source.name, source.lineage, "SUCCESSFUL")
            and datetime.fromisoformat(each.ended) <= at
        ]
        if not usable:
            raise invalid("pointInTime is before the earliest recovery time.")
        return max(usable, key=lambda each: each.ended)

    def _copy(self, source: Instance, instance: Instance, backup: Backup | None, at: datetime | None) -> None:
        servers = self._context.servers
        if backup is None or at is None:
            servers.receive(instance, source)
            servers.recover(instance, AT_ONCE)
        else:
            servers.archive_all(source)
            servers.take_in(instance, Path(backup.folder, "data"))
            target = {"restore_command": f'cp "{source.archive}/%f" "%p"'}
            archive = Archive(Path(source.archive), servers.programs)
            if archive.goes_past(at, archive.segments()):  # else the state at that moment is the end of the WAL
                target["recovery_target_time"] = at.isoformat(" ")
            servers.recover(instance, target)
        self._ready(instance)

    def _ready(self, instance: Instance) -> None:
        self._context.change(instance.name, state="RUNNABLE")
        self._context.servers.write_passwords(self._context.ledger.now)

    def _failed(self, instance: Instance) -> None:
        self._context.change(instance.name, state="FAILED")
