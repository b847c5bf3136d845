"""Taking a backup, taking it back, removing one that nothing asks for: kinds of action, and what they rest on."""

from dataclasses import dataclass
from datetime import UTC, datetime

from aiprod_ops.domain.backups import Backup, State, ahead, of_instance, whole
from aiprod_ops.engine.last_proofs import maker, restored_backups
from aiprod_ops.engine.runbook import Amount, Context, Kind
from aiprod_ops.errors import Held, Refused
from aiprod_ops.ports import Database
from aiprod_ops.units import Bytes, show

_PROGRESS = """
select phase, backup_streamed::float8 as done, coalesce(backup_total, 0)::float8 as total
from pg_stat_progress_basebackup order by pid desc limit 1 /* aiprod-ops: progress of a base backup */
"""
_SIZE = "select sum(pg_database_size(oid))::bigint as size from pg_database where datallowconn /* aiprod-ops: size */"


@dataclass(frozen=True, slots=True)
class NewBackup:
    """A backup by the label that it is taken with, of an instance (its system identifier), and where it is stored."""

    label: str
    instance: str
    stored: str

    @classmethod
    def following(cls, newest: datetime | None, instance: str, stored: str, beside: int = 0) -> "NewBackup":
        """The one after the newest: as long as that one is the newest the label is the same. So whoever begins again,
        after a crash or on another day, goes on with what was begun. `beside` so many that do not count, because they
        are from the future: one of them may have the label that would be next."""
        label = f"after-{newest.astimezone(UTC):%Y%m%dT%H%M%SZ}" if newest else f"first-of-{instance}"
        return cls(f"{label}-{beside}" if beside else label, instance, stored)

    def __str__(self) -> str:
        return self.label


take_backup = Kind("take-backup", NewBackup)
discard_backup = Kind("discard-backup", NewBackup)


def labelled(ctx: Context, new: NewBackup) -> list[Backup]:
    """Backups of this instance that carry the label, whatever became of them."""
    return [each for each in of_instance(ctx.platform.backups.listed(), new.instance) if each.label == new.label]


@take_backup.needs
def _refuse_foreign(ctx: Context, new: NewBackup) -> None:  # noqa: ARG001
    """Raises PermissionMissing where what we write would be closed to the repository's owner."""
    ctx.platform.backups.check_writable()


@take_backup.does
def _take(ctx: Context, new: NewBackup) -> None:
    ctx.platform.backups.take(new.label, ctx.report)


@take_backup.is_done
def _is_taken(ctx: Context, new: NewBackup) -> bool | None:
    """None while it is being taken: it may still become good."""
    states = {each.state for each in labelled(ctx, new)}
    if State.SUCCESSFUL in states:
        return True
    return None if State.RUNNING in states else False


@take_backup.shows
def _show_taking(new: NewBackup) -> str:
    return f"take a full backup into {new.stored}, labelled {new.label}, and see that it is listed as successful"


@take_backup.progress
def _amount(ctx: Context, new: NewBackup) -> Amount | None:  # noqa: ARG001
    """Where PostgreSQL itself streams it; a platform tells nothing."""
    rows = ctx.db.query(_PROGRESS)
    return Amount(rows[0]["phase"], rows[0]["done"], rows[0]["total"]) if rows else None


def _ours(ctx: Context, new: NewBackup) -> list[Backup]:
    """Those that carry the label, unless another run made them: whoever begins again takes the same label."""
    mine = ("", ctx.run)
    return [each for each in labelled(ctx, new) if maker(ctx, take_backup.name, new.label, each.started) in mine]


@discard_backup.needs
def _refuse_needed(ctx: Context, new: NewBackup) -> None:
    """Raises Refused for one that is still being taken, that others rest on, or that a test has restored, and Held as
    long as a test restores it."""
    known = set(restored_backups(ctx))
    listed = ctx.platform.backups.listed()
    for each in _ours(ctx, new):
        if each.state is State.RUNNING:
            raise Refused(f"{each.id} is still being taken", hint="wait for its end")
        if each.id in known:
            raise Refused(f"{each.id} is known to restore: it is not thrown away", hint="aiprod-ops plan prune-backups")
        if on_it := [other.id for other in listed if each.id in other.rests_on]:
            raise Refused(f"{each.id} is what {', '.join(on_it)} rests on", hint="aiprod-ops plan prune-backups")
        _refuse_used(ctx, each.id)


def _refuse_used(ctx: Context, backup: str) -> None:
    if why := ctx.platform.backups.in_use(backup):
        raise Held(why)


@discard_backup.does
def _discard(ctx: Context, new: NewBackup) -> None:
    _refuse_needed(ctx, new)
    for each in _ours(ctx, new):
        ctx.platform.backups.remove(each.id)


@discard_backup.is_done
def _is_discarded(ctx: Context, new: NewBackup) -> bool:
    return not _ours(ctx, new)


@discard_backup.shows
def _show_discarding(new: NewBackup) -> str:
    return (
        f"remove the backup labelled {new.label}, unless a test has ever restored it or others rest on it; and of an "
        "archive that is ours the WAL that no other backup needs"
    )


@dataclass(frozen=True, slots=True)
class OldBackup:
    """A stored backup that is to go, as it was when that was decided: another one of the same id is not meant."""

    id: str
    state: State
    started: datetime
    kind: str
    label: str
    instance: str
    rests_on: tuple[str, ...]

    @classmethod
    def of(cls, backup: Backup) -> "OldBackup":
        return cls(
            backup.id, backup.state, backup.started, backup.kind, backup.label, backup.instance, backup.rests_on
        )  # fmt: skip

    def __str__(self) -> str:
        return self.id


remove_backup = Kind("remove-backup", OldBackup)


@remove_backup.needs
def _refuse_read(ctx: Context, old: OldBackup) -> None:
    """Raises Held as long as a test restores it."""
    _refuse_used(ctx, old.id)


@remove_backup.does
def _remove(ctx: Context, old: OldBackup) -> None:
    ctx.platform.backups.remove(old.id)


@remove_backup.is_done
def _is_removed(ctx: Context, old: OldBackup) -> bool:
    return all(each.id != old.id for each in ctx.platform.backups.listed())


@remove_backup.shows
def _show_removing(old: OldBackup) -> str:
    rests = f", which rests on {', '.join(old.rests_on)}" if old.rests_on else ""
    what = f"remove the {old.state} {old.kind} backup of {old.started:%Y-%m-%d %H:%M} UTC{rests}"
    return f"{what}; and of an archive that is ours the WAL that no other backup needs"


def newest_backup(backups: tuple[Backup, ...], instance: str, now: datetime) -> Backup | None:
    """The newest of this instance that could be restored, as far as the list tells, and whose time has come."""
    early = ahead(backups, now)
    return next((each for each in reversed(whole(of_instance(backups, instance))) if each not in early), None)


def database_size(database: Database) -> Bytes:
    """All databases of the server: about what a plain backup takes."""
    return Bytes(int(database.query(_SIZE)[0]["size"] or 0))


def shown_size(backup: Backup) -> str:
    """Its size for people."""
    return show(backup.size, "B") if backup.size is not None else "of unknown size"
