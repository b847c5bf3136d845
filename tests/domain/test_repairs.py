"""From faults to actions, and the revision that follows."""

from aiprod_ops.actions.repairs import repairs
from aiprod_ops.domain.catalogue.duplicates import pairs
from aiprod_ops.domain.catalogue.faults import Build, Drop, Existing, Fault, Level, Restore
from aiprod_ops.domain.catalogue.indexes import IndexState
from aiprod_ops.domain.catalogue.usage import NodeUsage, UsageSnapshot
from aiprod_ops.domain.revisions import following
from aiprod_ops.domain.schema import Column, Index, Key, Name, Schema, Table

JOBS = Name("public", "jobs")
A, B = Key("user_id"), Key("created_at")


def definition(name: str, *keys: Key) -> str:
    return f"CREATE INDEX {name} ON public.jobs USING btree ({', '.join(key.column for key in keys)})"


def existing(name: str, *keys: Key) -> Existing:
    return Existing(Name("public", name), JOBS, definition(name, *keys))


def index(name: str, *keys: Key) -> Index:
    return Index(Name("public", name), JOBS, keys, definition(name, *keys))


def planned(schema: Schema, *faults: Fault) -> list[tuple[str, str]]:
    from datetime import UTC, datetime

    usage = UsageSnapshot(datetime(2026, 11, 22, tzinfo=UTC), {"here": NodeUsage({})})
    return [(action.kind, action.name) for action in repairs(faults, schema, {}, {}, usage)]


def schema(*indexes: Index) -> Schema:
    return Schema((Table(JOBS, (Column("user_id", "uuid"), Column("created_at", "timestamptz")), indexes),))


FOREIGN_KEY = Fault("foreign-key", "public.jobs.fk", Level.WARNING, "", Build(JOBS, (A,)))


def test_what_a_restored_index_begins_with_is_not_built_beside_it() -> None:
    missing = Fault("missing", "public.wide", Level.WARNING, "", Restore(existing("wide", A, B)))
    assert planned(schema(), FOREIGN_KEY, missing) == [("restore-index", "wide")]
    other = Fault("missing", "public.other", Level.WARNING, "", Restore(existing("other", B, A)))
    assert planned(schema(), FOREIGN_KEY, other) == [
        ("create-index", "idx_jobs_user_id"), ("restore-index", "other")
    ]  # fmt: skip


def test_what_was_repaired_meanwhile_is_not_planned() -> None:
    assert planned(schema(index("idx", A)), FOREIGN_KEY) == []
    gone = Fault("duplicate", "public.idx", Level.WARNING, "", Drop(existing("idx", A)))
    assert planned(schema(), gone) == []
    assert planned(schema(index("idx", B)), gone) == [], "another index of that name"
    assert planned(schema(index("idx", A)), gone) == [("remove-index", "idx")]


def test_of_two_equal_ones_the_declared_one_stays() -> None:
    first, second = (IndexState(Name("public", n), JOBS, definition(n, A), (A,)) for n in ("a", "b"))
    assert [(goes.name.name, stays.name.name) for goes, stays in pairs([first, second])] == [("b", "a")]
    assert [goes.name.name for goes, _ in pairs([first, second], {second.name})] == ["a"]


def test_a_revision_follows_the_heads_of_its_folder() -> None:
    text = 'revision = "d"\ndown_revision = "a"\n'
    first, second = 'revision = "a"\ndown_revision = None\n', 'revision: str = "b"\ndown_revision: str | None = "a"\n'
    assert following(text, []) == text
    assert following(text, [first, "not python ("]) == "revision = \"d\"\ndown_revision = 'a'\n"
    assert following(text, [first, second]) == "revision = \"d\"\ndown_revision = 'b'\n"
    branch = 'revision = "c"\ndown_revision = "a"\n'
    assert following(text, [first, second, branch]) == "revision = \"d\"\ndown_revision = ('b', 'c')\n"
    assert following(text, ['revision = name()\ndown_revision = "a"\n']) == text
