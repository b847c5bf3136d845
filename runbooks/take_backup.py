"""Take a full backup when the newest one is older than promised, and look at what was stored.

`aiprod-ops plan take-backup` says whether one is due, how long the last one took and how large it was. A backup is due
when the newest that could be restored began nearly as long ago as [backups] `every` in `service.toml` says, or when the
last test of it failed; one whose time has not come yet does not count. `--now` takes one in any case. It carries a
label that follows from the one before it (`after-20261127T031500Z`), so that whoever begins again, after a crash or on
the next day, finds what was begun: what is done is not done twice, and what was left half-done is cleared away first.
Nothing is begun while another backup is being taken, or where there is no room for it.

Afterwards it has to be listed as successful, be of this instance, and have about the size of the one before. What fails
that is bad, and is taken back: left in its place it would be the newest, and the next run would find nothing to do. The
same happens with one that was stopped half-way (Ctrl-C, a time-out). `rollback` of a finished run removes the backup,
too, but never one that a test has restored, and never one that others rest on: that is for `prune-backups` to judge.

Whether a backup restores is not known by then: `aiprod-ops prove test-backup` tells. Whether backups come as they
should is judged by `check backups`; this one says only whether there is something to do.

Daily backups are its own plans, applied by a standing approval: see *Configuration*.

Source: PostgreSQL manual, pg_basebackup, pg_verifybackup, "Base Backup Progress Reporting".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiprod_ops import api
from aiprod_ops.api import (
    Backup,
    BackupState,
    Bytes,
    Context,
    Estimate,
    Finding,
    Lab,
    Moving,
    NewBackup,
    Plan,
    Seconds,
)

#: A scheduled run may come a little earlier than on the day before: it would skip every other turn.
DUE = 0.9
#: A backup is this much smaller than the one before: strange, and bad.
SHRUNK, EMPTY = 0.5, 0.9


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    every: Seconds = api.promise("backups.every")  #: a newest one that is older than this is followed by another
    now: bool = False  #: take one however young the newest is


@dataclass(frozen=True)
class Facts:
    """When the newest backup began, and whether its last test failed; the rest is for people, and for the guard to read
    again."""

    instance: str
    stored: str
    newest: datetime | None
    is_disproved: bool
    ahead: tuple[str, ...]  #: those from the future, which tell nothing of what is due
    now: Moving[datetime]
    before: Moving[Backup | None]
    room: Moving[Bytes | None]
    needs: Moving[Bytes]


book = api.Runbook(
    params=Params,
    symptom="A backup is due, or wanted before something dangerous",
    risk="low",
    owner="database",
    run_every="1 d",
    actions=(api.take_backup, api.discard_backup),
    drill_with={"every": "0s"},
    on_backups=True,
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs to read the repository and the evidence; the database is asked who it is, and how large."""
    backups, instance, now = ctx.platform.backups, ctx.db.server().system_identifier, ctx.clock.now()
    listed = backups.listed()
    newest = api.newest_backup(listed, instance, now)
    size = newest.size if newest is not None else None
    return Facts(
        instance=instance,
        stored=ctx.target.stored,
        newest=newest.started if newest is not None else None,
        is_disproved=newest is not None and newest.id in api.disproved_backups(ctx),
        ahead=tuple(each.id for each in api.ahead(api.of_instance(listed, instance), now)),
        now=now,
        before=newest,
        room=backups.arrangement().room,
        needs=size or api.database_size(ctx.db),
    )


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """Whether one is due, and whether there is room for it."""
    if facts.newest is None:
        note = f"there is none yet{_beside(facts)}"
        yield Finding("a backup is due", 1.0, "", warn=1, note=note, id="due")
    else:
        note = f"the newest began {api.show(_age(facts, facts.newest), 's')} ago{_why(facts, params)}"
        yield Finding("a backup is due", float(_is_due(facts, params)), "", warn=1, note=note, id="due")
    if facts.room is not None:
        yield _room(facts.room, facts.needs)


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """One backup, where one is due."""
    if _is_due(facts, params):
        new, before = NewBackup.following(facts.newest, facts.instance, facts.stored, len(facts.ahead)), facts.before
        took = (before.ended - before.started).total_seconds() if before is not None and before.ended else None
        yield api.take_backup(
            new,
            undo=api.discard_backup(new),
            estimate=Estimate(Seconds(took), facts.needs) if took is not None else None,
            timeout=api.LONGEST,
        )


