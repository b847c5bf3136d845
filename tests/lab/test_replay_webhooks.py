"""Failed deliveries are sent again: each once, in waves, to whoever takes them; what is not sent stays as it was."""

import json
import signal
import threading
from collections.abc import Iterator

import pytest
from called import called
from command_line import Bench, Done, short_folder, until
from pumped import pumped
from sent_webhooks import PATH, PAYLOAD, SECRET, Hooks

from aiprod_ops.cli.conform import on_bench
from aiprod_ops.cli.options import NOWHERE
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab.conformance import PROMISES
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.promises import Promise, Verdict, hold

pytestmark = pytest.mark.lab
BOOK = "replay-webhooks"
FAST = ("--rate", "1000")
QUICK = ("probe-writes-nothing", "apply-once", "imports")  #: the others kill and repeat, which takes its time
PROMISED = [pytest.param(p, id=p.id, marks=() if p.id in QUICK else pytest.mark.soak) for p in PROMISES]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with short_folder() as folder:
        yield fleets.up(folder / "lab", 1_000, revision="head", workload=False)
        fleets.down(folder / "lab")


@pytest.fixture
def hooks(fleet: Fleet) -> Iterator[Hooks]:
    made = Hooks(Bench(fleet.config, fleet.dsn("postgres"), fleet))
    yield made
    made.clear()


def planned(hooks: Hooks, *options: str) -> str:
    made = called(hooks.bench.config, "plan", BOOK, "-o", "json", *FAST, *options)
    assert made.exit == 0, made.said
    return str(made.json()["digest"])


def applied(hooks: Hooks, digest: str) -> Done:
    return called(hooks.bench.config, "run", BOOK, "--apply", digest)


def evidence(hooks: Hooks) -> dict[str, dict[str, object]]:
    """What the last run's verification found, by id."""
    newest = max(hooks.bench.state.glob("evidence/0*.json"))
    return {each["id"]: each for each in json.loads(newest.read_text())["body"]["verification"]}


def test_each_is_sent_once_in_waves_and_what_was_delivered_is_not(hooks: Hooks) -> None:
    first, second = hooks.endpoint("one.example"), hooks.endpoint("two.example")
    failed = hooks.ended(first, 25) + hooks.ended(second, 3, status=500)
    delivered = hooks.ended(first, 4, "delivered", 200)
    seen = called(hooks.bench.config, "check", BOOK)
    assert seen.exit == 2, seen.said
    assert "HTTP 503: 25, HTTP 500: 3" in seen.out
    rows = [line.split()[:2] for line in seen.out.splitlines() if ".example" in line]
    assert rows == [["WARNING", "one.example"], ["WARNING", "two.example"]]
    digest = planned(hooks)
    dry = called(hooks.bench.config, "run", BOOK, *FAST, "--dry-run")
    assert "make 2 deliveries due again" in dry.out, dry.said
    assert "make 24 deliveries due again, 1000 a second, oldest first: 22 to one.example, 2 to two.example" in dry.out
    assert "UTC to one.example, HTTP 503" in dry.out
    assert [word for word in (PATH, PAYLOAD, SECRET) if word in dry.said + seen.said] == []
    with hooks.pump():
        done = applied(hooks, digest)
    assert done.exit == 0, done.said
    assert hooks.attempts(failed) == [1] * 28
    assert hooks.attempts(delivered) == [0] * 4
    assert set(hooks.sent[:2]) == {failed[0], failed[25]}
    assert set(hooks.sent[2:4]) == {failed[1], failed[2]}, "a tenth of 25 is 3, one of which was the first"
    told = evidence(hooks)
    note = "one.example: 25 planned, 25 sent, 25 delivered, 0 failed again"
    assert (told[f"endpoint:{first}"]["value"], told[f"endpoint:{first}"]["note"]) == (25, note)
    assert "28 planned, 28 sent, 28 delivered, 0 failed again" in str(told["failed"]["note"])
    again = applied(hooks, digest)
    assert (again.exit, "Nothing was changed" in again.out) in ((0, True), (10, False)), again.said


