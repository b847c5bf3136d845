"""Are there the backups that were promised, and will there be?

This reads the list of stored backups and how their repository is set up, and holds both against [backups] in
`service.toml`: how old the newest is, gaps in the schedule, failures since the last success, increments whose base is
gone, backups of another instance; how near to now one could recover, how far back, and whether an archive that was
named leads on from the newest backup; whether the platform throws backups away too early (Cloud SQL keeps 7 or 15
unless `retainedBackups` is set); and, where it is promised, protection against deletion, a key of our own, a copy in
another region. What a platform does not tell is UNKNOWN.

Times are those that the backups and their WAL tell themselves, as far as they do: copying a repository renews the times
of its files. A time that has not come yet is of a clock that ran ahead. Such a backup is CRITICAL and does not count as
fresh, nor does such WAL.

A database to which nobody writes archives nothing, and its archive grows old without lacking anything. So where the
last whole WAL segment is kept and `archive_timeout` is set, what could be lost is no older than that; without it the
age of the archive is what counts.

All of that is judged here and nowhere else, so that one fault raises one alert. The runbooks that act say only whether
there is something to do: `take-backup` when one is due, `prune-backups` when one may go. `test-backup` says whether the
newest was restored, which no list tells; that its last test failed is a warning here, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from aiprod_ops import api
from aiprod_ops.api import Arrangement, Backup, Context, Finding, Moving, Seconds


@dataclass(frozen=True)
class Facts:
    """What the repository says, and what is promised."""

    now: Moving[datetime]
    backups: Moving[tuple[Backup, ...]]
    arrangement: Moving[Arrangement]
    promise: api.BackupPromise
    instance: str
    answers: Moving[bool] = True  #: the target itself
    gone: Moving[str] = ""  #: which segment it has archived that is not there
    unkept: Moving[Seconds | None] = None  #: so old at most is what it has written and that is not kept
    refusal: Moving[tuple[int, str] | None] = None  #: the evidence by which the last test of the newest one failed
    unread: Moving[str] = ""  #: why the evidence cannot be read


book = api.Runbook(
    symptom="Nobody knows whether there are the backups that were promised",
    risk="low",
    owner="database",
    check_every="1 h",
    alerts=("BackupsNotAsPromised",),
    on_backups=True,
    exports=("age of the newest backup", "age of the newest recoverable moment"),
)


@book.facts
def facts(ctx: Context, params: api.NoParams) -> Facts:  # noqa: ARG001
    """Needs to read the repository; the database is asked who it is, and need not answer: when it is lost, the list of
    its backups is what one wants to see."""
    backups = ctx.platform.backups
    try:
        instance, answers, gone = ctx.db.server().system_identifier, True, api.not_kept(ctx)
        unkept = api.unkept_since(ctx.db, backups)
    except api.Unreachable:
        last = api.said_last(ctx, "test-backup")
        instance, answers, gone = last.target.get("system_identifier", "") if last else "", False, ""
        unkept = None
    now, listed, refusal, unread = ctx.clock.now(), backups.listed(), None, ""
    if newest := api.newest_backup(listed, instance, now):
        try:
            refusal = api.last_refusal(ctx, newest.id)
        except OSError as error:
            unread = f"{error.filename or 'the evidence'}: {error.strerror}"
    return Facts(
        now=now,
        backups=listed,
        arrangement=backups.arrangement(),
        promise=api.backup_promise(ctx.promises),
        instance=instance,
        answers=answers,
        gone=gone,
        unkept=unkept,
        refusal=refusal,
        unread=unread,
    )


@book.judge
def judge(facts: Facts, params: api.NoParams) -> Iterator[Finding]:  # noqa: ARG001
    """The list, then the arrangement."""
    if not facts.answers:
        note = "no contact; its backups are judged all the same"
        yield Finding("the target does not answer", 1.0, "", warn=1, note=note, id="target")
    if facts.gone:
        yield Finding("WAL that is not where it was archived", 1.0, "", crit=1, note=facts.gone, id="gone")
    yield from api.audit(facts.backups, facts.arrangement, facts.promise, facts.instance, facts.now, facts.unkept)
    if facts.refusal or facts.unread:
        yield _tested(facts)


def _tested(facts: Facts) -> Finding:
    """A warning, beside the alert of `test-backup` itself: by the list alone all is well."""
    metric = "the last test of the newest backup failed"
    if facts.refusal is None:
        return Finding(metric, None, note=f"the evidence cannot be read: {facts.unread}", id="disproved")
    n, why = facts.refusal
    told = (f"evidence {n}", why, "take another: `aiprod-ops plan take-backup --now`")
    note = "; ".join(part for part in told if part)
    return Finding(metric, 1.0, "", warn=1, note=note, id="disproved")
