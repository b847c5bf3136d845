"""A real Patroni cluster is moved while others write: nothing acknowledged is lost, an answer of the API is never taken
for the truth, and what nobody knows is called unknown until it is seen."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import urllib3
from command_line import Bench, Done, short_folder, until

from aiprod_ops.lab import patroni, postgres
from aiprod_ops.lab.patroni import PatroniLab
from aiprod_ops.lab.writers import TABLE, Writers, writing

pytestmark = pytest.mark.lab
BOOK = "fail-over-replica"
UNFIT = "it does not stream now"


@pytest.fixture(scope="module")
def lab() -> Iterator[PatroniLab]:
    with short_folder() as folder, patroni.cluster(folder / "p") as made:
        postgres.rows(made.dsn("postgres"), f"CREATE TABLE {TABLE} (n bigserial PRIMARY KEY, writer int)")
        yield made


@pytest.fixture
def bench(lab: PatroniLab) -> Bench:
    whole(lab)
    return Bench(lab.config, lab.dsn("postgres"))


def whole(lab: PatroniLab) -> None:
    until(lab.is_whole, "the cluster is not in order", 60)


def planned(bench: Bench, *options: str) -> str:
    until(lambda: bench.run("check", "replication").exit == 0, "the cluster is not in order")
    made = bench.run("plan", BOOK, "-o", "json", *options)
    assert made.exit == 0, made.said
    assert made.json()["plan"]["actions"], made.said
    return str(made.json()["digest"])


def applied(bench: Bench, digest: str, *options: str) -> Done:
    return bench.run("run", BOOK, "--apply", digest, "--confirm", "lab", *options)


def writes(lab: PatroniLab) -> list[str]:
    """Who takes writes now."""
    found = []
    for member in lab.members:
        if member.server.is_running():
            told = postgres.rows(lab.dsn("postgres", member.name), "SELECT pg_is_in_recovery()")
            found += [member.name] if told == [(False,)] else []
    return found


def lost(lab: PatroniLab, writers: Writers) -> list[tuple[float, int]]:
    return writers.writes().lost({n for (n,) in postgres.rows(lab.dsn("postgres"), f"SELECT n FROM {TABLE}")})


def test_a_switchover_under_load_loses_nothing(bench: Bench, lab: PatroniLab, tmp_path: Path) -> None:
    before, digest = lab.leader(), planned(bench)
    with writing(None, tmp_path, dsn=lab.dsn("postgres")) as writers:
        done = applied(bench, digest)
    assert done.exit == 0, done.said
    assert writes(lab) == [lab.leader()] != [before]
    assert lost(lab, writers) == []
    assert bench.run("check", "replication").exit == 0
    bench.sound()


def test_killed_before_the_call_it_is_finished(bench: Bench, lab: PatroniLab, tmp_path: Path) -> None:
    before, digest = lab.leader(), planned(bench)
    words = ["-m", "aiprod_ops.cli.crash", "after", "4", "run", BOOK, "--apply", digest, "--confirm", "lab"]
    with writing(None, tmp_path, dsn=lab.dsn("postgres")) as writers:
        died = subprocess.run([sys.executable, *words], env=bench.env(), cwd="/", capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
        done = bench.run("resume", bench.unfinished()[0])
    assert done.exit == 0, done.said
    assert writes(lab) == [lab.leader()] != [before]
    assert lost(lab, writers) == []


def test_killed_while_patroni_works_it_is_finished(bench: Bench, lab: PatroniLab, tmp_path: Path) -> None:
    before, digest = lab.leader(), planned(bench)
    with writing(None, tmp_path, dsn=lab.dsn("postgres")) as writers:
        going = bench.start("run", BOOK, "--apply", digest, "--confirm", "lab")
        until(lambda: lab.leader() != before, "it is not begun")
        going.kill()
        done = bench.run("resume", bench.unfinished()[0])
    assert done.exit == 0, done.said
    assert writes(lab) == [lab.leader()] != [before]
    assert lost(lab, writers) == []


def test_who_does_not_stream_is_refused_by_name(bench: Bench, lab: PatroniLab) -> None:
    leader = lab.leader()
    name = min({each.name for each in lab.members} - {leader})
    digest = planned(bench, "--to", name)
    dsn = lab.dsn("postgres", name)
    with lab[name].frozen_patroni():  # which would mend it
        postgres.rows(dsn, "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
        postgres.rows(dsn, "SELECT pg_reload_conf()")
        until(lambda: f"against {name}: 0" not in (out := bench.run("check", BOOK).out) and UNFIT in out, "not seen")
        refused = applied(bench, digest)
        assert refused.exit == 10, refused.said
        assert f"against {name}: {UNFIT}" in refused.said
        made = bench.run("plan", BOOK, "--to", name, "-o", "json")
        assert made.exit == 10, made.said
        postgres.rows(dsn, "ALTER SYSTEM RESET primary_conninfo")
        postgres.rows(dsn, "SELECT pg_reload_conf()")
    whole(lab)
    assert lab.leader() == leader


@contextmanager
def between(lab: PatroniLab, bench: Bench, name: str, post: Callable[[bytes, str], Any]) -> Iterator[Bench]:
    """Stand before a member's API: what is read passes; what would change something is given to `post`, and never
    answered."""
    is_over = Event()
    pool = urllib3.PoolManager(retries=False, timeout=30)

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer = pool.request("GET", lab[name].url + self.path, timeout=2)
            except urllib3.exceptions.HTTPError:
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            post(body, self.headers["Authorization"])
            is_over.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        config = bench.config.with_name("between.toml")
        url = f"http://127.0.0.1:{server.server_port}"
        config.write_text(bench.config.read_text().replace(lab[name].url, url))
        try:
            yield Bench(config, bench.admin)
        finally:
            is_over.set()
            server.shutdown()
            config.unlink()


@pytest.mark.soak
def test_a_patroni_that_freezes_at_the_call_is_unknown_then_finished(
    bench: Bench, lab: PatroniLab, tmp_path: Path
) -> None:
    leader, digest = lab.leader(), planned(bench, "--patience", "1s")
    freeze = lab[leader].frozen_patroni()
    with writing(None, tmp_path, dsn=lab.dsn("postgres")) as writers:
        with between(lab, bench, leader, lambda *_: freeze.__enter__()) as cut:
            try:
                unknown = applied(cut, digest)
            finally:
                freeze.__exit__(None, None, None)
        assert unknown.exit == 22, unknown.said
        assert "it may still come" in unknown.said
        assert writes(lab) == [leader]
        done = bench.run("resume", bench.unfinished()[0])
    assert done.exit == 0, done.said
    assert writes(lab) == [lab.leader()] != [leader]
    assert lost(lab, writers) == []


def test_a_switchover_whose_answer_is_lost_is_seen(bench: Bench, lab: PatroniLab) -> None:
    leader, digest = lab.leader(), planned(bench, "--patience", "6s")

    def pass_on(body: bytes, secret: str) -> None:
        headers = {"Authorization": secret, "Content-Type": "application/json"}
        urllib3.request("POST", f"{lab[leader].url}/switchover", body=body, headers=headers, timeout=30)

    with between(lab, bench, leader, pass_on) as cut:
        done = applied(cut, digest)
    assert done.exit == 0, done.said
    assert "did not answer" in done.said
    assert writes(lab) == [lab.leader()] != [leader]


def test_two_engineers_at_once(bench: Bench, lab: PatroniLab, tmp_path: Path) -> None:
    """One with the same state, one on another machine: the lease refuses the one, the server the other."""
    before, digest = lab.leader(), planned(bench)
    config = tmp_path / "elsewhere.toml"
    text = bench.config.read_text().replace('state = "state"', f'state = "{tmp_path}/state"')
    config.write_text(text.replace("file:api-password", f"file:{bench.config.parent}/api-password"))
    elsewhere = Bench(config, bench.admin)
    assert planned(elsewhere) == digest
    with writing(None, tmp_path / "writers", dsn=lab.dsn("postgres")) as writers:
        going = [each.start("run", BOOK, "--apply", digest, "--confirm", "lab") for each in (bench, bench, elsewhere)]
        ended = [each.done() for each in going]
    said = "\n".join(each.said for each in ended)
    assert sum(each.exit == 0 for each in ended) == 1, said
    assert {each.exit for each in ended} <= {0, 10, 11}, said
    whole(lab)
    assert writes(lab) == [lab.leader()] != [before]
    assert lost(lab, writers) == []


@contextmanager
def paused(lab: PatroniLab) -> Iterator[None]:
    lab.set(pause=True)
    until(lambda: lab.cluster().get("pause"), "it is not paused")
    try:
        yield
    finally:
        lab.set(pause=None)
        until(lambda: not lab.cluster().get("pause"), "it is paused")


def test_a_paused_cluster_is_told_and_moved(bench: Bench, lab: PatroniLab) -> None:
    before, digest = lab.leader(), planned(bench)
    with paused(lab):
        done = applied(bench, digest)
    assert done.exit == 0, done.said
    assert "the cluster is paused" in done.said
    assert writes(lab) == [lab.leader()] != [before]


def test_a_primary_that_lives_is_not_called_lost(bench: Bench, lab: PatroniLab) -> None:
    made = bench.run("plan", BOOK, "--mode", "unplanned", "-o", "json")
    assert made.exit == 10, made.said
    port = lab[lab.leader()].server.port
    config = bench.config.with_name("cut.toml")
    config.write_text(bench.config.read_text().replace(f",{port}", ",1").replace(f"{port}", "1"))
    cut = Bench(config, bench.admin)
    made = cut.run("plan", BOOK, "--mode", "unplanned", "-o", "json")
    assert made.json()["plan"]["actions"], made.said
    done = applied(cut, made.json()["digest"])
    assert done.exit == 10, done.said
    assert "the cut is between us and it" in done.said
    config.unlink()


@pytest.mark.soak
def test_a_lost_primary_is_replaced_in_a_paused_cluster(bench: Bench, lab: PatroniLab, tmp_path: Path) -> None:
    """There Patroni promotes nobody by itself, and starts no server again: that is waited for until the pause ends."""
    before = lab.leader()
    with paused(lab):
        with writing(None, tmp_path, dsn=lab.dsn("postgres")):
            lab[before].kill()
            made = bench.run("plan", BOOK, "--mode", "unplanned", "--patience", "5s", "-o", "json")
            assert made.exit == 0, made.said
            going = bench.start("run", BOOK, "--apply", made.json()["digest"], "--confirm", "lab")
            until(lambda: lab.leader() not in ("", before), "nobody was promoted", 60)
            lab.start(before)
            done = going.done(120)
        assert done.exit == 22, done.said
        assert f"nothing of {before} takes writes" in done.said
        assert "starts nothing in a pause" in done.said
        assert writes(lab) == [lab.leader()] != [before]
    resumed = bench.run("resume", bench.unfinished()[0])
    assert resumed.exit == 0, resumed.said
    whole(lab)


@pytest.mark.soak
def test_a_lost_primary_that_stays_away_is_replaced_and_waited_for(bench: Bench, lab: PatroniLab) -> None:
    """Whether the old one comes back is unknown until it does: then `resume` ends it. Its files are damaged, so it does
    not start by itself, and is made anew."""
    before = lab.leader()
    lab[before].kill()
    digest = json.loads(bench.run("plan", BOOK, "--mode", "unplanned", "--patience", "5s", "-o", "json").out)["digest"]
    done = applied(bench, digest)
    assert done.exit == 22, done.said
    assert f"Patroni of {before} does not answer; start it there" in done.said
    assert writes(lab) == [lab.leader()] != [before]
    (lab[before].server.data / "global/pg_control").unlink()
    lab.start(before)
    resumed = bench.run("resume", bench.unfinished()[0])
    assert resumed.exit == 0, resumed.said
    assert "it is to be copied anew" in resumed.said
    assert lab.is_whole()