def test_an_endpoint_that_fails_again_gets_one_and_the_run_stops(hooks: Hooks) -> None:
    endpoint = hooks.endpoint("down.example")
    failed = hooks.ended(endpoint, 20)
    before = hooks.rows(failed[1:])
    with hooks.pump({endpoint: 503}):
        done = applied(hooks, planned(hooks))
    assert done.exit == 21, done.said
    assert "down.example took 0 of 1" in done.said
    assert hooks.sent == failed[:1]
    assert hooks.rows(failed[1:]) == before


def test_where_one_endpoint_fails_again_the_others_go_on(hooks: Hooks) -> None:
    good, bad = hooks.endpoint("good.example"), hooks.endpoint("bad.example")
    sent, left = hooks.ended(good, 30), hooks.ended(bad, 10)
    with hooks.pump({bad: 500}):
        done = applied(hooks, planned(hooks))
    assert done.exit == 0, done.said
    assert hooks.attempts(sent) == [1] * 30
    assert hooks.attempts(left) == [1] + [0] * 9
    told = evidence(hooks)
    assert told["left"]["value"] == 9
    assert str(told["left"]["note"]).startswith("failing again: bad.example")


def test_an_endpoint_that_fails_again_within_a_wave_gets_no_more_of_it(hooks: Hooks) -> None:
    """And the others go on; what it was not sent is as it had ended."""
    good, bad = hooks.endpoint("good.example"), hooks.endpoint("bad.example")
    sent, held = list[str](), list[str]()
    for _ in range(10):
        sent, held = sent + hooks.ended(good, 10), held + hooks.ended(bad, 10)
    before, answers = {row[0]: row for row in hooks.rows(held)}, {bad: 200}

    def fall(_: str) -> None:
        if len(hooks.sent) == 22:  # in the last wave
            answers[bad] = 503

    with hooks.pump(answers, most=2, after=fall):
        done = applied(hooks, planned(hooks, "--success", "0.5"))
    assert done.exit == 0, done.said
    assert hooks.attempts(sent) == [1] * 100
    tried = {each for each in hooks.sent if each in before}
    assert 20 < len(tried) < 90, done.said
    kept = [(row[1], row[4], row[5]) for row in hooks.rows(held) if row[0] not in tried]
    assert kept == [(row[1], row[4], row[5]) for row in before.values() if row[0] not in tried]
    assert evidence(hooks)["left"]["value"] == 100 - len(tried)
    left = f"planned deliveries that were not sent: {100 - len(tried)} (failing again: bad.example; "
    assert f"verified     WARNING  {left}" in done.out
    assert f"wave 3 of 3, 180 deliveries\n{'':<15}{len(hooks.sent) - 20} sent, " in done.out


def test_what_is_cancelled_meanwhile_was_not_sent(hooks: Hooks) -> None:
    failed = hooks.ended(hooks.endpoint("one.example"), 30)
    cancel = "UPDATE webhook_deliveries SET state = 'cancelled', ended_at = now() WHERE id = ANY(%(ids)s::uuid[])"
    with hooks.pump(
        most=1, after=lambda each: hooks.bench.sql(cancel, {"ids": failed[25:]}) if each == failed[5] else None
    ):
        done = applied(hooks, planned(hooks))
    assert done.exit == 0, done.said
    told = evidence(hooks)
    assert "30 planned, 25 sent, 25 delivered, 0 failed again" in str(told["failed"]["note"])
    assert told["left"]["value"] == 5


def test_an_endpoint_that_comes_back_meanwhile_gets_its_part(hooks: Hooks) -> None:
    good, late = hooks.endpoint("good.example"), hooks.endpoint("late.example")
    sent, held = hooks.ended(good, 30), hooks.ended(late, 10)
    answers = {late: 500}
    taken = "UPDATE webhook_deliveries SET state = 'delivered' WHERE id = %(id)s"

    def come_back(_: str) -> None:
        if len(hooks.sent) == 12:  # in the last wave: what it was sent first is delivered when it is tried again
            answers[late] = 200
            hooks.bench.sql(taken, {"id": held[0]})

    with hooks.pump(answers, after=come_back):
        done = applied(hooks, planned(hooks))
    assert done.exit == 0, done.said
    assert hooks.attempts(sent + held) == [1] * 40
    assert hooks.states(held) == {"delivered": 10}


