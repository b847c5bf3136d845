"""What a check keeps for the next one, and what it tells of the last: new, gone, waived; a full disk, altered files."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from memory_world import Bench

from aiprod_ops.domain.findings import Status, Waiver
from aiprod_ops.engine import history
from aiprod_ops.engine.history import History
from aiprod_ops.engine.planning import Checked, check, draft, recompute
from aiprod_ops.engine.registry import Entry, find
from aiprod_ops.engine.runbook import Context

DAWN = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def entry() -> Entry:
    return find([Path(__file__).parent / "books"])["watch-lamps"]


def context(bench: Bench, *waivers: Waiver) -> Context:
    return replace(bench.world().context, waivers=waivers)


def look(bench: Bench, entry: Entry, *waivers: Waiver) -> Checked:
    made = context(bench, *waivers)
    return check(entry, made, entry.read_params({}, made.promises))


def test_the_first_check_compares_with_nothing(bench: Bench, entry: Entry) -> None:
    first = look(bench, entry)
    assert (first.since, first.new, first.gone) == (None, (), ())
    assert first.status is Status.WARNING


def test_the_next_check_tells_what_is_new_and_what_is_gone(bench: Bench, entry: Entry) -> None:
    look(bench, entry)
    bench.light.on.add("a")
    bench.light.wanted.add("c")
    second = look(bench, entry)
    assert second.since is not None
    assert second.since < bench.clock.now()
    assert (second.new, second.gone) == (("lamp:c",), ("lamp:a",))
    assert second.were == {}, "the rows of a table all measure the same: its id tells more"
    assert second.findings[0].value == 2, "what the runbook kept"
    third = look(bench, entry)
    assert (third.new, third.gone) == ((), ())


def test_targets_do_not_share_a_history(bench: Bench, entry: Entry) -> None:
    look(bench, entry)
    other = replace(context(bench), history=History(bench.store, "other/../target", timedelta(days=1)))
    assert check(entry, other, entry.read_params({}, other.promises)).since is None
    assert [name for name in bench.store.names("history/") if ".." in name.split("/")] == []


def test_a_full_disk_stops_no_check(bench: Bench, entry: Entry) -> None:
    look(bench, entry)
    bench.store.full = True
    bench.light.on.add("a")
    second = look(bench, entry)
    assert second.gone == ("lamp:a",)
    assert "not kept" in bench.said[-1]
    assert "No space left on device" in bench.said[-1]


def test_a_waived_finding_is_ok_and_still_told(bench: Bench, entry: Entry) -> None:
    waiver = Waiver("lamp:a", date(2026, 11, 21), "the bulb is ordered")
    bench.light.on.add("b")
    seen = look(bench, entry, waiver)
    assert seen.status is Status.OK
    (lamp,) = [finding for finding in seen.findings if finding.id == "lamp:a"]
    assert (lamp.status, lamp.judged) == (Status.OK, Status.WARNING)
    assert lamp.waived == "until 2026-11-21: the bulb is ordered"
    assert look(bench, entry).new == (), "a fault that was waived is no new one when the waiver ends"
    bench.clock.sleep(86400.0)  # type: ignore[arg-type]
    late = look(bench, entry, waiver)
    assert late.status is Status.WARNING
    assert "expired on 2026-11-21" in late.findings[1].note


def test_a_waiver_of_another_target_waives_nothing(bench: Bench, entry: Entry) -> None:
    elsewhere = Waiver("lamp:a", date(2030, 1, 1), "theirs", target="other")
    assert look(bench, entry, elsewhere).status is Status.WARNING


def test_the_plan_leaves_out_what_answers_a_waived_finding(bench: Bench, entry: Entry) -> None:
    made = context(bench, Waiver("lamp:a", date(2030, 1, 1), "the bulb is ordered"))
    params = entry.read_params({}, made.promises)
    drawn = draft(entry, made, params, by="tester")
    assert [action.name for action in drawn.plan.actions] == ["b"]
    assert (drawn.plan.without, drawn.accepted) == (("a",), ("a",))
    assert recompute(entry, made, params, drawn).digest == drawn.digest
    assert recompute(entry, context(bench), params, drawn).digest == drawn.digest, "the waiver may end before the run"
    both = draft(entry, made, params, by="tester", without=["b"])
    assert (both.plan.without, both.accepted) == (("a", "b"), ("a",))


def test_old_snapshots_are_thinned_to_one_a_day_and_end(bench: Bench) -> None:
    kept = History(bench.store, "lab", timedelta(days=30))
    for hours in range(0, 40 * 24, 6):
        kept.keep("lamps", DAWN + timedelta(hours=hours), hours)
    last = DAWN + timedelta(hours=40 * 24 - 6)
    times = [snapshot.taken for snapshot in kept.all("lamps")]
    assert times == sorted(times)
    assert times[0] >= last - timedelta(days=30)
    old = [time for time in times if last - time > timedelta(days=2)]
    assert len(old) == len({time.date() for time in old})
    assert len([time for time in times if time not in old]) == 9, "all of the last two days"
    assert kept.last("lamps").value == 40 * 24 - 6  # type: ignore[union-attr]
    earlier = kept.last("lamps", before=last - timedelta(days=1))
    assert earlier is not None
    assert earlier.taken < last - timedelta(days=1)
    assert kept.last("nothing") is None


@pytest.mark.parametrize(
    ("since", "hours"),
    [(timedelta(hours=-1), [0, 5, 10]), (timedelta(hours=5), [0, 5, 10]), (timedelta(hours=7), [5, 10]),
     (timedelta(hours=99), [10])],
)  # fmt: skip
def test_a_window_begins_with_the_last_snapshot_before_it(bench: Bench, since: timedelta, hours: list[int]) -> None:
    kept = History(bench.store, "lab", timedelta(days=30))
    for each in (0, 5, 10):
        kept.keep("lamps", DAWN + timedelta(hours=each), each)
    assert [snapshot.value for snapshot in kept.all("lamps", since=DAWN + since)] == hours


def test_an_altered_snapshot_counts_for_nothing_and_is_named(bench: Bench, entry: Entry) -> None:
    look(bench, entry)
    assert history.faults(bench.store) == []
    for name in bench.store.names("history/"):
        bench.store.content[name] = bench.store.content[name].replace(b"lamp:a", b"lamp:x")
    (fault,) = history.faults(bench.store)
    assert "findings.watch-lamps" in fault
    assert look(bench, entry).since is None
    bench.store.content["history/lab/lamps/20261121T000000.000000Z.json"] = b"no JSON at all"
    bench.store.content["history/lab/lamps/notes.json"] = b"{}"
    assert len(history.faults(bench.store)) == 3
    look(bench, entry)
    assert "history/lab/lamps/notes.json" in bench.store.content, "not ours to remove"
