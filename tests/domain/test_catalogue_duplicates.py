"""Duplicates and remains: which index can go, and never the last one that does the work."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.catalogue import duplicates, remains
from aiprod_ops.domain.catalogue.faults import Drop, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, FailedBuild, IndexState
from aiprod_ops.domain.schema import Key, Name

TABLE = Name("public", "t")


def index(name: str, *keys: str, **details: Any) -> IndexState:
    """`-a` is a DESC; an expression has a bracket."""
    parts = tuple(
        Key(key.lstrip("-"), key.startswith("-"), key.startswith("-"), is_expression="(" in key) for key in keys
    )
    method = details.get("method", "btree")
    definition = f"CREATE INDEX {name} ON public.t USING {method} ({', '.join(keys)})"
    return IndexState(Name("public", name), TABLE, definition, parts, **details)


def going(*indexes: IndexState) -> set[str]:
    return {index.name.name for index, _ in duplicates.pairs(indexes)}


@pytest.mark.parametrize(
    ("one", "other", "goes"),
    [
        (index("a", "x"), index("b", "x"), {"b"}),
        (index("a", "x"), index("b", "x", "y"), {"a"}),
        (index("a", "x", "y"), index("b", "-x", "-y"), {"b"}),
        (index("a", "-x"), index("b", "x", "y"), {"a"}),
        (index("a", "x"), index("b", "x", include=("y",)), {"a"}),
        (index("a", "x", include=("y",)), index("b", "x", "y"), {"a"}),
        (index("a", "x"), index("b", "x", is_unique=True), {"a"}),
        (index("a", "x", is_unique=True), index("b", "x", is_unique=True, constraint="b"), {"a"}),
        (index("a", "lower(x)"), index("b", "lower(x)"), {"b"}),
        (index("a", "x", predicate="y > 0"), index("b", "x", predicate="y > 0"), {"b"}),
        (index("a", "x", method="gin"), index("b", "x", method="gin"), {"b"}),
    ],
)
def test_duplicates(one: IndexState, other: IndexState, goes: set[str]) -> None:
    assert going(one, other) == going(other, one) == goes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (index("a", "x", "y"), index("b", "y", "x")),
        (index("a", "x", "y"), index("b", "x", "-y")),
        (index("a", "x"), index("b", "y", "x")),
        (index("a", "x"), index("b", "x", predicate="y > 0")),
        (index("a", "x", predicate="y > 1"), index("b", "x", predicate="y > 0")),
        (index("a", "x"), index("b", "x", method="hash")),
        (index("a", "lower(x)"), index("b", "upper(x)")),
        (index("a", "x", is_unique=True), index("b", "x", "y")),
        (index("a", "x", is_unique=True), index("b", "x", "y", is_unique=True)),
        (index("a", "x", is_unique=True), index("b", "x", is_unique=True, constraint="b", is_deferrable=True)),
        (
            index("a", "x", is_unique=True),
            index("b", "x", is_unique=True, nulls_not_distinct=True, constraint="b"),
        ),
        (index("a", "x", include=("y",)), index("b", "x", "z")),
        (index("a", "x", constraint="a"), index("b", "x", constraint="b")),
        (index("a", "x", is_replica_identity=True), index("b", "x", "y")),
        (index("a", "x", is_clustered=True), index("b", "x", "y")),
        (index("a", "x", is_unique=True, referenced_by=("t.fk",)), index("b", "x", is_unique=True, constraint="b")),
        (index("a", "x", parent=Name("public", "p")), index("b", "x", parent=Name("public", "q"))),
        (index("a", "x"), index("b", "x", is_valid=False)),
        (index("a", "x"), index("b", "x", building="process 1")),
        (index("a", "x", method="gin"), index("b", "x", "y", method="gin")),
        (index("a", "x"), replace(index("b", "x"), table=Name("public", "u"))),
    ],
)
def test_no_duplicates(one: IndexState, other: IndexState) -> None:
    assert going(one, other) == going(other, one) == set()


def test_another_operator_class_or_collation_is_another_key() -> None:
    plain = index("a", "x")
    pattern = replace(plain, name=Name("public", "b"), keys=(Key("x", operator_class="text_pattern_ops"),))
    collated = replace(plain, name=Name("public", "c"), keys=(Key('x COLLATE "C"', is_expression=True),))
    assert going(plain, pattern, collated) == set()


def test_a_chain_ends_in_one_that_stays() -> None:
    found = duplicates.pairs([index("a", "x"), index("c", "x", "y", "z"), index("b", "x", "y")])
    assert [(one.name.name, keeper.name.name) for one, keeper in found] == [("a", "c"), ("b", "c")]


def test_a_partitioned_index_is_told_once_and_by_hand() -> None:
    parents = [index("a", "x", is_partitioned=True), index("b", "x", is_partitioned=True)]
    (found,) = duplicates.faults([*parents, index("c", "x", parent=parents[0].name)])
    assert (found.subject, found.repair) == ("public.b", None)
    assert "exclusive lock" in found.note


KEYS = st.lists(st.sampled_from(["a", "-a", "b", "-b", "lower(a)"]), min_size=1, max_size=3, unique=True)


def numbered(found: list[IndexState]) -> list[IndexState]:
    return [replace(each, name=Name("public", f"n{number}")) for number, each in enumerate(found)]


INDEXES = st.lists(
    st.builds(
        lambda keys, unique, needed, predicate, include: index(
            "n", *keys, is_unique=unique, constraint="c" if needed else "", predicate=predicate, include=include
        ),
        KEYS, st.booleans(), st.booleans(), st.sampled_from(["", "", "a > 0"]), st.sampled_from([(), ("b",), ("z",)]),
    ),
    max_size=8,
).map(numbered)  # fmt: skip


@given(INDEXES, st.randoms())
def test_what_stays_does_the_work_of_all_that_go(found: list[IndexState], chance: random.Random) -> None:
    pairs = duplicates.pairs(found)
    gone = {one.name for one, _ in pairs}
    assert all(keeper.name not in gone and duplicates.covers(keeper, one) for one, keeper in pairs)
    assert not any(one.is_needed for one, _ in pairs)
    assert not duplicates.pairs([each for each in found if each.name not in gone])
    shuffled = list(found)
    chance.shuffle(shuffled)
    assert duplicates.pairs(shuffled) == pairs


# Remains


def catalogue(*indexes: IndexState, **details: Any) -> Catalogue:
    return Catalogue(180000, "d", "r", **({"reads_statistics": True, "is_standby": False} | details), indexes=indexes)


@pytest.mark.parametrize(
    ("broken", "beside", "id_", "repair"),
    [
        (index("a", "x", is_valid=False), index("z", "y"), "invalid:public.a", Rebuild),
        (index("a", "x", is_valid=False), index("z", "x"), "invalid:public.a", Drop),
        (index("a", "x", is_valid=False, is_unique=True), index("z", "x"), "invalid:public.a", Rebuild),
        (index("a", "x", is_valid=False, is_ready=False), index("z", "y"), "invalid:public.a", Rebuild),
        (index("a_ccnew", "x", is_valid=False), index("z", "y"), "remains:public.a_ccnew", Drop),
        (index("a_ccold12", "x", is_valid=False), index("z", "y"), "remains:public.a_ccold12", Drop),
        (index("a", "x", is_valid=False, is_ready=False, is_live=False), index("z", "y"), "remains:public.a", Drop),
    ],
)
def test_remains(broken: IndexState, beside: IndexState, id_: str, repair: type) -> None:
    (found,) = remains.faults(catalogue(broken, beside))
    assert found.id == id_
    assert isinstance(found.repair, repair)


def test_look_alikes_of_remains() -> None:
    assert list(remains.faults(catalogue(index("a_ccnew", "x"), index("b", "y", is_valid=False, building="1")))) == []
    (partial,) = remains.faults(catalogue(index("p", "x", is_valid=False, is_partitioned=True, unattached=(TABLE,))))
    assert (partial.repair, "public.t" in partial.note) == (None, True)
    (unknown,) = remains.faults(catalogue(index("a", "x", is_valid=False), is_standby=True))
    assert unknown.finding.status.name == "UNKNOWN"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (FailedBuild("a", "t", "ann", "psql", "at noon", "deadlock"), "left by ann (psql) at at noon: deadlock"),
        (FailedBuild("", "t", "ann", "", "noon", "deadlock"), "left by ann at noon"),
        (FailedBuild("b", "t", "ann", "psql", "noon", "deadlock"), "its owner is bob"),
    ],
)
def test_who_left_it(build: FailedBuild, said: str) -> None:
    broken = index("a", "x", is_valid=False, owner="bob")
    (found,) = remains.faults(catalogue(broken, failed_builds=(build,)))
    assert said in found.note