def test_where_nobody_sends_all_is_as_it_was(hooks: Hooks) -> None:
    failed = hooks.ended(hooks.endpoint("quiet.example"), 12)
    before = hooks.rows(failed)
    digest = planned(hooks, "--patience", "1s")
    done = applied(hooks, digest)
    assert done.exit == 20, done.said
    assert "nobody sends: 1 delivery of wave 1" in done.said
    assert [(row[1], row[4], row[5]) for row in hooks.rows(failed)] == [("failed", None, None)] * 12
    assert hooks.rows(failed[1:]) == before[1:]
    assert hooks.states(failed) == {"failed": 12}


def test_killed_in_a_wave_and_resumed_nothing_is_sent_twice(hooks: Hooks) -> None:
    failed = hooks.ended(hooks.endpoint("busy.example"), 60)
    digest = planned(hooks)
    going, at_work = hooks.bench.start("run", BOOK, "--apply", digest), threading.Event()
    with hooks.pump(most=1, after=lambda _: at_work.set() if len(hooks.sent) > 15 else None):
        until(at_work.is_set, "the last wave is on its way")
        going.kill()
        (run,) = hooks.bench.unfinished()
        done = called(hooks.bench.config, "resume", run)
    assert done.exit == 0, done.said
    assert hooks.attempts(failed) == [1] * 60


def test_a_worker_sends_what_was_made_due(hooks: Hooks) -> None:
    """Over HTTP, with the ids that receivers know; who still fails gets no more than one, and its retries."""
    with pumped(hooks.bench.fleet) as receivers:
        receivers.answers["bad"] = 503
        good = hooks.endpoint("", url=receivers.url("good"))
        bad = hooks.endpoint("", url=receivers.url("bad"))
        taken, left = hooks.ended(good, 40), hooks.ended(bad, 15)
        done = applied(hooks, planned(hooks, "--patience", "2s"))
    assert done.exit == 0, done.said
    events = dict(hooks.bench.sql("SELECT id::text, event_id::text FROM webhook_deliveries"))
    assert sorted(receivers.got["good"]) == sorted(events[each] for each in taken)
    assert set(receivers.got["bad"]) == {events[left[0]]}
    assert hooks.states(taken) == {"delivered": 40}
    assert hooks.states(left[1:]) == {"failed": 14}


def test_stopped_by_hand_what_was_not_sent_is_put_back(hooks: Hooks) -> None:
    failed = hooks.ended(hooks.endpoint("busy.example"), 60)
    before = hooks.rows(failed)
    going, at_work = hooks.bench.start("run", BOOK, "--apply", planned(hooks)), threading.Event()
    with hooks.pump(most=1, after=lambda _: at_work.set() if len(hooks.sent) > 10 else None):
        until(at_work.is_set, "the last wave is on its way")
        going.process.send_signal(signal.SIGINT)
        done = going.done()
    assert done.exit == 21, done.said
    sent = set(hooks.sent)
    assert 10 < len(sent) < 60
    first = "undone       replay-wave wave 1 of 3, 1 delivery"
    assert f"{first}\n{'':<15}1 sent, 1 delivered, 0 failed again, 0 not sent" in done.out
    assert f" {60 - len(sent)} not sent\n" in done.out
    assert hooks.states(failed) == {"delivered": len(sent), "failed": 60 - len(sent)}
    kept = [(row[0], row[1], row[4], row[5]) for row in hooks.rows(failed) if row[0] not in sent]
    assert kept == [(row[0], row[1], row[4], row[5]) for row in before if row[0] not in sent]


