"""A drill waits until the runbook sees what was provoked, and not for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from memory_world import Bench

from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.operations import drill
from aiprod_ops.engine.runbook import Lab
from aiprod_ops.errors import Exit, Refused


class DarkHouse:
    """A lab in memory. The lamps go out only when the clock was looked at so many times."""

    def __init__(self, bench: Bench, looks: int) -> None:
        self.bench, self.looks = bench, looks
        bench.light.wanted = set()

    @contextmanager
    def inject(self, _lab: Lab, _params: Any) -> Iterator[None]:
        tick = self.bench.clock.sleep

        def sleep(duration: Any) -> None:
            self.looks -= 1
            if self.looks == 0:
                self.bench.light.wanted = {"a"}
            tick(duration)

        self.bench.clock.sleep = sleep  # type: ignore[method-assign]
        yield
        self.bench.light.wanted = set()


def drilled(bench: Bench, looks: int) -> Any:
    house = DarkHouse(bench, looks)
    bench.entry.book.inject(cast("Any", house.inject))
    world = bench.world(trigger="drill")
    return drill(world, bench.entry, bench.entry.book.params(), cast("Lab", object()))


def test_it_waits_until_the_problem_is_seen(bench: Bench) -> None:
    done = drilled(bench, looks=5)
    assert done.outcome.exit == Exit.DONE
    assert bench.light.on == {"a"}
    assert (done.figures["rto_s"] or 0) > 0
    records = [record.body for _, record in Archive(bench.store).read() if record]
    assert [(body["kind"], body["trigger"]) for body in records] == [
        ("prove", "drill"),
        ("run", "drill"),
        ("drill", "drill"),
    ]
    assert records[-1]["drill"] == done.figures


def test_it_does_not_wait_for_ever(bench: Bench) -> None:
    with pytest.raises(Refused, match="still plans nothing against it"):
        drilled(bench, looks=10_000)
    assert bench.light.switched == []


def test_without_an_inject_there_is_no_drill(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"registers no @book\.inject"):
        drill(bench.world(), bench.entry, None, cast("Lab", object()))
