"""The backups of one instance: backup runs, and how the instance is set up to take and keep them."""

from collections.abc import Callable

from aiprod_ops.adapters.cloudsql.admin import CloudSqlAdmin
from aiprod_ops.adapters.cloudsql.calls import Calls
from aiprod_ops.adapters.cloudsql.values import BackupRun
from aiprod_ops.domain.backups import Arrangement, Backup, State
from aiprod_ops.errors import Failed, Missing

#: Google's words, of those that are of use; DELETION_PENDING, DELETION_FAILED and DELETED are no backups any more.
_STATES = {
    "ENQUEUED": State.RUNNING,
    "OVERDUE": State.RUNNING,
    "RUNNING": State.RUNNING,
    "SUCCESSFUL": State.SUCCESSFUL,
    "FAILED": State.FAILED,
    "SKIPPED": State.FAILED,
}


class CloudSqlBackups:
    """`reading` refuses to change anything; `calls` is made when something is to be changed."""

    def __init__(self, instance: str, reading: CloudSqlAdmin, calls: Callable[[], Calls]) -> None:
        self._instance, self._reading, self._calls = instance, reading, calls

    def listed(self) -> tuple[Backup, ...]:
        found = (_backup(each) for each in reversed(self._reading.backups(self._instance)))
        return tuple(each for each in found if each is not None)

    def arrangement(self) -> Arrangement:
        instance = self._reading.instance(self._instance)
        told = instance.backups
        window = self._reading.recovery_window(self._instance) if told.point_in_time else None
        return Arrangement(
            keeps=told.retained if told.enabled else None,
            recovers_from=window.earliest if window else None,
            recovers_to=window.latest if window else None,
            is_protected=instance.deletion_protected,
            region=instance.region,
            locations=(told.location,) if told.location else (),
            key=instance.kms_key,
            automatic=told.enabled,
        )

    def reaches(self, segment: str) -> None:
        """Cloud SQL recovers to a time, and shows no WAL."""

    def take(self, label: str, report: Callable[[str], None] = lambda _: None) -> str:
        calls = self._calls()
        mine = [each for each in calls.admin.backups(self._instance) if each.description == label]
        if good := [each for each in mine if each.is_usable]:
            return good[0].id
        if any(_STATES.get(each.status) is State.RUNNING for each in mine):
            report(f"the backup {label} is being taken already: waiting for it")
            calls.wait_for_others(self._instance)
        else:
            begin = lambda: calls.admin.take_backup(self._instance, description=label)  # noqa: E731
            calls.done(begin, "BACKUP_VOLUME", self._instance, report)
        good = [e for e in calls.admin.backups(self._instance) if e.description == label and e.is_usable]
        if not good:
            raise Failed(f"the backup {label} of {self._instance} did not end well", hint="aiprod-ops check backups")
        return good[0].id

    def check_writable(self) -> None:
        """Google asks for the right itself."""

    def in_use(self, backup: str) -> str:  # noqa: ARG002
        """Google does not tell who restores it."""
        return ""

    def remove(self, backup: str) -> None:
        calls = self._calls()
        try:
            calls.admin.backup(self._instance, backup)
        except Missing:
            return
        calls.done(
            lambda: calls.admin.delete_backup(self._instance, backup), "DELETE_VOLUME", self._instance, lambda _: None
        )


def _backup(run: BackupRun) -> Backup | None:
    state, started = _STATES.get(run.status), run.started or run.enqueued
    if state is None or started is None:
        return None
    return Backup(
        run.id,
        state,
        started,
        run.ended,
        size=run.size,
        location=run.location,
        key=run.kms_key,
        label=run.description,
        said=f"{run.problem.code}: {run.problem.message}" if run.problem else "",
        is_automatic=run.type == "AUTOMATED",
    )
