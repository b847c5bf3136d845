"""take-backup, prune-backups and backups over a repository in memory: what they plan, refuse, and leave behind."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from memory_world import Bench, Killed

from aiprod_ops.config import Promises
from aiprod_ops.domain.backups import Arrangement, Backup, State
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.plans import Draft
from aiprod_ops.engine import planning
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal, runs
from aiprod_ops.engine.last_proofs import disproved_backups, restored_backups, verified_backups
from aiprod_ops.engine.operations import Outcome, apply, resume, roll_back, undo_draft
from aiprod_ops.engine.registry import find
from aiprod_ops.engine.world import World
from aiprod_ops.errors import Exit, Failed, OutcomeUnknown, Refused, UsageError
from aiprod_ops.units import Bytes, Seconds

OURS = "7000000000000000001"
PROMISED = Promises(
    {
        "approval": {"valid_for": "4 h"},
        "backups": {
            "every": "1 d", "daily": "30 d", "weekly": "90 d", "monthly": "365 d", "least": 3, "rpo": "1 h",
            "protected": False, "elsewhere": False, "encrypted": False,
        },
    },
    "test",
)  # fmt: skip


class Keeping:
    """The world of a runbook over stored backups."""

    def __init__(self, bench: Bench, book: str) -> None:
        self.bench, self.entry = bench, find()[book]
        self.stored = bench.platform.backups
        self.stored.now = bench.clock.now

    def world(self) -> World:
        world = self.bench.world()
        return replace(world, context=replace(world.context, promises=PROMISED))

    def store(self, name: str, age_hours: float, state: State = State.SUCCESSFUL, **more: Any) -> Backup:
        """One that took an hour."""
        ended = self.bench.clock.now() - timedelta(hours=age_hours)
        began = ended - timedelta(hours=1)
        given = {"size": Bytes(1000), "instance": OURS, **more}
        made = Backup(name, state, began, ended if state is State.SUCCESSFUL else None, **given)
        self.stored.kept.append(made)
        return made

    def restored(
        self, *names: str, target: str = "lab", code: int = 0, bad: tuple[str, ...] = (), status: str = "CRITICAL"
    ) -> None:
        """Evidence of tests; `bad` are ids of findings with a status."""
        findings = [{"id": each, "status": status} for each in bad]
        for name in names:
            body = {
                "kind": "prove",
                "runbook": "test-backup",
                "run": f"test-{name}-{code}",
                "exit": code,
                "findings": findings,
            }
            Archive(self.bench.store).seal({**body, "target": {"target": target}, "copy": {"backup": name}})

    def params(self, **given: str) -> Any:
        return self.entry.read_params(given, PROMISED)

    def plan(self, **given: str) -> Draft:
        made = planning.draft(self.entry, self.world().context, self.params(**given), by="tester")
        planning.keep(self.bench.store, made)
        return made

    def apply(self, made: Draft) -> Outcome:
        return apply(self.world(), self.entry, made, "--apply")

    def resume(self) -> Outcome:
        world = self.world()
        self.bench.store.kill_after = 10**9
        return resume(world, self.entry, self.journal())

    def journal(self) -> Journal:
        run = runs(self.bench.store)[-1]
        return Journal.of(self.bench.store, self.bench.clock, run)

    def check(self, **given: str) -> dict[str, Status]:
        checked = planning.check(self.entry, self.world().context, self.params(**given))
        return {finding.id: finding.status for finding in checked.findings}

    def ids(self) -> list[str]:
        return [each.id for each in self.stored.kept]


@pytest.fixture
def taking(bench: Bench) -> Keeping:
    return Keeping(bench, "take-backup")


@pytest.fixture
def pruning(bench: Bench) -> Keeping:
    return Keeping(bench, "prune-backups")


# take-backup


def test_the_first_one_is_taken_and_then_there_is_nothing_to_do(taking: Keeping) -> None:
    assert taking.check()["due"] is Status.WARNING
    made = taking.plan()
    assert [action.name for action in made.plan.actions] == [f"first-of-{OURS}"]
    assert made.plan.actions[0].estimate is None, "nobody knows yet"
    assert taking.apply(made).exit is Exit.DONE
    assert taking.check()["due"] is Status.OK
    assert taking.plan().plan.actions == ()
    again = taking.apply(made)
    assert (again.exit, again.run, taking.stored.taken) == (Exit.DONE, "", 1)


def test_one_from_the_future_does_not_hold_up_the_next_ones(taking: Keeping) -> None:
    """A clock that ran ahead named it; until its time comes another is taken each day, with a label of its own."""
    taking.store("before", 23)
    made = taking.plan()
    taking.store("ahead", -48, label=made.plan.actions[0].name)
    assert taking.check()["due"] is Status.WARNING
    for day in (1, 2):
        made = taking.plan()
        assert taking.check()["due"] is Status.WARNING
        assert taking.apply(made).exit is Exit.DONE
        assert taking.stored.taken == day
        assert taking.check()["due"] is Status.OK
        taking.bench.clock.sleep(Seconds(22 * 3600))


@pytest.mark.parametrize(("age_hours", "is_due"), [(0.5, False), (20, False), (20.7, True), (48, True)])
def test_one_is_due_by_when_the_last_began(taking: Keeping, age_hours: float, is_due: bool) -> None:
    """A scheduled run that begins a little earlier than yesterday's takes one all the same."""
    before = taking.store("a", age_hours)
    made = taking.plan().plan.actions
    assert bool(made) == is_due
    if made:
        assert made[0].name == f"after-{before.started:%Y%m%dT%H%M%SZ}"
        assert made[0].estimate is not None
        assert (made[0].estimate.duration, made[0].estimate.size) == (3600, 1000)
    assert len(taking.plan(now="true").plan.actions) == 1


