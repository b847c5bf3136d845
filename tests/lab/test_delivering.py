"""Webhooks from their rows to customers' servers: bad servers, fairness, order, rates."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from delivered import KEY, SHORT, Webhooks, pumping, wait_until
from receivers import Receiver

from aiprod_ops.adapters.aiohttp_sender import AiohttpSender
from aiprod_ops.adapters.pycurl_sender import PycurlSender
from aiprod_ops.domain.exchanges import Exchange, Outgoing
from aiprod_ops.domain.webhooks import signature
from aiprod_ops.lab import ports
from aiprod_ops.ports import Sender

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("sender", [AiohttpSender, PycurlSender])
def test_each_event_comes_once_to_each_endpoint_and_is_signed(hooks: Webhooks, receiver: Receiver, sender) -> None:
    for number in range(10):
        hooks.endpoint(receiver.url(f"/{number}"))
    with pumping(hooks.api, lambda: sender(SHORT, private=True)):
        events = hooks.emit(20)
        wait_until(lambda: hooks.states() == {"delivered": 200})
    assert set(receiver.ids()) == set(events)
    assert set(receiver.ids().values()) == {10}
    for each in receiver.taken:
        at = int(each.headers["webhook-timestamp"])
        assert each.headers["webhook-signature"] == signature(KEY, each.id, at, each.body)
        assert json.loads(each.body)["type"] == "job.completed"
    [(count, distinct)] = hooks.api.sql("SELECT count(*), count(DISTINCT delivery_id) FROM webhook_attempts")
    assert (count, distinct) == (200, 200)
    assert hooks.leased() == 0


def test_what_bad_servers_answer_is_kept_and_when_it_is_sent_again(hooks: Webhooks, receiver: Receiver) -> None:
    receiver.statuses = {"/500": 500, "/404": 404}
    free = ports.free(Path(__file__), taken=[receiver.port])[0]
    wanted = {
        "/500": (500, None), "/404": (404, None), "/moved": (301, None), "/busy": (429, None),
        "/closes": (None, "closed"), "/hang": (None, "timeout"), "/garbled": (None, "garbled"),
    }  # fmt: skip
    made = {path: hooks.endpoint(receiver.url(path)) for path in wanted}
    made["down"], wanted["down"] = hooks.endpoint(f"http://127.0.0.1:{free}/"), (None, "refused")
    made["unsigned"], wanted["unsigned"] = hooks.endpoint(receiver.url(), with_secret=False), (None, "unsigned")
    with pumping(hooks.api):
        for endpoint in made.values():
            hooks.deliver(endpoint)
        wait_until(lambda: all(hooks.attempts(endpoint) for endpoint in made.values()))
        for path, endpoint in made.items():
            status, error, state, attempts, due_in = hooks.attempts(endpoint)[0]
            assert (status, error) == wanted[path] or (path, error) == ("/closes", "garbled")
            assert state in ("pending", "delivered")
            if attempts == 1:
                least = 1.99 if path == "/busy" else 0.99  # moments are kept to the millisecond
                assert least <= due_in <= least + 1.2 + SHORT.whole, f"the schedule of {path}"
        wait_until(lambda: hooks.states(made["/busy"]) == {"delivered": 1})
    first, second = hooks.api.sql(
        "SELECT began_at, number FROM webhook_attempts JOIN webhook_deliveries d ON d.id = delivery_id "
        "WHERE endpoint_id = %(id)s ORDER BY number",
        {"id": made["/busy"]},
    )
    assert (second[0] - first[0]).total_seconds() >= 1.99, "Retry-After"
    assert second[1] == 2


class Verbose(AiohttpSender):
    """Hands on more than a row takes."""

    async def send(self, request: Outgoing) -> Exchange:
        return replace(await super().send(request), body=b"x" * 5_000)


@pytest.mark.parametrize("sender", [AiohttpSender, PycurlSender, Verbose])
def test_whatever_one_customer_s_server_says_the_others_are_delivered(
    hooks: Webhooks, receiver: Receiver, sender: type[Sender]
) -> None:
    receiver.statuses = {"/five-digits": 99999, "/nought": 0}
    odd = [hooks.endpoint(receiver.url(path)) for path in receiver.statuses]
    good = [hooks.endpoint(receiver.url(f"/{number}")) for number in range(5)]
    with pumping(hooks.api, lambda: sender(SHORT, private=True)):
        hooks.emit(10)
        wait_until(lambda: all(hooks.states(each) == {"delivered": 10} for each in good))
        wait_until(lambda: all(len(hooks.attempts(each)) >= 10 for each in odd))
    for each in odd:
        assert {row[:3] for row in hooks.attempts(each)} == {(None, "garbled", "pending")}


def test_gone_disables_at_once_and_its_owner_is_told(hooks: Webhooks, receiver: Receiver) -> None:
    gone, other = hooks.endpoint(receiver.url("/gone")), hooks.endpoint(receiver.url("/other"))
    with pumping(hooks.api):
        hooks.deliver(gone)
        wait_until(lambda: hooks.states(other) == {"delivered": 1})
    assert hooks.row(gone)[:2] == ("disabled", "gone")
    told = [json.loads(each.body) for each in receiver.taken if each.path == "/other"]
    assert [(each["type"], each["data"]["endpoint_id"]) for each in told] == [("endpoint.disabled", gone)]
    assert [each[:4] for each in hooks.attempts(gone)] == [(410, None, "failed", 1)]


def test_ten_failures_disable_a_probe_enables(hooks: Webhooks, receiver: Receiver) -> None:
    receiver.statuses["/bad"] = 500
    bad = hooks.endpoint(receiver.url("/bad"))
    hooks.deliver(bad, 12, attempts=5)
    with pumping(hooks.api):
        wait_until(lambda: hooks.row(bad)[0] == "disabled")
        assert hooks.row(bad)[1:] == ("failing", 10) or hooks.row(bad)[2] > 10
        probes = "FROM webhook_deliveries d JOIN webhook_events v ON v.id = event_id WHERE v.type = 'endpoint.disabled'"
        [(waits,)] = hooks.api.sql(f"SELECT extract(epoch FROM due_at - now())::float8 {probes}")
        assert 30 < waits <= 60
        due = f"UPDATE webhook_deliveries SET due_at = now() WHERE id IN (SELECT d.id {probes})"
        hooks.api.sql(due)
        wait_until(lambda: hooks.api.sql(f"SELECT d.attempts {probes}") == [(1,)])
        assert hooks.row(bad)[0] == "disabled", "it did not take the probe"
        del receiver.statuses["/bad"]
        hooks.api.sql(due)
        wait_until(lambda: hooks.row(bad) == ("enabled", None, 0))
        hooks.deliver(bad)
        wait_until(lambda: hooks.states(bad).get("pending", 0) == 0)
    assert hooks.states(bad)["delivered"] >= 2, "the probe, and what came after it"


def test_a_success_ends_a_row_of_failures(hooks: Webhooks, receiver: Receiver) -> None:
    receiver.statuses["/bad"] = 500
    bad = hooks.endpoint(receiver.url("/bad"), failures_in_a_row=3)
    with pumping(hooks.api):
        hooks.deliver(bad, attempts=5)
        wait_until(lambda: hooks.row(bad) == ("enabled", None, 4))
        del receiver.statuses["/bad"]
        hooks.deliver(bad)
        wait_until(lambda: hooks.row(bad) == ("enabled", None, 0))


def test_one_that_hangs_delays_nobody(hooks: Webhooks, receiver: Receiver) -> None:
    """Of a hundred one hangs, with more due than there are slots: it has no more in flight than it may, then one."""
    hanging = hooks.endpoint(receiver.url("/hang"))
    hooks.deliver(hanging, 200)
    hooks.api.sql("UPDATE webhook_deliveries SET due_at = now()")  # all at the same moment
    others = [hooks.endpoint(receiver.url(f"/{number}")) for number in range(99)]
    with pumping(hooks.api, slots=50):
        wait_until(lambda: receiver.at_once["/hang"] == 10)
        for endpoint in others:
            hooks.deliver(endpoint, 2)
        wait_until(lambda: hooks.states().get("delivered") == 198)
        assert receiver.most_at_once["/hang"] == 10
        wait_until(lambda: len(hooks.attempts(hanging)) >= 11)
        wait_until(lambda: receiver.at_once["/hang"] <= 1)
        receiver.open.set()


def test_ten_thousand_of_one_endpoint_do_not_crowd_out_the_others(hooks: Webhooks, receiver: Receiver) -> None:
    """Counted: when all others have theirs, the backlog that was there before has hardly begun."""
    crowd = hooks.endpoint(receiver.url("/crowd?ms=20"))
    hooks.deliver(crowd, 10_000)
    others = [hooks.endpoint(receiver.url(f"/{number}")) for number in range(50)]
    with pumping(hooks.api, slots=30, drain=5):
        wait_until(lambda: len(receiver.ids("/crowd?ms=20")) > 20)
        for endpoint in others:
            hooks.deliver(endpoint)
        wait_until(lambda: sum(each.path != "/crowd?ms=20" for each in list(receiver.taken)) == 50)
        assert len(receiver.ids("/crowd?ms=20")) < 3000
        assert receiver.most_at_once["/crowd?ms=20"] <= 10


def test_two_at_once_send_nothing_twice_and_keep_order_and_rate(hooks: Webhooks, receiver: Receiver) -> None:
    for number in range(20):
        hooks.deliver(hooks.endpoint(receiver.url(f"/{number}")), 20)
    ordered = hooks.endpoint(receiver.url("/ordered?ms=1"), ordered=True)
    hooks.deliver(ordered, 60)
    paced = hooks.endpoint(receiver.url("/paced"), per_second=40)
    hooks.deliver(paced, 60)
    began = time.monotonic()
    with pumping(hooks.api, lane=7), pumping(hooks.api, lane=7):
        wait_until(lambda: hooks.states() == {"delivered": 520})
    assert set(receiver.ids().values()) == {1}
    came = [json.loads(each.body)["n"] for each in receiver.taken if each.path == "/ordered?ms=1"]
    assert came == list(range(1, 61))
    assert receiver.most_at_once["/ordered?ms=1"] == 1
    assert time.monotonic() - began > 58 / 40, "60 deliveries at 40 a second"


def test_in_order_nothing_overtakes_what_is_sent_again(hooks: Webhooks, receiver: Receiver) -> None:
    receiver.statuses["/ordered"] = 503
    ordered = hooks.endpoint(receiver.url("/ordered"), ordered=True)
    hooks.deliver(ordered, 10)
    with pumping(hooks.api):
        wait_until(lambda: receiver.taken)
        del receiver.statuses["/ordered"]
        wait_until(lambda: hooks.states() == {"delivered": 10})
    came = [json.loads(each.body)["n"] for each in receiver.taken]
    assert came in ([1, *range(1, 11)], [1, 1, *range(1, 11)])


def test_an_address_of_ours_is_refused_when_it_is_connected_to(hooks: Webhooks, receiver: Receiver) -> None:
    async def leads_to_us(_: str) -> list[str]:
        return ["127.0.0.1"]

    endpoint = hooks.endpoint("https://evil.example.org/")
    hooks.deliver(endpoint)
    with pumping(hooks.api, lambda: AiohttpSender(SHORT, resolve=leads_to_us)):
        wait_until(lambda: len(hooks.attempts(endpoint)) == 2, what="again on the retry")
    assert {each[1] for each in hooks.attempts(endpoint)} == {"private_address"}
