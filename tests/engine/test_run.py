"""Every exit code of a run, and `kill -9` at every record of its journal."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from memory_world import Bench, Killed

from aiprod_ops.cli import outcomes
from aiprod_ops.cli.options import NOWHERE
from aiprod_ops.domain.plans import Draft
from aiprod_ops.engine import planning
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal, runs
from aiprod_ops.engine.operations import Outcome, apply, resume, roll_back, undo_draft
from aiprod_ops.errors import (
    Broken,
    Cancelled,
    Exit,
    Failed,
    Held,
    NotApproved,
    OutcomeUnknown,
    PartlyApplied,
    Refused,
    TimedOut,
    Unreachable,
    UsageError,
)


def planned(bench: Bench, **given: Any) -> Draft:
    world = bench.world()
    params = bench.entry.read_params({name: str(value) for name, value in given.items()}, world.context.promises)
    made = planning.draft(bench.entry, world.context, params, by="tester")
    planning.keep(bench.store, made)
    return made


def applied(bench: Bench, made: Draft) -> Outcome:
    return apply(bench.world(), bench.entry, made, "--apply")


def resumed(bench: Bench, run: str) -> Outcome:
    world = bench.world()
    return resume(world, bench.entry, Journal.of(bench.store, world.context.clock, run))


def fails(error: Exception) -> Callable[[], None]:
    def trouble() -> None:
        raise error

    return trouble


def test_done_and_verified(bench: Bench) -> None:
    outcome = applied(bench, planned(bench))
    assert outcome.exit == Exit.DONE
    assert bench.light.on == {"a", "b"}
    (proof, run) = (record for _, record in Archive(bench.store).read())
    assert proof is not None
    assert run is not None
    assert (proof.body["kind"], run.body["kind"], run.body["exit"]) == ("prove", "run", 0)
    assert bench.store.content[f"runs/{outcome.run}/files/lamps.txt"] == b"a\nb"
    assert Archive(bench.store).faults() == []


def test_applied_twice_is_nothing_to_do(bench: Bench) -> None:
    made = planned(bench)
    applied(bench, made)
    switched = list(bench.light.switched)
    outcome = applied(bench, made)
    assert (outcome.exit, outcome.run) == (Exit.DONE, "")
    assert bench.light.switched == switched


def test_the_plan_is_deterministic(bench: Bench) -> None:
    assert planned(bench).digest == planned(bench).digest


def test_what_a_runbook_bears_does_not_make_its_plan_stale(bench: Bench) -> None:
    made = planned(bench, bears=True)
    bench.light.on.add("a")
    assert applied(bench, made).exit == Exit.DONE
    assert bench.light.on == {"a", "b"}
    bench.light.on.remove("b")
    with pytest.raises(Refused, match="was applied already") as refused:
        applied(bench, made)
    assert refused.value.hint == "plan again: aiprod-ops plan switch-lamps --bears"


def test_a_plan_of_other_code_is_stale_whatever_its_runbook_bears(bench: Bench) -> None:
    made = planned(bench, bears=True)
    bench.light.on.add("a")
    bench.entry = replace(bench.entry, source="another")
    with pytest.raises(Refused, match="stale"):
        applied(bench, made)


def test_moving_facts_do_not_make_a_plan_stale_and_stable_ones_do(bench: Bench) -> None:
    made = planned(bench)
    bench.clock.sleep(100)  # type: ignore[arg-type]
    assert planned(bench).digest == made.digest
    bench.light.on.add("a")
    with pytest.raises(Refused, match="stale: no longer planned: a"):
        applied(bench, made)
    assert bench.light.on == {"a"}
    assert bench.actors == 0, "actor credentials were loaded before the gate"


def test_an_expired_plan_is_not_approved(bench: Bench) -> None:
    made = planned(bench)
    bench.clock.sleep(5 * 3600)  # type: ignore[arg-type]
    with pytest.raises(NotApproved, match="expired"):
        planning.approved(bench.store, bench.world().context, made.digest)


def test_a_plan_is_approved_by_a_prefix_of_its_digest(bench: Bench) -> None:
    made = planned(bench)
    assert planning.approved(bench.store, bench.world().context, made.digest[:12]) == replace(
        made,
        plan=replace(
            made.plan, actions=planning.approved(bench.store, bench.world().context, made.digest).plan.actions
        ),
    )
    for wrong, error in (("0" * 12, NotApproved), ("abc", UsageError), ("../../etc", UsageError)):
        with pytest.raises(error):
            planning.approved(bench.store, bench.world().context, wrong)


def test_an_edited_plan_is_refused(bench: Bench) -> None:
    made = planned(bench)
    name = f"plans/{made.digest}.json"
    content = json.loads(bench.store.content[name])
    content["plan"]["actions"][0]["subject"]["name"] = "z"
    bench.store.content[name] = json.dumps(content).encode()
    with pytest.raises(Broken, match="was edited"):
        planning.approved(bench.store, bench.world().context, made.digest)
    bench.store.content[name] = b"{}"
    with pytest.raises(Broken, match="is not a plan"):
        planning.approved(bench.store, bench.world().context, made.digest)


def test_disproved_on_the_copy_changes_nothing_and_names_what_holds(bench: Bench) -> None:
    made = planned(bench, refuse="b")
    with pytest.raises(Refused, match="disproved on the copy: b: too bright") as refused:
        applied(bench, made)
    assert bench.light.on == set()
    digest = refused.value.hint.split()[-1]
    rest = planning.approved(bench.store, bench.world().context, digest)
    assert [action.name for action in rest.plan.actions] == ["a"]
    assert applied(bench, rest).exit == Exit.DONE
    assert bench.light.on == {"a"}


@pytest.mark.parametrize("given", [{"guard": 1}])
def test_a_guard_refuses(bench: Bench, given: dict[str, Any]) -> None:
    outcome = applied(bench, planned(bench, **given))
    assert outcome.exit == Exit.REFUSED
    assert "guard" in outcome.reason
    assert bench.light.switched == []


def test_held_by_another_run_on_this_machine(bench: Bench) -> None:
    made = planned(bench)
    bench.store.held[made.plan.identity.system_identifier] = "somebody"
    with pytest.raises(Held, match="somebody"):
        applied(bench, made)
    journal = Journal.of(bench.store, bench.clock, runs(bench.store)[-1])
    assert journal.ended == Exit.HELD
    assert bench.light.switched == []


def test_held_by_a_session_of_another_machine(bench: Bench) -> None:
    bench.light.holder = "another"
    outcome = applied(bench, planned(bench))
    assert outcome.exit == Exit.HELD
    assert bench.light.switched == []


@pytest.mark.parametrize("error", [Failed("boom"), Cancelled("cancelled"), KeyError("a bug in a runbook")])
def test_a_failure_is_undone(bench: Bench, error: Exception) -> None:
    bench.light.trouble["b"] = fails(error)
    outcome = applied(bench, planned(bench))
    assert outcome.exit == Exit.UNDONE
    assert bench.light.on == set()
    assert bench.light.switched[-1] == "off a"


def test_a_verification_that_fails_is_undone(bench: Bench) -> None:
    outcome = applied(bench, planned(bench, broken="yes"))
    assert outcome.exit == Exit.UNDONE
    assert "verification failed" in outcome.reason
    assert bench.light.on == set()


def test_an_undo_that_fails_stays_open_and_is_finished_by_resume(bench: Bench) -> None:
    bench.light.trouble |= {"b": fails(Failed("boom")), "-a": fails(Failed("stuck"))}
    with pytest.raises(PartlyApplied) as failed:
        applied(bench, planned(bench))
    assert failed.value.exit_code == Exit.PARTLY
    assert bench.light.on == {"a"}
    bench.light.trouble.clear()
    assert resumed(bench, runs(bench.store)[-1]).exit == Exit.UNDONE
    assert bench.light.on == set()


def test_contact_lost_for_good_is_unknown_and_resume_finds_the_truth(bench: Bench) -> None:
    def lose() -> None:
        bench.light.on.add("b")
        bench.light.lost = 100
        raise Unreachable("gone")

    bench.light.trouble["b"] = lose
    with pytest.raises(OutcomeUnknown) as unknown:
        applied(bench, planned(bench))
    assert unknown.value.exit_code == Exit.UNKNOWN
    assert "aiprod-ops resume" in unknown.value.hint
    bench.light.lost, switched = 0, list(bench.light.switched)
    assert resumed(bench, runs(bench.store)[-1]).exit == Exit.DONE
    assert bench.light.switched == switched, "what was done was done again"


@pytest.mark.parametrize("happened", [True, False])
def test_contact_lost_for_a_moment(bench: Bench, happened: bool) -> None:
    def lose() -> None:
        if happened:
            bench.light.on.add("b")
        bench.light.lost = 2
        raise TimedOut("no answer")

    bench.light.trouble["b"] = lose
    outcome = applied(bench, planned(bench))
    assert outcome.exit == (Exit.DONE if happened else Exit.UNDONE)
    assert bench.light.on == ({"a", "b"} if happened else set())


def test_a_breach_cancels_and_undoes(bench: Bench) -> None:
    seen = threading.Event()

    def slow() -> None:
        seen.wait(5)
        raise Cancelled("cancelled")

    bench.light.trouble["a"] = slow
    world = bench.world()
    original = world.open_actor

    def open_actor(run: str) -> Any:
        actor = original(run)
        actor.cancelled = seen
        return actor

    outcome = apply(replace(world, open_actor=open_actor), bench.entry, planned(bench, watch=1), "--apply")
    assert outcome.exit == Exit.UNDONE
    assert outcome.reason == "watch is 1"
    assert bench.light.on == set()


@pytest.mark.parametrize(("signal", "code"), [(2, Exit.INTERRUPTED), (15, Exit.TERMINATED)])
def test_a_signal_before_the_first_action(bench: Bench, signal: int, code: Exit) -> None:
    made, world = planned(bench), bench.world()
    world.stop.signal = signal
    assert apply(world, bench.entry, made, "--apply").exit == code
    assert bench.light.switched == []


def test_a_signal_between_actions_undoes(bench: Bench) -> None:
    made, world = planned(bench), bench.world()
    bench.light.trouble["b"] = lambda: setattr(world.stop, "signal", 2)
    assert apply(world, bench.entry, made, "--apply").exit == Exit.UNDONE or bench.light.on == {"a", "b"}


def test_a_full_disk_before_the_first_intent_changes_nothing(bench: Bench) -> None:
    made = planned(bench)
    original = bench.store.append

    def append(name: str, data: bytes) -> None:
        if b'"kind":"intended"' in data:
            bench.store.full = True
        original(name, data)

    bench.store.append = append  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"No space left.*nothing was changed"):
        applied(bench, made)
    assert bench.light.switched == []
    bench.store.full = False
    bench.store.append = original  # type: ignore[method-assign]
    assert resumed(bench, runs(bench.store)[-1]).exit == Exit.DONE


def test_a_full_disk_after_an_act_is_unknown_until_resume(bench: Bench) -> None:
    made = planned(bench)
    bench.light.trouble["a"] = lambda: setattr(bench.store, "full", True)
    with pytest.raises(OutcomeUnknown, match="No space left"):
        applied(bench, made)
    bench.store.full = False
    bench.light.trouble.clear()
    assert resumed(bench, runs(bench.store)[-1]).exit == Exit.DONE


def test_a_full_disk_while_proving_names_resume_which_tells_what_was_proven(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    made = planned(bench)
    copy = bench.platform.copy

    @contextmanager
    def full(name: str, report: Any = None, origin: Any = None) -> Any:
        with copy(name) as made:
            yield made
        bench.store.full = True

    bench.platform.copy = full  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"No space left.*nothing was changed") as caught:
        applied(bench, made)
    (run,) = runs(bench.store)
    assert caught.value.hint == f"make room there, then: aiprod-ops resume {run}"
    bench.store.full, bench.platform.copy = False, copy  # type: ignore[method-assign]
    for _ in range(2):  # one that has ended tells the same
        assert outcomes.tell_outcome(bench.world(), resumed(bench, run), "text", NOWHERE) == Exit.DONE
        assert capsys.readouterr().out.startswith("PROVEN, nothing was changed")


def test_a_full_disk_of_the_copy_alone_ends_the_proof(bench: Bench) -> None:
    made = planned(bench)

    @contextmanager
    def full(name: str, report: Any = None, origin: Any = None) -> Any:
        raise OSError(28, "No space left on device", "/copies/base")
        yield

    bench.platform.copy = full  # type: ignore[method-assign]
    with pytest.raises(Refused, match=r"/copies/base: No space left.*nothing was changed") as caught:
        applied(bench, made)
    assert caught.value.hint == "make room there, then: try again"
    (run,) = runs(bench.store)
    assert Journal(bench.store, bench.clock, run).ended == Exit.REFUSED


def killed() -> None:
    raise Killed


def test_a_plan_that_its_own_interrupted_run_made_stale_names_resume(bench: Bench) -> None:
    made = planned(bench)
    bench.light.trouble["b"] = killed
    with pytest.raises(Killed):
        applied(bench, made)
    bench.light.trouble.clear()
    run = runs(bench.store)[-1]
    with pytest.raises(Refused, match=f"is stale: no longer planned: a; its run {run} was interrupted") as caught:
        applied(bench, made)
    assert caught.value.hint == f"aiprod-ops resume {run}"
    assert resumed(bench, run).exit == Exit.DONE


def records_of(scenario: Callable[[Bench], Any], bench: Bench) -> int:
    bench.store.kill_after = 10**9
    before = 10**9
    scenario(bench)
    return before - bench.store.kill_after


def good(bench: Bench) -> None:
    applied(bench, planned(bench))


def failing(bench: Bench) -> None:
    bench.light.trouble["b"] = fails(Failed("boom"))
    applied(bench, planned(bench))


@pytest.mark.parametrize("point", range(1, 20))
@pytest.mark.parametrize(
    ("scenario", "code", "lit"), [(good, Exit.DONE, {"a", "b"}), (failing, Exit.UNDONE, set())], ids=["good", "failing"]
)
def test_killed_after_each_record_and_resumed(
    bench: Bench, scenario: Callable[[Bench], None], code: Exit, lit: set[str], point: int
) -> None:
    bench.store.kill_after = point
    try:
        scenario(bench)
    except Killed:
        bench.store.kill_after = 10**9
    else:
        assert point > 8, "the scenario writes fewer records than expected"
        return
    run = runs(bench.store)[-1]
    outcome = resumed(bench, run)
    opening = Journal.of(bench.store, bench.clock, run).opening
    if opening["kind"] == "prove":
        assert outcome.exit == Exit.DONE
        assert bench.light.on == set()
        return
    assert outcome.exit == code
    assert bench.light.on == lit
    assert bench.light.switched.count("on a") == 1, "what was done was done again"
    assert Archive(bench.store).faults() == []
    assert resumed(bench, run).exit == code, "a second resume answers how it ended"


def test_killed_inside_an_action_and_resumed(bench: Bench) -> None:
    for happened in (True, False):
        bench.light.on.clear()
        bench.light.switched.clear()

        def die(happened: bool = happened) -> None:
            if happened:
                bench.light.on.add("b")
            raise Killed

        bench.light.trouble["b"] = die
        with pytest.raises(Killed):
            applied(bench, planned(bench))
        bench.light.trouble.clear()
        assert resumed(bench, runs(bench.store)[-1]).exit == Exit.DONE
        assert bench.light.on == {"a", "b"}
        assert bench.light.switched.count("on b") == (1 if happened else 2)


@pytest.mark.parametrize("undone", [False, True])
def test_an_operation_of_the_platform_is_waited_for_before_anything_else(bench: Bench, undone: bool) -> None:
    made, world = planned(bench), bench.world()

    def begin() -> None:
        world.operations.begun("ON on a", "operation-1")
        world.operations.ended("operation-1")
        world.operations.begun("ON on b", "operation-2")
        raise Killed

    bench.light.trouble["b"] = begin
    with pytest.raises(Killed):
        apply(world, bench.entry, made, "--apply")
    bench.light.trouble["b"] = lambda: bench.platform.attached.append("acted")
    run = runs(bench.store)[-1]
    if undone:
        journal = Journal.of(bench.store, bench.clock, run)
        assert roll_back(bench.world(), bench.entry, journal, None, "").exit == Exit.DONE
        assert bench.light.on == set()
    else:
        assert resumed(bench, run).exit == Exit.DONE
        assert bench.light.on == {"a", "b"}
    assert bench.platform.attached[0] == "operation-2"


def test_while_an_operation_cannot_be_seen_the_outcome_is_unknown(bench: Bench) -> None:
    made, world = planned(bench), bench.world()

    def begin() -> None:
        world.operations.begun("ON on b", "operation-1")
        raise Killed

    bench.light.trouble["b"] = begin
    with pytest.raises(Killed):
        apply(world, bench.entry, made, "--apply")
    bench.light.trouble.clear()
    run = runs(bench.store)[-1]
    bench.platform.unseen = Unreachable("the API does not answer")
    with pytest.raises(OutcomeUnknown, match="the outcome of b is unknown: the API does not answer"):
        resumed(bench, run)
    bench.platform.unseen = None
    assert resumed(bench, run).exit == Exit.DONE


def test_a_torn_last_line_is_dropped_and_a_broken_chain_is_refused(bench: Bench) -> None:
    bench.store.kill_after = 8
    with pytest.raises(Killed):
        good(bench)
    bench.store.kill_after = 10**9
    run = runs(bench.store)[-1]
    name = f"runs/{run}/journal.jsonl"
    whole = bench.store.content[name]
    bench.store.content[name] = whole.replace(b'"by":"tester@host"', b'"by":"mallory@host"')
    with pytest.raises(Broken, match="line 1 of the journal was altered"):
        resumed(bench, run)
    bench.store.content[name] = whole + b'{"n":99,"at":"20'
    assert resumed(bench, run).exit == Exit.DONE


def test_a_run_is_rolled_back(bench: Bench) -> None:
    world = bench.world()
    outcome = applied(bench, planned(bench))
    journal = Journal.of(bench.store, bench.clock, outcome.run)
    draft = undo_draft(world, bench.entry, journal)
    back = roll_back(world, bench.entry, journal, draft, "--apply")
    assert back.exit == Exit.DONE
    assert bench.light.on == set()
    assert bench.light.switched[-2:] == ["off b", "off a"]
    assert [r.body["kind"] for _, r in Archive(bench.store).read() if r] == ["prove", "run", "rollback"]


def test_an_unfinished_run_is_rolled_back_in_its_own_journal(bench: Bench) -> None:
    bench.light.trouble["b"] = lambda: (_ for _ in ()).throw(Killed())
    with pytest.raises(Killed):
        applied(bench, planned(bench))
    assert bench.light.on == {"a"}
    journal = Journal.of(bench.store, bench.clock, runs(bench.store)[-1])
    assert roll_back(bench.world(), bench.entry, journal, None, "").exit == Exit.DONE
    assert bench.light.on == set()


def test_altered_and_missing_evidence_is_named(bench: Bench) -> None:
    applied(bench, planned(bench))
    archive = Archive(bench.store)
    names = [name for name, _ in archive.read()]
    kept = dict(bench.store.content)
    first = f"evidence/{names[0]}"
    bench.store.content[first] = kept[first].replace(b'"by":"tester@host"', b'"by":"mallory@host"')
    assert archive.faults() == [f"{names[0]}: was altered after it was sealed"]
    bench.store.content = {name: data for name, data in kept.items() if name != first}
    assert "is gone" in archive.faults()[0]
    bench.store.content = {name: data for name, data in kept.items() if name != f"evidence/{names[1]}"}
    assert "names record 2, the last one here is 1" in archive.faults()[0]


def test_an_actor_in_another_database_is_refused_before_the_first_action(bench: Bench) -> None:
    made, world = planned(bench), bench.world()

    def elsewhere(run: str) -> Any:
        actor = bench.world().open_actor(run)
        actor.server = lambda: replace(world.context.db.server(), database="twin")  # type: ignore[method-assign]
        return actor

    outcome = apply(replace(world, open_actor=elsewhere), bench.entry, made, "--apply")
    assert outcome.exit == Exit.REFUSED
    assert "the actor is in the database twin" in outcome.reason
    assert bench.light.switched == []


@pytest.mark.parametrize("way", ["killed", "fails", "is stopped"])
def test_a_rollback_that_was_begun_only_goes_forward(bench: Bench, way: str) -> None:
    world = bench.world()
    journal = Journal.of(bench.store, bench.clock, applied(bench, planned(bench)).run)
    draft = undo_draft(world, bench.entry, journal)

    def trouble() -> None:
        if way == "killed":
            raise Killed
        if way == "fails":
            raise Failed("the switch is stuck")
        world.stop.signal = 15

    bench.light.trouble["-a" if way != "is stopped" else "-b"] = trouble
    with pytest.raises(Killed if way == "killed" else PartlyApplied) as stopped:
        roll_back(world, bench.entry, journal, draft, "--apply")
    run = runs(bench.store)[-1]
    if way != "killed":
        assert f"aiprod-ops resume {run}" in stopped.value.hint
    reverse = Journal.of(bench.store, bench.clock, run)
    assert (reverse.ended, bench.light.on) == (None, {"a"})
    with pytest.raises(Refused, match="it is finished, not taken back"):
        roll_back(bench.world(), bench.entry, reverse, None, "")
    bench.light.trouble.clear()
    assert resumed(bench, run).exit == Exit.DONE
    assert bench.light.on == set()


def test_what_others_changed_since_is_no_reason_to_call_a_rollback_failed(bench: Bench) -> None:
    world = bench.world()
    journal = Journal.of(bench.store, bench.clock, applied(bench, planned(bench)).run)
    draft = undo_draft(world, bench.entry, journal)
    bench.light.wanted.add("c")
    assert roll_back(world, bench.entry, journal, draft, "--apply").exit == Exit.DONE
    (told,) = [f for f in Archive(bench.store).bodies(kind="rollback")[0].body["verification"] if f["value"]]
    assert "by others" in told["note"]


def test_a_run_is_rolled_back_once(bench: Bench) -> None:
    world = bench.world()
    journal = Journal.of(bench.store, bench.clock, applied(bench, planned(bench)).run)
    roll_back(world, bench.entry, journal, undo_draft(world, bench.entry, journal), "--apply")
    bench.light.on.add("a")
    with pytest.raises(Refused, match="was rolled back already"):
        undo_draft(world, bench.entry, journal)
    assert bench.light.on == {"a"}, "what somebody else switched on stays"


def test_a_killed_proof_is_ended_by_rollback_and_the_plan_can_be_proven_again(bench: Bench) -> None:
    made = planned(bench)
    bench.store.kill_after = 1
    with pytest.raises(Killed):
        applied(bench, made)
    bench.store.kill_after = 10**9
    journal = Journal.of(bench.store, bench.clock, runs(bench.store)[-1])
    assert journal.opening["kind"] == "prove"
    assert roll_back(bench.world(), bench.entry, journal, None, "").exit == Exit.DONE
    assert applied(bench, made).exit == Exit.DONE


def test_the_newest_proof_of_a_plan_decides(bench: Bench) -> None:
    made = planned(bench)
    light = bench.platform.copy

    @contextmanager
    def another(name: str, report: Any = None, origin: Any = None) -> Any:
        with light(name) as (database, restored):
            database.server = lambda: replace(bench.world().context.db.server(), database="twin")  # type: ignore[method-assign]
            yield database, restored

    bench.platform.copy = another  # type: ignore[method-assign]
    with pytest.raises(Refused, match="the copy is of the database twin"):
        applied(bench, made)
    bench.platform.copy = light  # type: ignore[method-assign]
    assert applied(bench, made).exit == Exit.DONE


def test_evidence_that_is_gone_altogether_is_missed_by_the_journals(bench: Bench) -> None:
    applied(bench, planned(bench))
    for name in bench.store.names("evidence/"):
        del bench.store.content[name]
    assert any("its evidence is gone" in fault for fault in Archive(bench.store).faults())
