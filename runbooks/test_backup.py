"""Restore the newest backup into a disposable instance, look at every row of it, and throw it away.

A backup that was never restored is a hope. `aiprod-ops prove test-backup` restores the newest one, with the WAL that is
kept beside it, starts it, and looks: is every file what its manifest says, is every heap and every b-tree whole, has
each b-tree every row of its table, are schema revision, extensions, roles and rows those of the source, does a write
work? How long it took is held against the RTO, what would have been lost against the RPO. Nothing but the disposable
instance is changed, so no approval is asked for: schedule it. An instance that a killed test left is removed by the
next one.

`aiprod-ops check test-backup` says whether the last test is younger than promised, and what it found. The list of
backups is judged by `check backups`.

`--backup ID` tests another one, `--at 2026-03-01T12:00:00Z` recovers to that moment, and says which transaction was the
last until then. Every row is compared where the backup and its WAL give the very moment at which the source was read.
Else the copy is held against two moments of the source, the last test before the backup and now: what it had at both
the backup has to have, and a table that nobody wrote to between the two has to have the same rows. What came or went
meanwhile is no fault. A large table that is empty in the backup alone is one, unless its `created_at` (with time zone)
says that each row in the source is younger.

`--control` changes a row of the copy at the end, damages a file of it and a spare of its backup, and wants each to be
noticed: a test that cannot fail proves nothing. On Cloud SQL no file can be reached: there it is the row alone.

On Cloud SQL it is recovered to the newest moment that the API names: Google restores its newest backup from before it
and replays the WAL. `--backup ID` restores that backup alone.

Is the source lost, the backup is restored all the same, and held against what the last test saw of the source.

Source: PostgreSQL manual, "Continuous Archiving and Point-in-Time Recovery", pg_verifybackup, pg_amcheck.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
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
    compare: Bytes = api.promise("backups.compare")  #: larger tables are counted, not compared
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
    is_sealed: Moving[bool]


book = api.Runbook(
    params=Params,
    symptom="Nobody knows whether the backups can be restored",
    risk="low",
    owner="database",
    check_every="1 h",
    prove_every="1 d",
    drill_every="30 d",
    alerts=("RestoreTestOverdueOrFailed",),
    drill_with={"control": "true"},
    on_evidence=True,
    on_backups=True,
    exports=("time to the first answer", "what would have been lost", "age of the newest row", "age of the last test"),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs to read the evidence."""
    last = api.said_last(ctx, "test-backup")
    return Facts(ctx.clock.now(), last, last is not None and api.is_sealed(ctx, last, "test-backup"))


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """How old the last test is, and what spoke against that backup."""
    if facts.last is None:
        never = "no backup was ever restored: `aiprod-ops prove test-backup`"
        yield Finding("age of the last test", None, "s", note=never, id="tested")
        return
    age = (facts.now - facts.last.ended).total_seconds()
    note = f"evidence {facts.last.n}: {facts.last.copy['backup'] or 'an unknown backup'}"
    yield Finding("age of the last test", age, "s", params.verified, 2 * params.verified, note, id="tested")
    against = "; ".join(f"{name}: {why}" for name, why in facts.last.refused.items())
    if against:
        against += "; take another, and test it: `aiprod-ops plan take-backup --now`"
    yield Finding("the last test failed", float(bool(against)), "", crit=1, note=against, id="failed-test")
    gone = "" if facts.is_sealed else f"{facts.last.n} is gone, or was altered: aiprod-ops evidence verify"
    yield Finding("evidence of the last test that does not hold", float(bool(gone)), "", 1, note=gone, id="unsealed")
    untold = [f"{each['metric']}: {each['note']}" for each in facts.last.findings if each["status"] == "UNKNOWN"]
    yield Finding("left open by the last test", float(len(untold)), "", 1, note="; ".join(untold), id="untold-test")


@dataclass(frozen=True)
class Compared(Origin):
    """A backup, and the source as it was at a moment; the backup is recovered to just that where its WAL is kept."""

    moment: api.Moment | None = None
    waited: Seconds = Seconds(0)  #: until the WAL of that moment was kept
    source: api.Later[Figures] | None = field(default=None, compare=False)  #: None where it does not answer
    read: datetime | None = None  #: when that moment was
    late: str = ""  #: why it is not recovered to just that moment
    gone: str = ""  #: which segment the source has archived that is not there
    timeline: str = ""  #: that the source writes to


