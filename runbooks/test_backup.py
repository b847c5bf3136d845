"""Restore the newest backup into a disposable instance, look at every row of it, and throw it away.

A backup that was never restored is a hope. `aiprod-ops prove test-backup` restores the newest one, with the WAL that is
kept beside it, starts it, and looks: is every file what its manifest says, is every heap and every b-tree whole, are
schema revision, extensions, roles and rows those of the source, does a write work? How long it took is held against the
RTO, what would have been lost against the RPO. Nothing but the disposable instance is changed, so no approval is asked
for: schedule it. An instance that a killed test left is removed by the next one.

`aiprod-ops check test-backup` says whether the last test is younger than promised, and what it found. The list of
backups is judged by `check backups`.

`--backup ID` tests another one, `--at 2026-03-01T12:00:00Z` recovers to that moment. Every row is compared where the
backup and its WAL give the very moment at which the source was read; else counts are held against it. `--control`
damages the copy at the end, and wants the damage to be noticed: a test that cannot fail proves nothing.

Source: PostgreSQL manual, "Continuous Archiving and Point-in-Time Recovery", pg_verifybackup, pg_amcheck.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from aiprod_ops import api
from aiprod_ops.api import (
    Bytes,
    Context,
    Copy,
    Figures,
    Finding,
    Lab,
    Moving,
    Origin,
    Plan,
    Proof,
    Seconds,
)


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    backup: str = ""  #: the backup's id; the newest by default
    at: str = ""  #: the moment to recover to, as 2026-03-01T12:00:00Z; as far as the WAL reaches by default
    compare: Bytes = api.promise("backups.compare")  #: rows of larger tables are counted, not added up
    wait: Seconds = Seconds(60)  #: for the WAL of this moment to be kept, so that rows can be compared at one moment
    control: bool = False  #: damage the copy at the end, and want it to be noticed
    rto: Seconds = api.promise("backups.rto")  #: from the beginning of the restore to the first answer
    rpo: Seconds = api.promise("backups.rpo")  #: what may be lost
    verified: Seconds = api.promise("backups.verified")  #: the last test is no older

    def __post_init__(self) -> None:
        if self.at and (self.until is None or self.until.tzinfo is None):
            raise ValueError(f"--at is {self.at!r}, expected a moment with its zone, as 2026-03-01T12:00:00Z")

    @property
    def until(self) -> datetime | None:
        try:
            return datetime.fromisoformat(self.at) if self.at else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Facts:
    """What the last test said."""

    now: Moving[datetime]
    last: Moving[api.LastProof | None]


book = api.Runbook(
    params=Params,
    symptom="Nobody knows whether the backups can be restored",
    risk="low",
    owner="database",
    check_every="1 h",
    prove_every="1 d",
    drill_every="30 d",
    alerts=("BackupNotVerified",),
    drill_with={"control": "true"},
    exports=("time to the first answer", "rows that would be lost, newest first", "age of the last test"),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs to read the evidence."""
    return Facts(ctx.clock.now(), api.said_last(ctx, "test-backup"))


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """How old the last test is, and what spoke against that backup."""
    if facts.last is None:
        never = "no backup was ever restored: `aiprod-ops prove test-backup`"
        yield Finding("age of the last test", None, "s", note=never, id="tested")
        return
    age = (facts.now - facts.last.ended).total_seconds()
    note = f"evidence {facts.last.n}: {facts.last.copy['backup'] or 'it could not be restored'}"
    yield Finding("age of the last test", age, "s", params.verified, 2 * params.verified, note, id="tested")
    against = "; ".join(f"{name}: {why}" for name, why in facts.last.refused.items())
    yield Finding("the last test failed", float(bool(against)), "", crit=1, note=against, id="failed-test")


@dataclass(frozen=True)
class Compared(Origin):
    """A backup, and the source as it was at a moment; the backup is recovered to just that where its WAL is kept."""

    moment: api.Moment | None = None
    waited: Seconds = Seconds(0)  #: until the WAL of that moment was kept
    source: api.Later[Figures] | None = field(default=None, compare=False)


@book.origin
@contextmanager
def origin(ctx: Context, params: Params) -> Iterator[Origin]:
    """Which backup, and how far. The source is read meanwhile, as it is at one moment."""
    with (
        api.one_moment(ctx.db) as (moment, sessions),
        api.later(lambda: api.figures(sessions, params.compare)) as source,
    ):
        began = ctx.clock.monotonic()
        is_kept = bool(not params.at and moment.lsn) and _comes(ctx, moment.lsn, params)
        waited = Seconds(ctx.clock.monotonic() - began)
        yield Compared(params.backup, params.until, moment.lsn if is_kept else "", moment, waited, source)


def _comes(ctx: Context, lsn: str, params: Params) -> bool:
    """Whether the WAL of this moment is kept before the patience ends."""
    until = ctx.clock.monotonic() + params.wait
    ctx.report(f"waiting until the WAL of this moment is kept, {lsn}")
    while not ctx.platform.backups.reaches(lsn):
        if ctx.clock.monotonic() > until:
            return False
        ctx.clock.sleep(Seconds(0.25))
    return True


@book.prove
def prove(copy: Copy, plan: Plan, params: Params) -> Proof:  # noqa: ARG001
    """Look at pages and rows side by side; then write; then, if asked, do damage and see whether it is noticed."""
    restored, chosen, platform = copy.restored, copy.origin, copy.context.platform
    is_same = isinstance(chosen, Compared) and chosen.moment is not None and api.is_same(copy.db, chosen.moment)
    with closing(copy.db.another()) as beside, api.later(lambda: platform.damage(restored.name)) as damage:
        ours = api.figures([copy.db, beside], params.compare, copy.context.report)
        damaged = damage.wait()
    findings = [Finding("time to the first answer", restored.seconds, "s", 0.8 * params.rto, params.rto, id="rto")]
    findings.append(Finding("damaged heaps and b-trees", float(len(damaged)), "", crit=1, note="; ".join(damaged[:3])))
    findings += _beside(ours, chosen, params, is_same=is_same)
    findings.append(api.writable(copy.db))
    if params.control:
        noticed = platform.control(restored.name)
        note = "; ".join(noticed) or "a byte was flipped, and nothing said so: this test proves nothing"
        findings.append(Finding("damage that was not noticed", float(not noticed), "", crit=1, note=note))
    steps = [f"{what}: {api.show(took, 's')}" for what, took in restored.phases.items()]
    return Proof((), notes=tuple(steps), findings=tuple(findings))


def _beside(ours: Figures, chosen: Origin | None, params: Params, *, is_same: bool) -> Iterator[Finding]:
    """The copy held against its source."""
    if not isinstance(chosen, Compared) or chosen.source is None:
        return
    try:
        theirs = chosen.source.wait()
    except api.PermissionMissing as error:
        yield Finding("rows compared", None, note=f"{error.message} {error.hint}".strip())
        return
    yield from api.around(theirs, ours)
    yield from api.same_moment(theirs, ours) if is_same else api.plausible(theirs, ours)
    lost = chosen.waited if is_same else api.lost(theirs, ours)
    if lost is not None and not params.at:
        yield Finding("what would have been lost", lost, "s", params.rpo, 2 * params.rpo, id="rpo")


@book.inject
@contextmanager
def inject(lab: Lab) -> Iterator[None]:
    """A backup is taken, the application works on; then everything is lost but what is kept."""
    lab.backup("drill")
    lab.work(3)
    yield
