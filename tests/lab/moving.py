"""What the tests that move the primary share: who is what, plans, and what was lost."""

from collections.abc import Iterable
from typing import Any

import pytest
from command_line import Bench, Done, until

from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.lab import postgres
from aiprod_ops.lab.writers import TABLE, Writers

BOOK = "fail-over-replica"
#: Bytes of WAL of one write at the least: an insert's record and a commit's (pg_waldump shows 66 and 34).
LEAST = 80


def deaths(of: Iterable[str], usual: set[str]) -> list[Any]:
    """Records at which a run is killed: some of them always, all of them in the soak."""
    return [pytest.param(each, marks=[] if each in usual else pytest.mark.soak, id=each) for each in of]


def servers(bench: Bench) -> dict[str, PostgresServer]:
    return {each.data.name: each for each in (bench.fleet.primary, *bench.fleet.replicas)}


def on(bench: Bench, name: str, text: str) -> list[tuple[Any, ...]]:
    return postgres.rows(bench.fleet.dsn("postgres", servers(bench)[name]), text)


def roles(bench: Bench) -> dict[str, bool]:
    """Who answers, and whether it takes writes."""
    found = {}
    for name, server in servers(bench).items():
        if server.is_running():
            found[name] = not on(bench, name, "SELECT pg_is_in_recovery()")[0][0]
    return found


def primary(bench: Bench) -> str:
    (name,) = [name for name, writes in roles(bench).items() if writes]
    return name


def planned(bench: Bench, *options: str) -> str:
    until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    made = bench.run("plan", BOOK, "-o", "json", *options)
    assert made.exit == 0, made.said
    assert made.json()["plan"]["actions"], made.said
    return str(made.json()["digest"])


def applied(bench: Bench, digest: str) -> Done:
    return bench.run("run", BOOK, "--apply", digest, "--confirm", "lab")


def lost(bench: Bench, writers: Writers) -> list[tuple[float, int]]:
    """Writes that were acknowledged and are not there: when, and which."""
    return writers.writes().lost({n for (n,) in on(bench, primary(bench), f"SELECT n FROM {TABLE}")})


def other(bench: Bench) -> str:
    return min(name for name, writes in roles(bench).items() if not writes)


def unplanned(bench: Bench) -> dict[str, Any]:
    """The plan against a primary that is lost, as soon as there is one, as it is shown."""
    made: Done = until(
        lambda: (
            (seen := bench.run("plan", BOOK, "--mode", "unplanned", "--silence", "1s", "-o", "json")).exit == 0
            and seen.json()["plan"]["actions"]
            and seen
        ),
        "no plan against it",
    )
    return dict(made.json())


def in_order(bench: Bench) -> None:
    """All follow one."""
    try:
        until(lambda: bench.run("check", "replication").exit == 0, "the fleet is not in order")
    except AssertionError as error:
        raise AssertionError(bench.run("check", "replication").said) from error