@book.origin
@contextmanager
def origin(ctx: Context, params: Params) -> Iterator[Origin]:
    """Which backup, and how far. The source is read meanwhile, as it is at one moment, if it still lives."""
    _refuse_unknown(ctx, params)
    with ExitStack() as held:
        try:
            moment, session = held.enter_context(api.one_moment(ctx.db))
        except api.Unreachable:
            yield Compared(params.backup, params.until)
            return
        gone = api.not_kept(ctx)
        source = held.enter_context(api.later(lambda: api.read_source(session, params.compare)))
        read, began = ctx.clock.now(), ctx.clock.monotonic()
        is_kept = bool(not params.at and moment.lsn) and _is_any(ctx) and _comes(ctx, moment.lsn, params)
        waited = Seconds(ctx.clock.monotonic() - began if is_kept else 0.0)
        lsn = moment.lsn if is_kept else ""
        late = "" if is_kept else "a moment was asked for" if params.at else (
            f"the WAL up to the moment of reading the source was not kept within {api.show(params.wait, 's')}"
        )  # fmt: skip
        timeline = api.segment_of(ctx.db, moment.lsn)[:8] if moment.lsn else ""
        yield Compared(params.backup, params.until, lsn, moment, waited, source, read, late, gone, timeline)


def _refuse_unknown(ctx: Context, params: Params) -> None:
    """A backup that is not there is a wrong command line, no backup that failed. Raises UsageError."""
    listed = [each.id for each in ctx.platform.backups.listed()]
    if params.backup and params.backup not in listed:
        hint = f"the newest are: {', '.join(listed[-3:]) or 'none'}"
        raise api.UsageError(f"there is no backup {params.backup}", hint=hint)


def _is_any(ctx: Context) -> bool:
    """Whether there is a backup at all: nothing is waited for where there is none."""
    return any(each.state is api.BackupState.SUCCESSFUL for each in ctx.platform.backups.listed())


def _comes(ctx: Context, lsn: str, params: Params) -> bool:
    """Whether the WAL of this moment is kept before the patience ends."""
    until, pause, segment = ctx.clock.monotonic() + params.wait, Seconds(0.01), api.segment_of(ctx.db, lsn)
    ctx.report(f"waiting until the WAL of this moment is kept, {lsn}")
    while not (reaches := ctx.platform.backups.reaches(segment)):
        if reaches is None or ctx.clock.monotonic() > until:
            return False
        ctx.clock.sleep(pause)
        pause = Seconds(min(1.5 * pause, 0.25))
    return True


@book.prove
def prove(copy: Copy, plan: Plan, params: Params) -> Proof:  # noqa: ARG001
    """Look at pages and rows side by side; then write; then, if asked, do damage and see whether it is noticed."""
    restored, chosen, platform = copy.restored, copy.origin, copy.context.platform
    is_same = isinstance(chosen, Compared) and chosen.moment is not None and api.is_same(copy.db, chosen.moment)
    api.install_amcheck(copy.db)  # here, not by two at the same time
    trees = api.trees(copy.db, params.compare)
    with (
        closing(copy.db.another()) as beside,
        api.later(lambda: platform.damage(restored.name, trees.largest)) as damage,
        api.later(lambda: api.lacking_rows(copy.db, params.compare, trees)) as lacking,
    ):
        ours = api.figures([copy.db, beside], params.compare, copy.context.report)
        damaged, rows = damage.wait(), lacking.wait()
    findings = [Finding("time to the first answer", restored.seconds, "s", 0.8 * params.rto, params.rto, id="rto")]
    findings.append(Finding("damaged heaps and b-trees", float(len(damaged)), "", crit=1, note="; ".join(damaged[:3])))
    findings.append(rows)
    if isinstance(chosen, Compared):
        if chosen.gone:
            # The backup itself is in order; `check backups` is critical of it.
            metric = "WAL that is not where it was archived"
            findings.append(Finding(metric, 1.0, "", warn=1, note=chosen.gone, id="gone"))
        findings += _forked(copy, chosen)
        findings += _lost(copy, chosen, params, is_same=is_same)
        findings += _beside(copy, ours, chosen, is_same=is_same)
    findings.append(api.writable(copy.db))
    if params.control:
        changed = api.row_control(copy.db, ours, params.compare)
        findings.append(_noticed(changed, platform.control(restored.name)))
    steps = [f"{what}: {api.show(took, 's')}" for what, took in restored.phases.items()]
    steps += restored.checks[-1:] if params.at else ()
    return Proof((), notes=tuple(steps), findings=tuple(findings))


def _noticed(rows: tuple[str, str], files: Mapping[str, str]) -> Finding:
    """Each that looks for damage has to notice what was done to it: what one of them misses no other looks for. Where
    no file can be reached, that is said."""
    said = {rows[0]: rows[1], **(files or {"pg_amcheck": "not tried, no file of the copy can be reached"})}
    missed = [who for who, words in said.items() if not words]
    heard = "; ".join(words if words.startswith(who) else f"{who}: {words}" for who, words in said.items())
    note = f"{' and '.join(missed)} said nothing: this test proves nothing" if missed else heard
    return Finding("damage that was not noticed", float(len(missed)), "", crit=1, note=note)


