"""What migrations declare is asked for with what the last answer followed from, and kept when it is new."""

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import pytest
from memory_world import MemoryStore, Tick

from aiprod_ops.actions.migrated import migrated
from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.catalogue.drift import Migrated, Step
from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.engine.history import History
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import Failed, OpsError, Unreachable
from aiprod_ops.ports import Kept, Migrations, Server
from aiprod_ops.units import Seconds

HEAD = Migrated(Schema(()), 180006, (Step("001", (), (Name("public", "a"),)),))
TARGET = Target("shop", "dsn", migrations="/srv/versions")


class Probe:
    """A server with two roles and one extension."""

    def server(self) -> Server:
        return Server("7", 180006, "shop", "probe", is_superuser=False, is_standby=True, can_write=False)

    def query(self, sql: str) -> list[dict[str, object]]:
        if "pg_roles" in sql:
            return [{"role": "app"}, {"role": "owner"}]
        if "pg_extension" in sql:
            return [{"extension": "citext", "schema": "public"}]
        return [{"search_path": ["app", "public"]}]


class Silent(Probe):
    """A server without contact."""

    def server(self) -> Server:
        raise Unreachable("no contact")


@dataclass
class Platform:
    """Answers `now`, or what it is told to be known already."""

    now: Kept = Kept("digest", {"/x": "1"}, HEAD)  # noqa: RUF009 - frozen
    error: OpsError | None = None
    asked: list[tuple[Migrations, Kept | None]] = field(default_factory=list)

    def migrated(self, migrations: Migrations, known: Kept | None, timeout: Seconds) -> Kept:
        self.asked.append((migrations, known))
        if self.error is not None:
            raise self.error
        return known if known == self.now else self.now


@dataclass
class World:
    probe: Probe = field(default_factory=Probe)
    platform: Platform = field(default_factory=Platform)
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: Tick = field(default_factory=Tick)
    said: list[str] = field(default_factory=list)

    def ask(self, target: Target = TARGET) -> Migrated:
        history = History(self.store, target.name, timedelta(days=400))
        return migrated(
            Context(self.probe, target, self.platform, self.clock, Promises({}, "test"), self.said.append, history)
        )


@pytest.fixture
def world() -> World:
    return World()


def test_the_migrations_get_names_of_the_target_and_nothing_else(world: World) -> None:
    assert world.ask() == HEAD
    names = ("app", "owner")
    wanted = Migrations("/srv/versions", "shop", ("app", "public"), names, {"citext": "public"}, date(2026, 11, 21), 18)
    assert world.platform.asked == [(wanted, None)]


def test_the_last_answer_is_handed_back_and_kept_once(world: World) -> None:
    assert [world.ask(), world.ask(), world.ask()] == [HEAD] * 3
    assert [known for _, known in world.platform.asked] == [None, world.platform.now, world.platform.now]
    assert len(world.store.names("history/shop/migrated/")) == 1


def test_a_new_answer_takes_its_place(world: World) -> None:
    world.ask()
    later = replace(HEAD, version=180007)
    world.platform.now = Kept("other", {}, later)
    assert [world.ask(), world.ask()] == [later, later]
    assert world.platform.asked[-1][1] == world.platform.now


def test_an_answer_that_was_altered_is_none(world: World) -> None:
    world.ask()
    [name] = world.store.names("history/shop/migrated/")
    world.store.put(name, (world.store.get(name) or b"").replace(b'"001"', b'"002"'))
    world.ask()
    assert world.platform.asked[-1][1] is None


def test_an_answer_of_another_shape_is_none(world: World) -> None:
    History(world.store, "shop", timedelta(days=400)).keep("migrated", world.clock.now(), {"inputs": 7})
    world.ask()
    assert world.platform.asked[-1][1] is None


def test_a_failure_is_told_and_not_kept(world: World) -> None:
    world.platform.error = Failed("revision 003 does not run", hint="look at it")
    assert world.ask().missing == "revision 003 does not run; look at it"
    assert world.store.names("history/") == []


def test_a_target_that_does_not_answer_is_no_fault_of_the_migrations(world: World) -> None:
    world.probe = Silent()
    with pytest.raises(Unreachable):
        world.ask()


def test_without_migrations_nobody_can_tell(world: World) -> None:
    assert "the configuration names no migrations" in world.ask(replace(TARGET, migrations="")).missing
    assert world.platform.asked == []


def test_a_full_disk_is_said(world: World) -> None:
    world.store.full = True
    assert world.ask() == HEAD
    assert "No space left on device; they run again next time" in world.said[0]
