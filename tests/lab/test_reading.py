"""Reads on real replicas: never staler than the limit, and on the primary at once when there is none to read from."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from command_line import Bench, lab, until
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import faults, postgres
from aiprod_ops.service.reading import Limits, ReadRouter
from aiprod_ops.units import Seconds

pytestmark = pytest.mark.lab

LIMITS = Limits(lag=Seconds(1), every=Seconds(0.1), patience=Seconds(0.2), retry=Seconds(0.5))
PAUSED = "SELECT pg_get_wal_replay_pause_state()"
LAG = text("SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM beat")


@pytest.fixture(scope="module")
def fleet_bench() -> Iterator[Bench]:
    with lab(2_000) as made:
        made.sql("CREATE TABLE beat (at timestamptz NOT NULL)")
        made.sql("INSERT INTO beat VALUES (clock_timestamp())")
        made.sql("GRANT SELECT, UPDATE ON beat TO aiprod_app")
        yield made


@pytest.fixture
def bench(fleet_bench: Bench) -> Bench:
    """The fleet, in order."""
    until(lambda: fleet_bench.run("check", "replication").exit == 0, "the fleet is not in order")
    return fleet_bench


def url(bench: Bench, server: PostgresServer) -> str:
    query = {"host": str(server.sockets), "port": str(server.port), "passfile": str(bench.fleet.passfile)}
    made = URL.create("postgresql+psycopg2", "aiprod_app", database=postgres.DATABASE, query=query)
    return made.render_as_string()


def name(server: PostgresServer) -> str:
    return f"{server.sockets}:{server.port}"


@contextmanager
def routed(bench: Bench, limits: Limits = LIMITS, *more: str, ready: bool = True) -> Iterator[ReadRouter]:
    replicas = [url(bench, each) for each in bench.fleet.replicas]
    with closing(ReadRouter.of(url(bench, bench.fleet.primary), [*replicas, *more], limits)) as router:
        if ready:
            until(lambda: used(router, 4) == {name(each) for each in bench.fleet.replicas}, "no replica is read from")
        yield router


def used(router: ReadRouter, times: int = 20, after: str = "") -> set[str]:
    """Servers that sessions came to."""
    found = set()
    for _ in range(times):
        with router.reading(after) as session:
            session.execute(LAG)
            found.add(str(session.info["server"]))
    return found


def on(bench: Bench, server: PostgresServer, statement: str) -> list[tuple[Any, ...]]:
    return postgres.rows(bench.fleet.dsn("postgres", server), statement)


@contextmanager
def beating(bench: Bench) -> Iterator[None]:
    """Somebody writes the time, fifty times a second."""
    stop = threading.Event()

    def beat() -> None:
        with postgres.session(bench.admin) as session, session.cursor() as cursor:
            while not stop.wait(0.02):
                cursor.execute("UPDATE beat SET at = clock_timestamp()")

    writer = threading.Thread(target=beat)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@contextmanager
def paused(bench: Bench, *servers: PostgresServer) -> Iterator[None]:
    for server in servers:
        on(bench, server, "SELECT pg_wal_replay_pause()")
        until(
            lambda each=server: on(bench, each, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)], "not paused"
        )
    try:
        yield
    finally:
        for server in servers:
            on(bench, server, "SELECT pg_wal_replay_resume()")


def test_an_idle_primary_is_no_lag(bench: Bench) -> None:
    with routed(bench) as router:
        time.sleep(2.5 * LIMITS.lag)
        until(lambda: len(used(router, 4)) == 2, "both replicas")
        deadline = time.monotonic() + 2.5 * LIMITS.lag
        while time.monotonic() < deadline:
            assert name(bench.fleet.primary) not in used(router, 4)
            time.sleep(0.02)


def test_the_first_read_waits_for_no_measurement(bench: Bench) -> None:
    with routed(bench, ready=False) as router:
        assert set(router.replicas.values()) == {"not measured yet"}
        assert used(router, 1) == {name(bench.fleet.primary)}


def test_a_load_that_commits_seldom_is_no_lag(bench: Bench) -> None:
    with postgres.session(bench.admin) as session, session.cursor() as cursor, routed(bench) as router:
        session.autocommit = False
        cursor.execute("CREATE TABLE load (n int)")
        seen, deadline = set(), time.monotonic() + 2 * LIMITS.lag
        while time.monotonic() < deadline:
            cursor.execute("INSERT INTO load SELECT generate_series(1, 500)")
            seen |= used(router, 2)
        assert name(bench.fleet.primary) not in seen
        session.rollback()
        session.autocommit = True


def test_a_paused_replica_is_left_before_its_data_are_too_old(bench: Bench) -> None:
    paused_one, other = bench.fleet.replicas
    with beating(bench), routed(bench) as router, paused(bench, paused_one):
        until(lambda: used(router) == {name(other)}, "the paused replica is still read from")
        until(lambda: used(router, 1) and "s behind" in router.replicas[name(paused_one)], "it does not tell why")
        with paused(bench, other):
            until(lambda: used(router) == {name(bench.fleet.primary)}, "the primary is not read from")
    with routed(bench):
        pass


def test_no_read_from_a_replica_is_over_the_limit(bench: Bench) -> None:
    """Replays are paused and resumed at random; the truth is the time that the writer wrote."""
    chance, seen = random.Random(7), dict[str, int]()
    with beating(bench), routed(bench) as router:
        stop = threading.Event()

        def disturb(server: PostgresServer) -> None:
            while not stop.wait(chance.uniform(0.2, 0.8)):
                with paused(bench, server):
                    stop.wait(chance.uniform(0.2, 2.5))

        threads = [threading.Thread(target=disturb, args=(each,)) for each in bench.fleet.replicas]
        for each in threads:
            each.start()
        worst, deadline = 0.0, time.monotonic() + 12
        try:
            while time.monotonic() < deadline:
                with router.reading() as session:
                    began = time.monotonic()
                    lag = float(session.execute(LAG).scalar_one())
                    took = time.monotonic() - began
                server = str(session.info["server"])
                seen[server] = seen.get(server, 0) + 1
                if server != name(bench.fleet.primary):
                    worst = max(worst, lag - took)
        finally:
            stop.set()
            for each in threads:
                each.join()
    assert len(seen) == 3, f"all three were read from: {seen}"
    assert worst <= LIMITS.lag + 0.1, "0.02 s between two writes, and what the machine takes for one"


def test_a_dead_replica_costs_no_read_and_comes_back(bench: Bench) -> None:
    dead, other = bench.fleet.replicas
    with routed(bench) as router:
        faults.kill_postmaster(dead)
        try:
            began = time.monotonic()
            assert name(dead) not in used(router, 10), "nobody has read for a while: the primary may be the first"
            assert time.monotonic() - began < 1, "at once"
            until(lambda: used(router, 4) == {name(other)}, "the other one is not read from")
            assert router.replicas[name(dead)].startswith(("it does not answer", "no contact", "it was lost"))
        finally:
            dead.start()
        until(lambda: name(dead) in used(router, 4), "it has not come back")


def test_without_any_replica_the_primary_is_read(bench: Bench) -> None:
    with routed(bench) as router:
        for each in bench.fleet.replicas:
            faults.kill_postmaster(each)
        try:
            assert used(router, 10) == {name(bench.fleet.primary)}
        finally:
            for each in bench.fleet.replicas:
                each.start()


def test_a_frozen_replica_is_left_and_one_that_never_answers_is_not_begun_with(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        slow = f"postgresql+psycopg2://aiprod_app@127.0.0.1:{port}/{postgres.DATABASE}"
        with routed(bench, LIMITS, slow) as router, faults.frozen(bench.fleet.replicas[0]):
            assert router.pick() is not None
            time.sleep(LIMITS.every + LIMITS.patience)
            router.pick()
            time.sleep(LIMITS.patience + 0.1)
            began = time.monotonic()
            assert used(router, 20) == {name(bench.fleet.replicas[1])}
            assert time.monotonic() - began < 1
            assert router.replicas[name(bench.fleet.replicas[0])] == "it has not answered in time"
            assert router.replicas[f"127.0.0.1:{port}"] != ""


def test_a_token_is_read_your_own_writes(bench: Bench) -> None:
    primary = create_engine(url(bench, bench.fleet.primary))
    with closing(primary.connect()) as writer, routed(bench) as router:

        def write() -> tuple[str, str]:
            from sqlalchemy.orm import Session

            with Session(bind=writer) as session:
                row = session.execute(text("UPDATE beat SET at = clock_timestamp() RETURNING at::text")).scalar_one()
                session.commit()
                return str(row), router.token(session)

        def reads(after: str, wait: float = 0) -> tuple[str, str]:
            with router.reading(after, wait=Seconds(wait)) as session:
                return str(session.execute(text("SELECT at::text FROM beat")).scalar_one()), session.info["server"]

        for _ in range(100):
            row, token = write()
            assert reads(token)[0] == row
        servers = {reads(write()[1], wait=1)[1] for _ in range(20)}
        assert servers == {name(each) for each in bench.fleet.replicas}, "it is waited for"
        with paused(bench, *bench.fleet.replicas):
            row, token = write()
            assert reads(token) == (row, name(bench.fleet.primary))
            began = time.monotonic()
            assert reads(token, wait=0.3) == (row, name(bench.fleet.primary))
            assert 0.3 <= time.monotonic() - began < 0.6, "once, not for each replica"
        assert reads("no token")[1] == name(bench.fleet.primary)
    primary.dispose()


def test_a_session_only_reads_wherever_it_is(bench: Bench) -> None:
    with routed(bench) as router:
        for more in ((), tuple(bench.fleet.replicas)):
            with beating(bench), paused(bench, *more):
                until(lambda wanted=not more: (name(bench.fleet.primary) not in used(router, 4)) == wanted, "not there")
                with pytest.raises((InternalError, DBAPIError), match="read-only"), router.reading() as session:
                    session.execute(text("UPDATE beat SET at = clock_timestamp()"))
    with closing(create_engine(url(bench, bench.fleet.primary)).connect()) as connection:
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off"


def test_many_threads(bench: Bench) -> None:
    with routed(bench) as router:
        failed: list[BaseException] = []

        def read() -> None:
            try:
                used(router, 30)
            except BaseException as error:  # noqa: BLE001 told below
                failed.append(error)

        threads = [threading.Thread(target=read) for _ in range(12)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failed == []


def test_without_the_primary_replicas_serve_as_long_as_they_are_surely_fresh(bench: Bench) -> None:
    with routed(bench) as router:
        faults.kill_postmaster(bench.fleet.primary)
        began = time.monotonic()
        try:
            with pytest.raises(OperationalError):
                used(router, 1_000_000)
            assert time.monotonic() - began <= LIMITS.lag + 0.5
        finally:
            bench.fleet.primary.start()
        until(lambda: len(used(router, 4)) == 2, "no replica is read from")


def test_a_promoted_replica_is_read_from_no_more(fleet_bench: Bench) -> None:
    """Last: nothing brings it back here."""
    until(lambda: fleet_bench.run("check", "replication").exit == 0, "the fleet is not in order")
    promoted, other = fleet_bench.fleet.replicas
    seldom = Limits(lag=Seconds(20), every=Seconds(10))  # no measurement tells it: each session looks
    with routed(fleet_bench, seldom) as router:
        on(fleet_bench, promoted, "SELECT pg_promote()")
        on(fleet_bench, promoted, "UPDATE beat SET at = '2000-01-01'")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert used(router, 4) <= {name(other), name(fleet_bench.fleet.primary)}
        assert router.replicas[name(promoted)] == "it is no standby"


def test_another_primary_is_followed() -> None:
    """As the page has it: the primary is whichever of the hosts takes writes."""
    with lab(2_000) as bench:
        bench.sql("CREATE TABLE beat (at timestamptz NOT NULL)")
        bench.sql("INSERT INTO beat VALUES (clock_timestamp())")
        bench.sql("GRANT SELECT ON beat TO aiprod_app")
        old, new = bench.fleet.primary, bench.fleet.replicas[0]
        hosts = [f"127.0.0.1:{each.port}" for each in (old, *bench.fleet.replicas)]
        query = "&".join((f"passfile={bench.fleet.passfile}", "target_session_attrs=read-write"))
        base = f"postgresql+psycopg2://aiprod_app@/{postgres.DATABASE}?"
        primary = base + query + "".join(f"&host={each}" for each in hosts)
        singles = [base.replace("@/", f"@{each}/") + f"passfile={bench.fleet.passfile}" for each in hosts]
        with closing(ReadRouter.of(primary, singles, LIMITS)) as router:
            until(lambda: used(router, 4) == set(hosts[1:]), "the replicas are not read from")
            assert router.replicas[hosts[0]] == "it is no standby"
            until(lambda: on(bench, new, "SELECT count(*) FROM beat") == [(1,)], "it has not replayed")
            faults.kill_postmaster(old)
            on(bench, new, "SELECT pg_promote()")
            on(bench, new, "UPDATE beat SET at = '2000-01-01'")
            until(lambda: {read(router) for _ in range(8)} == {2000}, "the new primary is not read from", 10)
            wanted = {hosts[0]: "no contact: OperationalError", hosts[1]: "it is no standby"}
            until(lambda: read(router) and wanted.items() <= router.replicas.items(), "it does not tell why", 10)


def read(router: ReadRouter) -> int:
    with router.reading() as session:
        return int(session.execute(text("SELECT extract(year FROM at)::int FROM beat")).scalar_one())
