"""Drift, by tables: what the migrations declare on the left, what is there on the right."""

from dataclasses import replace

import pytest

from aiprod_ops.domain.catalogue.drift import Migrated, Step, drift, drift_scope
from aiprod_ops.domain.catalogue.faults import Existing, Level, Restore
from aiprod_ops.domain.schema import Column, Index, Key, Name, Schema, Table

JOBS = Name("public", "jobs")
V18, V15 = 180006, 150013


def index(name: str, keys: str = "status", *, unique: bool = False, rest: str = "", constraint: str = "") -> Index:
    kind = "UNIQUE INDEX" if unique else "INDEX"
    definition = f"CREATE {kind} {name} ON public.jobs USING btree ({keys}){rest}"
    full = Name("public", name.strip('"'))
    return Index(full, JOBS, (Key(keys),), definition, is_unique=unique, constraint=constraint)


A, B, C = index("a"), index("b", "user_id"), index("c", "created_at")
PKEY = index("jobs_pkey", "id", unique=True, constraint="jobs_pkey")
STEPS = (
    Step("001", (), (A.name, PKEY.name)),
    Step("002", ("001",), (B.name, Name("public", "old"))),
    Step("003", ("002",), (C.name,), (Name("public", "old"),)),
)


def schema(
    *indexes: Index, revision: str = "003", others: tuple[Table, ...] = (), taken: tuple[Name, ...] = ()
) -> Schema:
    versions = Table(Name("public", "alembic_version"), (Column("version_num", "text"),))
    return Schema((versions, Table(JOBS, (), indexes), *others), revision=revision, taken=taken)


def ids(*there: Index, declared: tuple[Index, ...] = (A, B, C), revision: str = "003") -> list[str]:
    migrated = Migrated(schema(*declared), V18, STEPS)
    return [fault.id for fault in drift(migrated, schema(*there, revision=revision), V18)]


def only(declared: Index, *there: Index, revision: str = "003", version: int = V18, taken: tuple[Name, ...] = ()):
    migrated = Migrated(schema(declared), V18, STEPS)
    [fault] = drift(migrated, schema(*there, revision=revision, taken=taken), version)
    return fault


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ((A, B, C), []),
        ((A, C), ["missing:public.b"]),
        ((), ["missing:public.a", "missing:public.b", "missing:public.c"]),
        ((A, B, C, index("d", "prompt")), ["undeclared:public.d"]),
        ((index("a", "status DESC"), B, C), ["different:public.a"]),
        ((index("a", rest=" WHERE (status = 'new'::text)"), B, C), ["different:public.a"]),
        ((index("a", rest=" WITH (fillfactor='70')"), B, C), ["different:public.a"]),
        ((index("z"), B, C), ["renamed:public.a"]),
        ((index("y"), index("z"), B, C), ["renamed:public.a", "undeclared:public.z"]),
        ((index("z", "prompt"), B, C), ["missing:public.a", "undeclared:public.z"]),
        ((replace(A, is_valid=False), B, C), ["missing:public.a"]),
        ((replace(A, is_ready=False), B, C), ["missing:public.a"]),
        ((A, B, C, replace(index("z", "prompt"), is_valid=False)), []),
        ((A, B, C, index("a_ccnew"), index("a_ccold2"), index("b_ccnew1", "user_id")), []),
        ((A, B, C, index("z")), ["undeclared:public.z"]),  # A has its own: a duplicate is no new name of it
    ],
)  # fmt: skip
def test_kinds(there: tuple[Index, ...], expected: list[str]) -> None:
    assert ids(*there) == expected


def test_what_is_missing_comes_back_by_its_definition() -> None:
    fault = only(A)
    assert fault.repair == Restore(Existing(A.name, JOBS, A.definition))
    assert fault.level is Level.WARNING
    assert A.definition in fault.note


def test_a_missing_unique_index_is_critical() -> None:
    assert only(index("u", "email", unique=True)).level is Level.CRITICAL


def test_the_index_of_a_constraint_is_not_restored_alone() -> None:
    fault = only(PKEY)
    assert fault.repair is None
    assert 'ALTER TABLE "public"."jobs" ADD CONSTRAINT "jobs_pkey" … USING INDEX "jobs_pkey";' in fault.note


def test_an_index_that_lost_its_constraint_is_different() -> None:
    fault = only(PKEY, replace(PKEY, constraint=""))
    assert fault.id == "different:public.jobs_pkey"
    assert "(of a constraint); here" in fault.note


def test_an_invalid_index_keeps_its_name_from_being_restored() -> None:
    fault = only(A, replace(A, is_valid=False))
    assert fault.repair is None
    assert 'REINDEX INDEX CONCURRENTLY "public"."a";' in fault.note


def test_a_name_that_is_taken_keeps_the_index_from_being_restored() -> None:
    fault = only(A, taken=(A.name,))
    assert fault.repair is None
    assert fault.note.endswith("rename that one first")


def test_both_definitions_are_shown_and_how_to_change_over() -> None:
    there = index("a", "status DESC")
    fault = only(A, there)
    assert fault.repair is None
    assert f"declared: {A.definition}; here: {there.definition}" in fault.note
    assert '`CREATE INDEX CONCURRENTLY "a_new" ON public.jobs USING btree (status);`' in fault.note
    assert '`DROP INDEX CONCURRENTLY "public"."a";` `ALTER INDEX "public"."a_new" RENAME TO "a";`' in fault.note