def test_what_somebody_else_replays_meanwhile_is_not_touched(hooks: Hooks) -> None:
    """Neither before the first wave nor between two: the others are sent. Where all have moved the plan is stale."""
    failed = hooks.ended(hooks.endpoint("shared.example"), 30)
    digest = planned(hooks)
    moved = "UPDATE webhook_deliveries SET state = 'delivered', ended_at = now() WHERE id = %(id)s"
    hooks.bench.sql(moved, {"id": failed[5]})
    with hooks.pump(after=lambda each: hooks.bench.sql(moved, {"id": failed[20]}) if each == failed[0] else None):
        done = applied(hooks, digest)
    assert done.exit == 0, done.said
    assert hooks.attempts(failed) == [int(n not in (5, 20)) for n in range(30)]
    others = hooks.ended(hooks.endpoint("other.example"), 2)
    digest = planned(hooks)
    for each in others:
        hooks.bench.sql(moved, {"id": each})
    newer = hooks.ended(hooks.endpoint("newer.example"), 2)
    stale = applied(hooks, digest)
    assert stale.exit in (0, 10), stale.said
    assert "Nothing was changed" in stale.said or "is stale" in stale.said
    assert hooks.attempts(newer) == [0, 0]


def test_what_is_asked_for(hooks: Hooks) -> None:
    """By endpoint, event and age; also what was delivered; so many in one run. What is disabled is told and left."""
    first, off = hooks.endpoint("one.example"), hooks.endpoint("off.example", "disabled")
    hooks.ended(first, 5, event="job.failed")
    hooks.ended(first, 2, "delivered", 200)
    hooks.ended(off, 3)

    def counted(*options: str) -> int:
        made = called(hooks.bench.config, "plan", BOOK, "-o", "json", *options)
        assert made.exit == 0, made.said
        return sum(len(action["subject"]["deliveries"]) for action in made.json()["plan"]["actions"])

    assert counted("--endpoint", "one.example", "--delivered") == 7
    assert counted("--event", "job.failed", "--endpoint", first) == 5
    assert counted("--event", "job.completed", "--most", "3") == 0
    assert counted("--since", "0s") == 0
    told = called(hooks.bench.config, "plan", BOOK, "--most", "3").out
    assert "left out  2 more deliveries: one run takes 3 (--most)" in told
    seen = called(hooks.bench.config, "check", BOOK).out
    assert f"endpoints disabled for failing: 1 (off.example ({off}) since " in seen
    assert "failed deliveries that can be sent again: 5 (aiprod-ops plan replay-webhooks" in seen
    assert f"left out  off.example ({off}): 3 deliveries: it is disabled for failing; its owner enables it" in told


def test_what_came_while_an_endpoint_was_disabled_can_be_sent_again(hooks: Hooks) -> None:
    """As the service writes it now, and as it did before its schema forbade it: without its end."""
    off = hooks.endpoint("off.example", "disabled")
    kept = hooks.ended(off, 4)
    hooks.bench.sql("DELETE FROM webhook_attempts")
    hooks.bench.sql("ALTER TABLE webhook_deliveries DROP CONSTRAINT webhook_deliveries_ended")
    hooks.bench.sql("UPDATE webhook_deliveries SET ended_at = NULL WHERE id = %(id)s", {"id": kept[0]})
    seen = called(hooks.bench.config, "check", BOOK)
    assert "not sent: 4" in seen.out, seen.said
    hooks.bench.sql("UPDATE webhook_endpoints SET state = 'enabled', why_disabled = NULL")
    with hooks.pump():
        done = applied(hooks, planned(hooks))
    assert (done.exit, hooks.states(kept)) == (0, {"delivered": 4}), done.said
    ended = "CHECK ((state = 'pending') = (ended_at IS NULL))"
    hooks.bench.sql(f"ALTER TABLE webhook_deliveries ADD CONSTRAINT webhook_deliveries_ended {ended}")


