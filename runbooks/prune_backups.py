"""Remove the stored backups that nothing asks for any more.

The last backup of each day, of each ISO week and of each month stays for as long as [backups] in `service.toml` says;
however old, `least` of the newest stay, and so does the newest that a test has restored. A failed one goes when a
success has followed it. What a kept one rests on stays, and increments go before their base.

A removed backup does not come back, so this is severe: it asks for the target's name, it is never scheduled, and one
run removes no more than `--most`. Right before each removal the list is read again, and nothing is removed

- that the retention asks for by now, or that is not the backup any more that the plan names,
- as long as none of those stored is known to restore: what was never restored is a hope, and hopes are not thrown away
  against each other. The sealed evidence of `test-backup` tells which ones are known,
- as long as a test restores one of them (exit 11): wait for its end. pgBackRest lets nobody hold a backup; a test of
  one that is removed meanwhile says so, and tells nothing of it.

Stopped anywhere, what is left meets the retention: a plan is a prefix of what may go, and every prefix of it is safe.
A platform that throws backups away by itself (Cloud SQL, pgBackRest's `expire`) needs no pruning; `check backups` says
whether it keeps enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from aiprod_ops import api
from aiprod_ops.api import Backup, Context, Estimate, Finding, Moving, OldBackup, Plan, Retention, Seconds

_DAY = 86_400


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    daily: Seconds = api.promise("backups.daily")  #: so long the last of each day stays
    weekly: Seconds = api.promise("backups.weekly")  #: so long the last of each week stays
    monthly: Seconds = api.promise("backups.monthly")  #: so long the last of each month stays
    least: int = api.promise("backups.least")  #: however old, so many of the newest stay
    most: int = 30  #: so many are removed by one run; the rest by the next

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ValueError(f"--least is {self.least}: the newest one stays, always")
        for name in ("daily", "weekly", "monthly"):
            if 0 < getattr(self, name) < _DAY:
                told = api.show(getattr(self, name), "s")
                raise ValueError(f"--{name} is {told}, expected at least a day, as in --{name} 30d, or 0 for none")

    @property
    def retention(self) -> Retention:
        return Retention(self.daily, self.weekly, self.monthly, self.least)


@dataclass(frozen=True)
class Facts:
    """Backups of this instance, and those that a test has restored."""

    backups: tuple[Backup, ...]
    verified: tuple[str, ...]
    now: Moving[datetime]


book = api.Runbook(
    params=Params,
    symptom="The room for backups runs out; there are more than anybody asks for",
    risk="severe",
    owner="database",
    check_every="7 d",
    alerts=("BackupsToPrune",),
    actions=(api.remove_backup,),
    on_evidence=True,
    on_backups=True,
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs to read the repository and the evidence."""
    ours = api.of_instance(ctx.platform.backups.listed(), ctx.db.server().system_identifier)
    there = {each.id for each in ours}
    verified = tuple(each for each in api.verified_backups(ctx) if each in there)
    return Facts(tuple(ours), verified, ctx.clock.now())


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """How many may go, and how much room that gives."""
    going = _going(facts, params)
    size = sum(each.size or 0 for each in going)
    note = f"of {len(facts.backups)}; that gives {api.show(size, 'B')}" if going else f"of {len(facts.backups)}"
    yield Finding("backups that nothing asks for", float(len(going)), "", warn=1, note=note, id="going")
    if going:
        yield _untested(facts)


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """Increments before their base, else the oldest first."""
    for backup in _going(facts, params)[: params.most]:
        yield api.remove_backup(
            OldBackup.of(backup),
            irreversible="a removed backup does not come back",
            estimate=Estimate(Seconds(1), backup.size or api.Bytes(0)),
        )


@book.omits
def omits(facts: Facts, params: Params) -> dict[str, str]:
    """Why what stays does."""
    stay = api.staying_backups(facts.backups, params.retention, facts.now, facts.verified)
    return {ids[-1] + (f" and {len(ids) - 1} before it" if len(ids) > 1 else ""): why for why, ids in stay.items()}


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again right before each one: what is left of the plan may still go."""
    now = facts(ctx, params)
    there = {each.id: each for each in now.backups}
    left = [old for old in map(api.remove_backup.subject, plan.actions) if old.id in there]
    may = {each.id for each in _going(now, params)}
    asked = [old.id for old in left if old.id not in may]
    yield Finding("planned backups that are asked for", float(len(asked)), "", crit=1, note=", ".join(asked))
    other = [old.id for old in left if OldBackup.of(there[old.id]) != old]
    yield Finding("planned backups that are others by now", float(len(other)), "", crit=1, note=", ".join(other))
    yield _untested(now)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """They are gone, nothing that is left rests on one of them, and one that was restored is still there."""
    now = facts(ctx, params)
    planned = {action.name for action in plan.actions}
    still = [each.id for each in now.backups if each.id in planned]
    yield Finding("planned backups that are still there", float(len(still)), "", crit=1, note=", ".join(still))
    bare = [each.id for each in now.backups if planned & {*each.rests_on}]
    yield Finding("backups whose base was removed", float(len(bare)), "", crit=1, note=", ".join(bare))
    yield _untested(now)


def _going(facts: Facts, params: Params) -> list[Backup]:
    return api.prunable(facts.backups, params.retention, facts.now, facts.verified)


def _untested(facts: Facts) -> Finding:
    restored = {*facts.verified} & {each.id for each in api.whole(facts.backups)}
    note = "" if restored else "none of these was ever restored: aiprod-ops prove test-backup"
    return Finding(
        "without a backup that is known to restore", float(not restored), "", crit=1, note=note, id="untested"
    )