def test_one_is_due_where_the_last_test_of_the_newest_failed(taking: Keeping) -> None:
    old, young = taking.store("a", 30), taking.store("b", 2)
    taking.restored(old.id, code=10)
    assert taking.plan().plan.actions == (), "only the newest counts"
    taking.restored(young.id, code=10)
    assert taking.check()["due"] is Status.WARNING
    made = taking.plan()
    assert [action.name for action in made.plan.actions] == [f"after-{young.started:%Y%m%dT%H%M%SZ}"]
    assert taking.apply(made).exit is Exit.DONE
    assert taking.plan().plan.actions == (), "the one that follows was not tested yet"


def test_one_that_was_tested_again_and_holds_makes_the_plan_stale(taking: Keeping) -> None:
    taking.store("a", 2)
    taking.restored("a", code=10)
    made = taking.plan()
    taking.bench.clock.sleep(1)  # type: ignore[arg-type]
    Archive(taking.bench.store).seal({
        "kind": "prove", "runbook": "test-backup", "run": "again", "exit": 0, "target": {"target": "lab"},
        "copy": {"backup": "a"},
    })  # fmt: skip
    with pytest.raises(Refused, match="stale: no longer planned"):
        taking.apply(made)


def test_where_none_is_due_it_says_when_the_next_one_is(taking: Keeping) -> None:
    before = taking.store("a", 2)
    due = before.started + timedelta(hours=0.9 * 24)
    checked = planning.check(taking.entry, taking.world().context, taking.params())
    (note,) = [finding.note for finding in checked.findings if finding.id == "due"]
    said = f"the next is due at {due:%Y-%m-%d %H:%M} UTC, `aiprod-ops plan take-backup --now` takes one at once"
    assert note.endswith(said)
    (reason,) = taking.plan().omitted.values()
    assert reason == note
    assert taking.plan(now="true").omitted == {}


def test_time_does_not_make_a_plan_another_one_and_a_new_backup_does(taking: Keeping) -> None:
    taking.store("a", 48)
    made = taking.plan()
    taking.bench.clock.sleep(3600)  # type: ignore[arg-type]
    assert taking.plan().digest == made.digest
    taking.store("b", 0)
    with pytest.raises(Refused, match="stale: no longer planned"):
        taking.apply(made)