def test_lost_uniqueness_is_critical() -> None:
    assert only(index("u", "email", unique=True), index("u", "email")).level is Level.CRITICAL
    assert only(index("u", "email"), index("u", "email", unique=True)).level is Level.WARNING


def test_the_order_of_storage_parameters_is_no_difference() -> None:
    one = index("a", rest=" WITH (fillfactor='70', deduplicate_items=off)")
    assert ids(index("a", rest=" WITH (deduplicate_items=off, fillfactor='70')"), declared=(one,)) == []


def test_names_are_compared_whatever_they_hold() -> None:
    weird = replace(index('"we ""ird ON x"'), name=Name("public", 'we "ird ON x'))
    assert ids(weird, declared=(weird,)) == []
    fault = only(A, weird)
    assert fault.id == "renamed:public.a"
    assert '`ALTER INDEX "public"."we ""ird ON x" RENAME TO "a";`' in fault.note


def test_revisions_that_have_not_run_are_named() -> None:
    migrated = Migrated(schema(A, B, C), V18, STEPS)
    faults = drift(migrated, schema(A, revision="001"), V18)
    assert [fault.id for fault in faults] == ["missing:public.b", "missing:public.c"]
    assert [fault.note.partition(",")[0] for fault in faults] == ["revision 002", "revision 003"]
    assert all("has not run here" in fault.note and fault.repair is None for fault in faults)
    assert {fault.level for fault in faults} == {Level.WARNING}


def test_an_index_that_a_later_revision_drops() -> None:
    old = index("old", "prompt")
    migrated = Migrated(schema(A, B, C), V18, STEPS)
    faults = {fault.id: fault.note for fault in drift(migrated, schema(A, B, old, revision="002"), V18)}
    assert faults["undeclared:public.old"].startswith("revision 003, which drops it, has not run here")
    [after] = drift(migrated, schema(A, B, C, old), V18)
    assert "CREATE INDEX IF NOT EXISTS old ON public.jobs" in after.note
    assert "another finding says that it can go" in after.note


def test_branches_are_followed_to_their_roots() -> None:
    steps = (Step("1"), Step("2a", ("1",)), Step("2b", ("1",), (B.name,)), Step("3", ("2a", "2b"), (C.name,)))
    migrated = Migrated(schema(B, C), V18, steps)
    assert [f.note[:11] for f in drift(migrated, schema(revision="2a,2b"), V18)] == ["the migrati", "revision 3,"]
    assert [f.note[:11] for f in drift(migrated, schema(revision="2a"), V18)] == ["revision 2b", "revision 3,"]
    assert [f.note[:11] for f in drift(migrated, schema(revision="3"), V18)] == ["the migrati"] * 2


@pytest.mark.parametrize(
    ("migrated", "revision", "reason"),
    [
        (Migrated(missing="revision 003 does not run"), "003", "revision 003 does not run"),
        (Migrated(schema(A), V18, STEPS), "", "no revision was found in the database"),
        (Migrated(schema(A), V18, STEPS), "003,999", "at revision 999, which the migrations folder does not have"),
    ],
)
def test_where_nobody_can_tell(migrated: Migrated, revision: str, reason: str) -> None:
    [fault] = drift(migrated, schema(revision=revision), V18)
    assert (fault.id, fault.level, fault.finding.status.name) == ("drift:migrations", Level.UNKNOWN, "UNKNOWN")
    assert reason in fault.note
    assert drift_scope(migrated, schema(revision=revision), V18) == []


def test_another_major_version_may_print_otherwise() -> None:
    fault = only(A, index("a", "status DESC"), version=V15)
    assert fault.level is Level.UNKNOWN
    assert "the migrations ran on PostgreSQL 18, this server is 15" in fault.note
    assert ids(A, declared=(A,)) == []


def test_a_declared_table_that_is_not_there_is_one_fault() -> None:
    other = Name("app", "orders")
    one = replace(index("o"), name=Name("app", "o"), table=other)
    migrated = Migrated(Schema((Table(other, (), (one, replace(one, name=Name("app", "p")))),)), V18, STEPS)
    [fault] = drift(migrated, schema(), V18)
    assert (fault.id, fault.level) == ("missing:app.orders", Level.UNKNOWN)
    assert "its 2 indexes were not compared" in fault.note
    late = replace(migrated, steps=(*STEPS, Step("004", ("003",), (one.name,))))
    [fault] = drift(late, schema(), V18)
    assert fault.level is Level.WARNING
    assert fault.note.startswith("revision 004, which makes it, has not run here")


def test_tables_the_migrations_do_not_know_are_counted() -> None:
    others = (Table(Name("public", "spatial_ref_sys"), (), (index("z"),)), Table(Name("ops", "events"), ()))
    there = schema(A, others=others)
    migrated = Migrated(schema(A), V18, STEPS)
    assert drift(migrated, there, V18) == []
    [line] = drift_scope(migrated, there, V15)
    assert (line.value, line.status.name) == (2.0, "OK")
    assert line.note == (
        "compared with the migrations at their head 003; the database is at 003; the migrations ran on PostgreSQL 18, "
        "this server is 15; not compared: public.spatial_ref_sys, ops.events"
    )