@book.omits
def omits(facts: Facts, params: Params) -> dict[str, str]:
    """When the next one is due."""
    if facts.newest is None or _is_due(facts, params):
        return {}
    return {"a backup": f"the newest began {api.show(_age(facts, facts.newest), 's')} ago{_why(facts, params)}"}


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """Read again: nobody else is taking one, and there is room."""
    backups = ctx.platform.backups
    running = [each for each in backups.listed() if each.state is BackupState.RUNNING]
    note = ", ".join(f"{each.id}, since {each.started:%Y-%m-%d %H:%M} UTC" for each in running)
    yield Finding("backups being taken already", float(len(running)), "", crit=1, note=note)
    room, instance = backups.arrangement().room, ctx.db.server().system_identifier
    newest = api.newest_backup(backups.listed(), instance, ctx.clock.now())
    if room is not None:
        yield _room(room, (newest and newest.size) or api.database_size(ctx.db))


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """What was stored: is it listed as successful, of this instance, and about as large as the one before?"""
    for action in plan.actions:
        new = api.take_backup.subject(action)
        listed = ctx.platform.backups.listed()
        good = [each for each in api.labelled(ctx, new) if each.state is BackupState.SUCCESSFUL]
        yield Finding("not listed as successful", float(not good), "", crit=1, note="" if good else new.label)
        others = [each.id for each in listed if each.label == new.label and each.instance not in ("", new.instance)]
        yield Finding("of another instance", float(len(others)), "", crit=1, note=", ".join(others))
        if good:
            rest = tuple(each for each in listed if each.label != new.label and each.kind == good[-1].kind)
            yield _shrunk(good[-1], api.newest_backup(rest, new.instance, ctx.clock.now()))


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """Nothing: a drill has `--every 0s`, and the newest is always too old."""
    yield


def _age(facts: Facts, newest: datetime) -> float:
    return (facts.now - newest).total_seconds()


def _is_due(facts: Facts, params: Params) -> bool:
    if facts.newest is None or facts.is_disproved or params.now:
        return True
    return _age(facts, facts.newest) >= _due_after(params)


def _due_after(params: Params) -> float:
    """A repository may tell the second of its beginning and no more: one that began just now did not begin before."""
    return max(1.0, DUE * params.every)


def _why(facts: Facts, params: Params) -> str:
    """Why one is due by more than the age, or when the next one is."""
    if facts.is_disproved:
        return f"; {facts.before.id if facts.before else 'it'} was tested, and the last test of it failed"
    if facts.newest is None or _is_due(facts, params):
        return _beside(facts)
    due = facts.newest + timedelta(seconds=_due_after(params))
    return f"; the next is due at {due:%Y-%m-%d %H:%M} UTC, `aiprod-ops plan take-backup --now` takes one at once"


def _beside(facts: Facts) -> str:
    if not facts.ahead:
        return ""
    return f"; {', '.join(facts.ahead[-3:])} does not count: its time has not come yet, `aiprod-ops check backups`"


def _room(room: Bytes, needs: Bytes) -> Finding:
    short = float(max(0, needs - room))
    note = f"{api.show(room, 'B')} are free, about {api.show(needs, 'B')} needed"
    return Finding("room short of a backup", short, "B", crit=1, note=note, id="room")


def _shrunk(new: Backup, before: Backup | None) -> Finding:
    """How much smaller it is than the one before; where either does not tell, that is said."""
    metric = "smaller than the one before"
    if new.size is None or before is None or not before.size:
        return Finding(metric, 0.0, "ratio", note=f"{api.shown_size(new)}; nothing to compare it with", id="size")
    part = max(0.0, 1 - new.size / before.size)
    note = f"{api.shown_size(new)}, {before.id}: {api.shown_size(before)}"
    return Finding(metric, part, "ratio", warn=SHRUNK, crit=EMPTY, note=note, id="size")