def _beside(copy: Copy, ours: Figures, chosen: Compared, *, is_same: bool) -> Iterator[Finding]:
    """The copy held against its source; where that is lost, against what was last seen of it."""
    ctx = copy.context
    yield from _newest(ours, ctx.clock.now())
    begun = _begun(copy, chosen)
    try:
        theirs = chosen.source.wait() if chosen.source is not None else None
    except api.PermissionMissing as error:
        yield Finding("rows compared", None, note=f"{error.message} {error.hint}".strip())
        return
    except (api.Failed, api.TimedOut) as error:
        # Of the source, such as a lock that somebody holds: no fault of the copy.
        yield Finding("rows compared", None, note=f"the source could not be read: {error.message}")
        return
    except api.Unreachable:
        theirs = None
    if theirs is None:
        yield from _as_recorded(ctx, ours, begun)
        return
    before = api.recorded_figures(ctx, begun) if begun else None
    api.record_figures(ctx, theirs, chosen.read or ctx.clock.now())
    if is_same:
        yield from api.same_moment(theirs, ours)
    else:
        yield Finding("rows compared with those of other moments", 1.0, "", note=chosen.late)
        yield from api.between_moments(before[1] if before else None, ours, theirs, begun)


def _newest(ours: Figures, now: datetime) -> Iterator[Finding]:
    """A row of a time that has not come yet tells nothing of how old the newest is."""
    come, early = ours.newest_at(now)
    if come is not None:
        note = f"without {', '.join(early)}: a row there is of a time that has not come yet" if early else ""
        yield Finding("age of the newest row", max(0.0, (now - come).total_seconds()), "s", note=note, id="newest")


def _forked(copy: Copy, chosen: Compared) -> Iterator[Finding]:
    """A server's timeline never goes back: a backup of a later one is of a server that was promoted beside it."""
    listed = copy.context.platform.backups.listed()
    theirs = next((each.timeline for each in listed if each.id == copy.restored.backup), "")
    if theirs and chosen.timeline and theirs > chosen.timeline:
        note = f"it is of timeline {int(theirs, 16)}, the source writes to {int(chosen.timeline, 16)}"
        yield Finding("a backup of another history", 1.0, "", crit=1, note=note, id="forked")


def _begun(copy: Copy, chosen: Compared) -> datetime | None:
    """What the source had before this moment is older than the copy; None where nobody tells."""
    listed = copy.context.platform.backups.listed()
    begun = next((each.started for each in listed if each.id == copy.restored.backup), None)
    return chosen.at or begun or copy.restored.until


def _lost(copy: Copy, chosen: Compared, params: Params, *, is_same: bool) -> Iterator[Finding]:
    """From the newest moment that could have been recovered to the one at which the source was read, or to now where it
    is lost: rows do not tell, not all of them have a time. At the same moment it is how long its WAL took to be kept.
    Without the WAL that was to be kept it is a warning at least. Of a backup that was asked for by its id, and restored
    without WAL, it is no more than a figure."""
    restored, backups = copy.restored, copy.context.platform.backups
    if params.at or (chosen.read is None and not restored.lacks):
        return
    seconds: float | None = chosen.waited
    note, warn = restored.lacks, 0 if restored.lacks else params.rpo
    if restored.lacks or not is_same:
        ended = next((each.taken for each in backups.listed() if each.id == restored.backup), None)
        reaches = backups.arrangement().recovers_to
        newest = restored.until or max((each for each in (ended, reaches) if each is not None), default=None)
        until = chosen.read or copy.context.clock.now()
        seconds = max(0.0, (until - newest).total_seconds()) if newest else None
        way = "the WAL that is kept reaches" if newest == reaches else "the backup ended at, and nothing follows it,"
        if restored.until is not None:
            way = "the copy is of"
        told = f"{way} {newest:%Y-%m-%d %H:%M:%S} UTC" if newest else "nothing tells when it is from"
        note = f"{told}; {note}" if note else told
    if params.backup and restored.until is not None:
        yield Finding("what would have been lost", seconds, "s", note=note, id="rpo")
    else:
        yield Finding("what would have been lost", seconds, "s", warn, 2 * params.rpo, note, id="rpo")


def _as_recorded(ctx: Context, ours: Figures, begun: datetime | None) -> Iterator[Finding]:
    """The copy held against what an earlier test read of the source."""
    recorded = api.recorded_figures(ctx)
    if recorded is None:
        yield Finding("rows compared", None, note="the source does not answer, and no test before has read it")
        return
    at, theirs = recorded
    note = f"compared with what it had on {at:%Y-%m-%d %H:%M} UTC: {theirs.rows:,} rows of {len(theirs.tables)} tables"
    yield Finding("the source does not answer", 1.0, "", warn=1, note=note, id="source")
    is_older = begun is not None and at < begun
    yield from api.between_moments(theirs if is_older else None, ours, None if is_older else theirs, begun)


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """A backup is taken, the application works on; then everything is lost but what is kept."""
    lab.backup("drill")
    lab.work(3)
    yield