def test_what_is_no_more_is_kept_by_what_it_measured(taking: Keeping) -> None:
    taking.check()
    taking.store("a", 2)
    checked = planning.check(taking.entry, taking.world().context, taking.params())
    assert (checked.gone, checked.were) == (("due",), {"due": "a backup is due"})


def test_a_plan_that_was_applied_is_not_called_stale(taking: Keeping) -> None:
    taking.store("a", 2)
    made = taking.plan(now="true")
    first = taking.apply(made)
    assert first.exit is Exit.DONE
    ended = f"{taking.bench.clock.now():%Y-%m-%d %H:%M}"
    taking.bench.clock.sleep(7200)  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        taking.apply(made)
    assert caught.value.message.startswith(f"the plan {made.digest[:12]} was applied already, at {ended}")
    assert f" UTC by the run {first.run}; " in caught.value.message
    assert caught.value.hint == "plan again: aiprod-ops plan take-backup --now"
    assert (caught.value.exit_code, taking.stored.taken) == (Exit.REFUSED, 1)


def test_one_that_began_in_this_second_did_not_begin_before(taking: Keeping) -> None:
    taking.store("a", 48)
    made = taking.plan(every="0s")
    assert taking.apply(made).exit is Exit.DONE
    taking.stored.kept[-1] = replace(taking.stored.kept[-1], started=made.created - timedelta(milliseconds=900))
    assert planning.recompute(taking.entry, taking.world().context, taking.params(every="0s"), made).actions == ()


def test_what_a_test_restores_just_now_is_not_taken_back(taking: Keeping) -> None:
    taking.stored.size = Bytes(10)  # bad: it is far smaller than the one before
    taking.store("a", 48)
    made = taking.plan()
    taking.stored.after = lambda: taking.stored.used.update(taking.ids())
    with pytest.raises(OutcomeUnknown, match="is being restored"):
        taking.apply(made)
    taking.stored.used.clear()
    assert taking.resume().exit is Exit.UNDONE
    assert taking.ids() == ["a"]


def test_what_is_no_backup_of_ours_is_not_the_newest(taking: Keeping) -> None:
    taking.store("theirs", 1, instance="8")
    taking.store("failed", 1, State.FAILED)
    taking.store("baseless", 1, rests_on=("lost",))
    assert [action.name for action in taking.plan().plan.actions] == [f"first-of-{OURS}"]


def test_of_another_instance_with_the_same_label_nothing_is_taken_back(taking: Keeping) -> None:
    theirs = taking.store("theirs", 1, instance="8", label=f"first-of-{OURS}")
    outcome = taking.apply(taking.plan())
    assert outcome.exit is Exit.UNDONE, "the repository answers with theirs; it is not ours"
    assert taking.stored.kept == [theirs]


def test_nothing_is_begun_while_another_one_is_taken(taking: Keeping) -> None:
    taking.store("a", 48)
    taking.store("b", 0.1, State.RUNNING)
    outcome = taking.apply(taking.plan())
    assert outcome.exit is Exit.REFUSED
    assert "backups being taken already: b, since" in outcome.reason


@pytest.mark.parametrize(("room", "code"), [(999, Exit.REFUSED), (1000, Exit.DONE), (None, Exit.DONE)])
def test_nothing_is_begun_without_room(taking: Keeping, room: int | None, code: Exit) -> None:
    taking.store("a", 48)
    taking.stored.arranged = Arrangement(room=None if room is None else Bytes(room))
    assert (taking.check().get("room") is Status.CRITICAL) == (room == 999)
    outcome = taking.apply(taking.plan())
    assert outcome.exit is code, outcome.reason
    if code is Exit.REFUSED:
        assert "999 B are free, about 1.00 kB needed" in outcome.reason


def fails() -> None:
    raise Failed("pg_basebackup failed: no space left on device")


