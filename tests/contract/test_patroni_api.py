"""Patroni's REST API, without a Patroni: how answers are read, what each failure becomes, when one may act."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from memory_database import MemoryDatabase

from aiprod_ops.adapters.patroni import cluster as clusters
from aiprod_ops.adapters.patroni.api import PatroniApi
from aiprod_ops.adapters.patroni.cluster import PatroniCluster, address
from aiprod_ops.adapters.patroni.values import Status, Timing, View
from aiprod_ops.errors import (
    ConfigurationError,
    Failed,
    OpsError,
    PermissionMissing,
    Refused,
    TimedOut,
    Unreachable,
)
from aiprod_ops.ports import Database
from aiprod_ops.units import Seconds

SOON = Seconds(0.25)
NOWHERE = ("127.0.0.1", 1)


class Fake:
    """The APIs of a whole cluster on one port: `/NAME/cluster` and so on. `said` is what a change is answered; it
    `is_silent` where nothing is. `frozen` are members that take a call and never answer."""

    def __init__(self, roles: Mapping[str, str], **more: Any) -> None:
        self.roles, self.more, self.said = dict(roles), more, (200, "done")
        self.states = dict.fromkeys(roles, "running")
        self.frozen: set[str] = set()
        self.asked: list[tuple[str, str, Any, str]] = []
        self.tags: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        self.then: Callable[[], None] = lambda: None
        self.url = ""
        self.last = ""
        self.is_over = Event()

    def told(self, name: str, path: str) -> Any:
        if path == "/cluster":
            members = [
                {"name": each, "role": role, "state": self.states[each], "tags": self.tags.get(each, {})}
                for each, role in self.roles.items()
            ]
            return {"members": members, **self.more}
        if path == "/history":
            return (
                [[1, 25, "no recovery target specified", "2027-01-01T00:00:00+00:00", self.last]] if self.last else []
            )
        if path == "/config":
            return {"ttl": 0.2, "loop_wait": 0}
        role = "primary" if self.roles[name] == "leader" else "replica"
        return {"state": self.states[name], "role": role, "patroni": {"name": self.names.get(name, name)}}

    @property
    def place(self) -> clusters.Address:
        return address(self.url)


@contextmanager
def served(fake: Fake) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, name, path = self.path.split("/", 2)
            if name in fake.frozen:
                fake.is_over.wait(5)
                self.close_connection = True
                return
            self.answer(200 if fake.roles[name] == "leader" else 503, json.dumps(fake.told(name, f"/{path}")))

        def do_POST(self) -> None:
            _, name, path = self.path.split("/", 2)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append((name, f"/{path}", body, self.headers.get("Authorization", "")))
            fake.then()
            if fake.said[0] == 0:
                fake.is_over.wait(5)
                self.close_connection = True
                return
            self.answer(*fake.said)

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield fake
        fake.is_over.set()
        server.shutdown()


def api_of(fake: Fake, **login: str) -> PatroniApi:
    urls = {name: f"{fake.url}/{name}" for name in fake.roles}
    return PatroniApi(urls, lambda: (login.get("user", ""), login.get("password", "")), patience=SOON)


def cluster_of(fake: Fake, roles: Mapping[str, bool | None], *, gone: str = "", watchdog: bool = False) -> Any:
    """`roles` are who is a standby by its own word, None where it does not answer; a standby streams from `one`."""

    def connect(name: str) -> Database:
        def standby(*_: Any) -> list[dict[str, Any]]:
            if roles[name] is None:
                raise Unreachable(f"no contact to {name}")
            return [{"is_standby": roles[name]}]

        def streams(values: Mapping[str, Any], _: Any) -> list[dict[str, Any]]:
            return [{"streams": roles[name] is False and roles[values["name"]] is True}]

        return MemoryDatabase(answers={clusters._IS_STANDBY: standby, clusters._STREAMS: streams})

    place = (fake.place, fake.place)
    places = {name: (NOWHERE, NOWHERE) if name == gone else place for name in fake.roles}
    return PatroniCluster(places, api_of(fake, user="ops", password="x"), connect, watchdog=watchdog, look=SOON)


TWO = {"one": "leader", "two": "replica"}


def quiet(_: str) -> None:
    pass


def test_what_cluster_lists() -> None:
    told = {
        "members": [
            {"name": "a", "role": "leader", "state": "running"},
            {"name": "b", "role": "replica", "state": "streaming", "tags": {"replicatefrom": "c", "nofailover": True}},
            {"name": "c", "role": "replica", "state": "streaming", "tags": {"failover_priority": 0}},
        ],
        "pause": True,
        "scheduled_switchover": {"at": "2027-01-01T00:00:00+00:00", "from": "a"},
    }
    seen = View.of(told)
    assert (seen.leader, seen.is_paused) == ("a", True)
    assert seen.scheduled == "from a to any at 2027-01-01T00:00:00+00:00"
    assert [each.may_lead for each in seen.members.values()] == [True, False, False]
    assert seen.members["b"].follows == "c"


@pytest.mark.parametrize("told", [None, [], {}, {"members": 3}, {"members": [{}]}, "no"])
def test_what_is_no_patroni_is_said_so(told: Any) -> None:
    with pytest.raises(Failed, match="is not Patroni"):
        View.of(told)


def test_patronis_defaults_hold_where_it_says_nothing() -> None:
    assert Timing.of({"ttl": 60}) == Timing(Seconds(60), Seconds(10))
    assert Timing.of("no") == Timing()
    with pytest.raises(Failed, match="tells no state"):
        Status.of({"role": "primary"})


def test_a_call_that_changes_something_is_sent_once_with_the_password() -> None:
    with served(Fake(TWO)) as fake:
        said = api_of(fake, user="ops", password="x").change("one", "/switchover", {"leader": "one"}, SOON)
        assert (said.status, said.text) == (200, "done")
        assert fake.asked == [("one", "/switchover", {"leader": "one"}, "Basic b3BzOng=")]


def test_a_call_that_is_taken_and_not_answered_is_unknown() -> None:
    with served(Fake(TWO)) as fake:
        fake.said = (0, "")
        said = api_of(fake).change("one", "/switchover", {}, SOON)
        assert said.status is None
        assert "did not answer" in said.text
        assert len(fake.asked) == 1


def test_who_is_not_there_was_asked_nothing() -> None:
    api = PatroniApi({"one": "http://127.0.0.1:1"}, lambda: ("", ""), patience=SOON)
    for call in (lambda: api.change("one", "/switchover", {}, SOON), lambda: api.view("one")):
        with pytest.raises(Unreachable, match="no contact to Patroni of one"):
            call()


def test_who_takes_a_question_and_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        api = PatroniApi({"one": f"http://127.0.0.1:{server.getsockname()[1]}"}, lambda: ("", ""), patience=SOON)
        with pytest.raises(TimedOut, match="does not answer within"):
            api.status("one")


def test_a_wrong_password_is_told() -> None:
    with served(Fake(TWO)) as fake:
        fake.said = (401, "no auth header received")
        with pytest.raises(PermissionMissing, match="401 no auth header"):
            api_of(fake).change("one", "/switchover", {}, SOON)


def test_another_member_than_the_configuration_says() -> None:
    with served(Fake(TWO)) as fake:
        fake.names = {"one": "two"}
        with pytest.raises(ConfigurationError, match="is the API of two, and the configuration calls it one"):
            api_of(fake).status("one")


def test_a_switchover_is_seen_whatever_patroni_answers() -> None:
    roles: dict[str, bool | None] = {"one": False, "two": True}
    with served(Fake(TWO)) as fake:

        def moved() -> None:
            fake.roles.update(one="replica", two="leader")
            roles.update(one=True, two=False)

        fake.then, fake.said = moved, (503, "Switchover failed")
        cluster_of(fake, roles).switch_over("one", "two", Seconds(1), quiet)
        assert [(name, path, body) for name, path, body, _ in fake.asked] == [
            ("one", "/switchover", {"leader": "one", "candidate": "two"})
        ]


@pytest.mark.parametrize("said", [(412, "no good candidates"), (503, "Switchover failed"), (500, "oops")])
def test_what_patroni_declines_is_failed_and_settled(said: tuple[int, str]) -> None:
    with served(Fake(TWO)) as fake:
        fake.said = said
        made = cluster_of(fake, {"one": False, "two": True})
        with pytest.raises(Failed, match=said[1]):
            made.switch_over("one", "two", Seconds(1), quiet)
        assert made.is_standby("two") is True


@pytest.mark.parametrize("said", [(503, "Switchover status unknown"), (0, "")])
def test_what_nobody_knows_stays_unknown(said: tuple[int, str]) -> None:
    with served(Fake(TWO)) as fake:
        fake.said = said
        made = cluster_of(fake, {"one": False, "two": True})
        with pytest.raises(TimedOut, match="it may still come"):
            made.switch_over("one", "two", SOON, quiet)
        with pytest.raises(TimedOut, match="it may still come"):
            made.is_standby("two")
        assert cluster_of(fake, {"one": False, "two": True}).is_standby("two") is True  # another process looks again
        fake.frozen = {"one"}
        with pytest.raises(Unreachable, match="Patroni of one, which leads, does not answer"):
            cluster_of(fake, {"one": False, "two": True}).is_standby("two")


def test_another_than_the_candidate_is_no_success() -> None:
    with served(Fake({**TWO, "three": "replica"})) as fake:
        fake.then = lambda: fake.roles.update(one="replica", three="leader")
        fake.said = (200, 'Switched over to "three" instead of "two"')
        with pytest.raises(Failed, match="has promoted three, and not two"):
            cluster_of(fake, {"one": False, "two": True, "three": True}).switch_over("one", "two", Seconds(1), quiet)


def test_who_may_not_take_over_is_refused_before_patroni_is_asked() -> None:
    with served(Fake(TWO)) as fake:
        fake.tags = {"two": {"nofailover": True}}
        expected = {"tags of two": cluster_of(fake, {"one": False, "two": True})}
        for words, made in expected.items():
            with pytest.raises(Refused, match=words):
                made.switch_over("one", "two", SOON, quiet)
        fake.tags = {}
        with pytest.raises(Refused, match="two does not stream from one now"):
            cluster_of(fake, {"one": False, "two": None}).switch_over("one", "two", SOON, quiet)
        fake.more = {"scheduled_switchover": {"at": "2027-01-01", "from": "one"}}
        with pytest.raises(Refused, match="a switchover is scheduled from one"):
            cluster_of(fake, {"one": False, "two": True}).switch_over("one", "two", SOON, quiet)
        assert fake.asked == []


def test_a_paused_cluster_is_told() -> None:
    told: list[str] = []
    with served(Fake(TWO, pause=True)) as fake:
        fake.said = (412, "no")
        with pytest.raises(Failed):
            cluster_of(fake, {"one": False, "two": True}).switch_over("one", "two", SOON, told.append)
    assert any(each.startswith("the cluster is paused") for each in told)


def test_no_failover_while_the_old_one_lives() -> None:
    with served(Fake(TWO)) as fake:
        with pytest.raises(Refused, match="one takes writes"):
            cluster_of(fake, {"one": False, "two": True}).fail_over("one", "two", SOON, quiet)
        with pytest.raises(Refused, match="one takes writes"):
            cluster_of(fake, {"one": None, "two": True}).fail_over("one", "two", SOON, quiet)
        assert fake.asked == []


def test_no_failover_where_nobody_can_tell_whether_the_old_one_is_fenced() -> None:
    with served(Fake(TWO)) as fake:
        fake.frozen = {"one"}
        with pytest.raises(Refused, match="whether one still takes writes cannot be known"):
            cluster_of(fake, {"one": None, "two": True}).fail_over("one", "two", SOON, quiet)
        assert fake.asked == []


@pytest.mark.parametrize("how", ["nothing of it lives", "its watchdog has ended it"])
def test_a_failover_where_it_is_fenced(how: str) -> None:
    roles: dict[str, bool | None] = {"one": None, "two": True}
    with served(Fake(TWO)) as fake:
        fake.frozen = {"one"}
        is_gone = how.startswith("nothing")
        if not is_gone:
            fake.roles["one"] = "replica"  # the lock's time has ended

        def moved() -> None:
            fake.roles.update(one="replica", two="leader")
            roles["two"] = False

        fake.then = moved
        made = cluster_of(fake, roles, gone="one" if is_gone else "", watchdog=not is_gone)
        made.fail_over("one", "two", Seconds(1), quiet)
        assert [(name, path, body) for name, path, body, _ in fake.asked] == [
            ("two", "/failover", {"candidate": "two"})
        ]


def test_which_one_was_the_primary() -> None:
    with served(Fake({"one": "leader", "two": "replica", "three": "replica"})) as fake:
        made = cluster_of(fake, {"one": None, "two": True, "three": True})
        assert made.lost(["one"]) == "one"
        assert made.lost(["two"]) == ""
        fake.roles["one"] = "replica"  # the lock's time has ended
        assert made.lost(["one", "three"]) == ""
        assert made.lost(["one"]) == "one"
        fake.last = "three"
        assert made.lost(["one", "three"]) == "three"
        assert made.lost(["one"]) == ""


def test_what_tags_say_speaks_against_a_candidate() -> None:
    with served(Fake(TWO)) as fake:
        made = cluster_of(fake, {"one": False, "two": True})
        fake.tags = {"two": {"nofailover": True}}
        assert made.against("two") == ("its tags say that it must not lead",)
        assert made.against("one") == ()
        assert made.against("four") == ("Patroni lists no such member",)


def test_an_election_is_waited_for() -> None:
    with served(Fake({"one": "replica", "two": "replica"})) as fake:
        with pytest.raises(TimedOut, match="about to promote somebody"):
            cluster_of(fake, {"one": True, "two": True}).is_standby("two")
        assert cluster_of(fake, {"one": None, "two": True}, gone="one").is_standby("two") is True


def test_in_a_pause_no_watchdog_counts() -> None:
    with served(Fake({"one": "replica", "two": "replica"}, pause=True)) as fake:
        fake.frozen = {"one"}
        assert not cluster_of(fake, {"one": None, "two": True}, watchdog=True).is_fenced("one")


def test_one_that_does_not_start_is_made_anew_and_one_that_is_away_is_unknown() -> None:
    roles: dict[str, bool | None] = {"one": False, "two": None}
    with served(Fake(TWO)) as fake:
        fake.states["two"] = "start failed"
        fake.then = lambda: roles.update(two=True)
        told: list[str] = []
        cluster_of(fake, roles).rejoin("two", "one", SOON, told.append)
        assert [path for _, path, *_ in fake.asked] == ["/reinitialize"]
        assert any("it is to be copied anew, what it had is thrown away" in each for each in told)
        roles["two"], fake.frozen = None, {"two"}
        made = cluster_of(fake, roles)
        assert not made.streams("two", "one")
        with pytest.raises(OpsError, match="start it there"):
            made.rejoin("two", "one", SOON, quiet)
        with pytest.raises(Unreachable, match="start it there"):
            made.streams("two", "one")


def test_one_that_is_rewound_is_not_copied_anew() -> None:
    roles: dict[str, bool | None] = {"one": False, "two": None}
    with served(Fake(TWO)) as fake:
        fake.states["two"], fake.said = "stopped", (503, "running pg_rewind from one already in progress")
        fake.then = lambda: roles.update(two=True) if len(fake.asked) == 2 else None
        cluster_of(fake, roles).rejoin("two", "one", SOON, quiet)
        assert len(fake.asked) == 2


def test_in_a_pause_nothing_is_copied_anew() -> None:
    with served(Fake(TWO, pause=True)) as fake:
        fake.states["two"] = "stopped"
        with pytest.raises(TimedOut, match="Patroni says stopped, and starts nothing in a pause; end the pause"):
            cluster_of(fake, {"one": False, "two": None}).rejoin("two", "one", SOON, quiet)
        assert fake.asked == []