def test_what_is_counted_is_what_would_be_sent_again(hooks: Hooks) -> None:
    """Tests and probes of endpoints are not, unless they are asked for; nor what is not asked for."""
    first, second = hooks.endpoint("one.example"), hooks.endpoint("two.example")
    for endpoint, count, state in ((first, 4, "failed"), (first, 1, "delivered"), (second, 3, "failed")):
        hooks.ended(endpoint, count, state)
    hooks.ended(first, 10, event="endpoint.test")
    hooks.ended(second, 20, "delivered", event="endpoint.disabled")
    hooks.ended(hooks.endpoint("off.example", "disabled"), 6)

    def told(*options: str) -> str:
        return called(hooks.bench.config, "check", BOOK, *options).out

    assert "13 of 14 in 24.0 h; HTTP 503: 13; within 60.0 min: 13" in told()
    hooks.bench.sql("UPDATE webhook_endpoints SET why_disabled = 'owner' WHERE state = 'disabled'")
    assert "7 of 8 in 24.0 h; HTTP 503: 7; within 60.0 min: 7" in told()
    held = "UPDATE webhook_deliveries d SET state = 'pending', ended_at = NULL FROM webhook_endpoints e"
    hooks.bench.sql(f"{held} WHERE e.id = endpoint_id AND e.state = 'disabled'")
    assert "deliveries that wait for disabled endpoints: 6 (sent when " in told()
    assert "4 of 5 in 24.0 h; HTTP 503: 4; within 60.0 min: 4" in told("--endpoint", "one.example")
    assert "10 of 10 in 24.0 h" in told("--event", "endpoint.test")


def test_a_drill_sends_nothing_of_others_and_holds_beside_a_worker(hooks: Hooks) -> None:
    with pumped(hooks.bench.fleet) as receivers:
        others = hooks.ended(hooks.endpoint("", url=receivers.url("other")), 5)
        done = called(hooks.bench.config, "drill", BOOK)
    assert done.exit == 0, done.said
    assert (hooks.states(others), receivers.got) == ({"failed": 5}, {})


def test_who_may_not_write_is_told_what_to_grant(hooks: Hooks) -> None:
    failed = hooks.ended(hooks.endpoint("one.example"), 3)
    digest, reader = planned(hooks), hooks.bench.fleet.dsn("aiprod_probe")
    done = called(hooks.bench.config, "run", BOOK, "--apply", digest, "--actor-dsn", reader)
    assert done.exit == 77, done.said
    assert "GRANT SELECT, UPDATE ON webhook_deliveries TO aiprod_probe;" in done.said
    assert hooks.states(failed) == {"failed": 3}


@pytest.mark.soak
def test_the_server_is_restarted_in_the_midst(hooks: Hooks) -> None:
    """Nothing is lost; what was on its way then may come twice."""
    with pumped(hooks.bench.fleet) as receivers:
        failed = hooks.ended(hooks.endpoint("", url=receivers.url("good")), 300)
        going = hooks.bench.start("run", BOOK, "--apply", planned(hooks, "--rate", "50"))
        until(lambda: len(receivers.got.get("good", ())) > 60, "the last wave is on its way")
        hooks.bench.fleet.primary.stop()
        hooks.bench.fleet.primary.start()
        done = going.done()
    assert done.exit == 0, done.said
    assert hooks.states(failed) == {"delivered": 300}
    assert len(set(receivers.got["good"])) == 300


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--endpoint", "nobody.example"), 64, "there is no endpoint nobody.example"),
        (("--event", "01a22514-3ab2-7f8b-9251-a15879e98761"), 64, "there is no event 01a22514"),
        (("--event", "job.lost"), 64, "expected the id of an event, or job.created, "),
        (("--rate", "0"), 64, "--rate"),
        (("--success", "1.5"), 64, "--success"),
        (("--since", "yesterday"), 64, "--since"),
        (("--since", "-1h"), 64, "--since"),
        (("--most", "0"), 64, "--most"),
    ],
)
def test_what_makes_no_sense_is_refused(hooks: Hooks, options: tuple[str, ...], code: int, said: str) -> None:
    done = called(hooks.bench.config, "plan", BOOK, *options)
    assert (done.exit, said in done.err) == (code, True), done.said


@pytest.mark.parametrize("promise", PROMISED)
def test_promise(fleet: Fleet, promise: Promise) -> None:
    with on_bench(fleet, (BOOK,), NOWHERE) as bench:
        result = hold(bench, promise)
    partly = promise.id in ("undo", "killed-while-proving")  # what was sent is not unsent; it proves nothing
    assert result.verdict is (Verdict.NOT_APPLICABLE if partly else Verdict.HOLDS), result.seen