def test_a_failure_leaves_what_was_there(taking: Keeping) -> None:
    before = taking.store("a", 48)
    taking.stored.before = fails
    outcome = taking.apply(taking.plan())
    assert outcome.exit is Exit.UNDONE
    assert "no space left" in outcome.reason
    assert taking.stored.kept == [before]
    taking.stored.before = lambda: None
    assert taking.apply(taking.plan()).exit is Exit.DONE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size": Bytes(900)}, Exit.DONE),
        ({"size": Bytes(400)}, Exit.DONE),  # strange, and told
        ({"size": Bytes(100)}, Exit.UNDONE),
        ({"size": Bytes(0)}, Exit.UNDONE),
        ({"size": None}, Exit.DONE),  # the platform does not tell
        ({"instance": "8"}, Exit.UNDONE),
    ],
)
def test_what_is_bad_is_taken_back(taking: Keeping, changes: dict[str, Any], code: Exit) -> None:
    taking.store("a", 48)
    for name, value in changes.items():
        setattr(taking.stored, name, value)
    assert taking.apply(taking.plan()).exit is code
    ours = [each.id for each in taking.stored.kept if each.instance == OURS]
    assert len(ours) == (2 if code is Exit.DONE else 1)


def test_killed_at_every_record_there_is_one_backup(taking: Keeping) -> None:
    taking.store("a", 48)
    made, records = taking.plan(), 0
    for records in range(1, 20):
        taking.stored.kept[1:] = []
        taking.bench.store.kill_after = records
        try:
            taking.apply(made)
        except Killed:
            assert taking.resume().exit is Exit.DONE
            assert [each.state for each in taking.stored.kept] == [State.SUCCESSFUL] * 2
        else:
            break
        taking.bench.store.held.clear()
    assert records > 6
    assert taking.stored.taken == records, "each time it was taken once"


def test_killed_while_it_is_taken_it_is_taken_again(taking: Keeping) -> None:
    """What the dead one left is listed as failed; it is cleared away."""
    taking.store("a", 48)

    def kill() -> None:
        raise Killed

    taking.stored.before = kill
    with pytest.raises(Killed):
        taking.apply(taking.plan())
    assert [each.state for each in taking.stored.kept] == [State.SUCCESSFUL, State.FAILED]
    taking.stored.before = lambda: None
    assert taking.resume().exit is Exit.DONE
    assert [each.state for each in taking.stored.kept] == [State.SUCCESSFUL, State.SUCCESSFUL]


def test_while_the_platform_still_takes_it_the_outcome_is_unknown(taking: Keeping) -> None:
    taking.store("a", 48)

    def kill() -> None:
        raise Killed

    taking.stored.before = kill
    with pytest.raises(Killed):
        taking.apply(taking.plan())
    taking.stored.kept[-1] = replace(taking.stored.kept[-1], state=State.RUNNING, instance=OURS)
    with pytest.raises(OutcomeUnknown, match="is unknown"):
        taking.resume()
    taking.stored.kept[-1] = replace(taking.stored.kept[-1], state=State.SUCCESSFUL, size=Bytes(990))
    assert taking.resume().exit is Exit.DONE
    assert taking.stored.taken == 0, "nobody took another one"


def taken(taking: Keeping) -> str:
    taking.store("a", 48)
    assert taking.apply(taking.plan()).exit is Exit.DONE
    return taking.ids()[-1]


def roll(taking: Keeping) -> Outcome:
    world, journal = taking.world(), taking.journal()
    return roll_back(world, taking.entry, journal, undo_draft(world, taking.entry, journal), "digest")


def test_a_run_can_be_taken_back(taking: Keeping) -> None:
    taken(taking)
    assert roll(taking).exit is Exit.DONE
    assert taking.ids() == ["a"]


@pytest.mark.parametrize("case", ["known to restore", "known to restore, and a later test failed", "rests on"])
def test_what_others_need_is_not_taken_back(taking: Keeping, case: str) -> None:
    name, reason = taken(taking), case.partition(",")[0]
    if reason == "rests on":
        taking.store("increment", 0, rests_on=(name,))
    else:
        taking.restored(name)
    if "later" in case:
        taking.restored(name, code=10)
    there = taking.ids()
    outcome = roll(taking)
    assert outcome.exit is Exit.REFUSED
    assert reason in outcome.reason
    assert taking.ids() == there


# prune-backups


def daily(pruning: Keeping, days: int) -> None:
    for n in reversed(range(days)):
        pruning.store(f"{n:03}", 24 * n + 1)


def test_without_a_test_nothing_is_removed(pruning: Keeping) -> None:
    daily(pruning, 60)
    assert pruning.check() == {"going": Status.WARNING, "untested": Status.CRITICAL}
    for elsewhere in ({"target": "other"}, {"code": 10}):
        pruning.restored("001", **elsewhere)  # type: ignore[arg-type]
        pruning.restored("gone")
        outcome = pruning.apply(pruning.plan())
        assert outcome.exit is Exit.REFUSED
        assert "none of these was ever restored" in outcome.reason
    assert len(pruning.ids()) == 60


def test_what_nothing_asks_for_goes(pruning: Keeping) -> None:
    daily(pruning, 60)
    pruning.restored("059", "041")
    pruning.store("theirs", 24 * 300, instance="8")
    made = pruning.plan(most="100")
    assert all(action.undo is None and action.irreversible for action in made.plan.actions)
    assert pruning.apply(made).exit is Exit.DONE
    assert "041" in pruning.ids(), "the newest that was restored"
    assert "theirs" in pruning.ids(), "another instance's are not ours to judge"
    assert pruning.check() == {"going": Status.OK}
    assert pruning.plan().plan.actions == ()
    assert pruning.apply(made).run == ""


def test_one_run_removes_no_more_than_asked(pruning: Keeping) -> None:
    daily(pruning, 400)
    pruning.restored("000")
    oldest = [action.name for action in pruning.plan(most="7").plan.actions]
    assert oldest == [f"{n}" for n in range(399, 392, -1)]
    assert len(pruning.plan().plan.actions) == 30


@pytest.mark.parametrize("given", [{"least": "0"}])
def test_the_newest_stays_always(pruning: Keeping, given: dict[str, str]) -> None:
    with pytest.raises(Exception, match="the newest one stays, always"):
        pruning.plan(**given)


def between(pruning: Keeping, change: Callable[[], None]) -> Callable[[str], None]:
    """After the second removal something happens."""
    remove, removed = pruning.stored.remove, []

    def removing(backup: str) -> None:
        remove(backup)
        removed.append(backup)
        if len(removed) == 2:
            change()

    return removing


def lose_the_newest(pruning: Keeping) -> None:
    """All but what is planned is gone at once: what the plan still names is the last there is."""
    planned = {f"{n:03}" for n in range(40, 60)}
    pruning.stored.kept = [each for each in pruning.stored.kept if each.id in planned]


def replace_one(pruning: Keeping) -> None:
    pruning.stored.kept = [
        replace(each, label="another") if each.id == "050" else each for each in pruning.stored.kept
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lose_the_newest, "planned backups that are asked for"),
        (replace_one, "planned backups that are others by now: 050"),
        (lambda p: p.stored.remove("000"), "none of these was ever restored"),
    ],
)
def test_the_list_is_read_before_each_removal(
    pruning: Keeping, change: Callable[[Keeping], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(pruning, 60)
    pruning.restored("000")
    made = pruning.plan()
    monkeypatch.setattr(pruning.stored, "remove", between(pruning, lambda: change(pruning)))
    outcome = pruning.apply(made)
    assert outcome.exit is Exit.PARTLY, "two are gone for good"
    assert says in outcome.reason


def test_a_plan_that_others_have_made_stale_is_refused(pruning: Keeping) -> None:
    daily(pruning, 60)
    pruning.restored("000")
    made = pruning.plan()
    pruning.stored.remove(made.plan.actions[0].name)
    with pytest.raises(Refused, match="stale"):
        pruning.apply(made)


def test_killed_at_every_record_pruning_ends_well(pruning: Keeping) -> None:
    daily(pruning, 60)
    pruning.restored("000")
    everything, made = list(pruning.stored.kept), pruning.plan(most="3")
    for records in range(1, 40):
        pruning.stored.kept = list(everything)
        pruning.bench.store.kill_after = records
        try:
            pruning.apply(made)
        except Killed:
            assert pruning.resume().exit is Exit.DONE
            assert len(pruning.ids()) == 57
        else:
            break
        pruning.bench.store.held.clear()
    assert records > 8


# backups


def test_the_audit_is_one_check(bench: Bench) -> None:
    keeping = Keeping(bench, "backups")
    assert keeping.check() == {"newest": Status.CRITICAL}
    keeping.store("a", 30, instance="8")
    keeping.store("b", 30)
    assert keeping.check() == {
        "newest": Status.OK, "recoverable": Status.CRITICAL, "stranger": Status.CRITICAL,
    }  # fmt: skip


def test_that_the_newest_was_disproved_is_a_warning_that_names_the_evidence(bench: Bench) -> None:
    keeping = Keeping(bench, "backups")
    for name, age in (("old", 20), ("new", 0.1)):
        keeping.store(name, age)
    keeping.restored("new", "old")
    assert "disproved" not in keeping.check()
    keeping.restored("old", code=10)
    assert "disproved" not in keeping.check(), "the newest is another one"
    keeping.restored("new", code=10)
    checked = planning.check(keeping.entry, keeping.world().context, keeping.params())
    (found,) = [each for each in checked.findings if each.id == "disproved"]
    assert (found.status, found.note.startswith("evidence 4; take another")) == (Status.WARNING, True)


def test_evidence_that_cannot_be_read_leaves_one_line_unknown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = Keeping(bench, "backups")
    keeping.store("a", 0.1)
    names = bench.store.names

    def closed(prefix: str) -> list[str]:
        if prefix == "evidence/":
            raise PermissionError(13, "Permission denied", "/state/evidence")
        return names(prefix)

    monkeypatch.setattr(bench.store, "names", closed)
    assert keeping.check() == {
        "newest": Status.OK, "recoverable": Status.OK, "disproved": Status.UNKNOWN,
    }  # fmt: skip


def test_what_a_test_restored_is_known_from_its_evidence(bench: Bench) -> None:
    keeping = Keeping(bench, "prune-backups")
    keeping.restored("a", "b")
    keeping.restored("c", code=10)
    keeping.restored("d", target="other")
    keeping.restored("slow", code=10, bad=("rto", "rpo"))
    keeping.restored("slow and damaged", code=10, bad=("rto", "damaged heaps and b-trees"))
    keeping.restored("nobody could tell", code=10, bad=("rows compared",), status="UNKNOWN")
    context = keeping.world().context
    assert verified_backups(context) == ("a", "b", "slow")
    assert disproved_backups(context) == ("c", "slow and damaged")
    keeping.restored("a", code=10)
    assert verified_backups(context) == ("b", "slow")
    assert restored_backups(context) == ("a", "b", "slow")


@pytest.mark.parametrize("given", [{"daily": "30"}, {"weekly": "90 s"}, {"monthly": "23 h"}])
def test_a_retention_of_less_than_a_day_is_a_forgotten_unit(bench: Bench, given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(given))} is .*, expected at least a day"):
        Keeping(bench, "prune-backups").params(**given)


def test_what_a_test_restores_just_now_is_not_pruned(pruning: Keeping) -> None:
    for age in range(1, 50):
        pruning.store(f"{age:02}", 24 * age)
    pruning.restored("01")
    before, made = pruning.ids(), pruning.plan()
    pruning.stored.used.add(made.plan.actions[-1].name)
    outcome = pruning.apply(made)
    assert (outcome.exit, outcome.reason) == (Exit.HELD, f"{made.plan.actions[-1].name} is being restored")
    assert pruning.ids() == before
    pruning.stored.used.clear()
    assert pruning.apply(made).exit is Exit.DONE
