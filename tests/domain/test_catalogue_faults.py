"""The other concepts of the catalogue, and the order of all."""

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.catalogue import bloat, collations, damage, foreign_keys, nulls, sequences
from aiprod_ops.domain.catalogue.faults import Build, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import (
    Catalogue,
    CollationState,
    Extension,
    ForeignKey,
    IndexState,
    Sequence,
    Thresholds,
    Unvalidated,
)
from aiprod_ops.domain.catalogue.inspections import Inspection, Tree, Trouble, with_copy, within
from aiprod_ops.domain.catalogue.judgement import faults
from aiprod_ops.domain.plans import canonical
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import Bytes, Ratio

TABLE = Name("public", "t")
MB = 1_000_000
LIMITS = Thresholds(30 * 86400.0, Ratio(0.5), Bytes(10 * MB), Ratio(0.9), Ratio(0.75), Ratio(0.9))
OPEN = {
    "pgstattuple": Extension("pgstattuple", "public", may_execute=True),
    "amcheck": Extension("amcheck", "public", may_execute=True),
}


def index(name: str, *keys: str, **details: Any) -> IndexState:
    size = Bytes(details.pop("size", 20 * MB))
    return IndexState(
        Name("public", name), TABLE, f"CREATE {name}", tuple(Key(key) for key in keys or (name,)), size=size, **details
    )


def catalogue(*indexes: IndexState, **details: Any) -> Catalogue:
    known: dict[str, Any] = {"reads_statistics": True, "is_standby": False} | OPEN | details
    return Catalogue(180000, "d", "reader", indexes=indexes, **known)


# Foreign keys

KEY = ForeignKey("fk", TABLE, ("x", "y"), Name("public", "u"))


@pytest.mark.parametrize(
    "serving",
    [
        index("i", "x", "y"),
        index("i", "y", "x", "z"),
        index("i", "x", "y", predicate="x IS NOT NULL"),
        index("i", "x", "y", is_unique=True),
        index("i", "x", "y", is_valid=False, building="process 1"),
    ],
)
def test_a_foreign_key_that_is_served(serving: IndexState) -> None:
    assert list(foreign_keys.faults([KEY], [serving])) == []


@pytest.mark.parametrize(
    "idle",
    [
        index("i", "x"),
        index("i", "x", "z", "y"),
        index("i", "x", "y", predicate="z > 0"),
        index("i", "x", "y", is_valid=False),
        index("i", "x", "y", method="gin"),
        replace(index("i"), keys=(Key("lower(x)", is_expression=True), Key("y"))),
        replace(index("i", "x", "y"), table=Name("public", "u")),
    ],
)
def test_a_foreign_key_that_is_not(idle: IndexState) -> None:
    (found,) = foreign_keys.faults([KEY, replace(KEY, name="fk2")], [idle])
    assert found.id == "foreign-key:public.t.fk"
    assert found.repair == Build(TABLE, (Key("x"), Key("y")))


def test_the_leaves_of_a_partitioned_table() -> None:
    leaves = (Name("public", "t1"), Name("public", "t2"))
    key = replace(KEY, is_partitioned=True, partitions=leaves)
    each = [replace(index("i", "x", "y"), table=leaf) for leaf in leaves]
    assert list(foreign_keys.faults([key], each)) == []
    (found,) = foreign_keys.faults([key], each[:1])
    assert found.repair is None


# NULLs


@pytest.mark.parametrize(
    ("index_", "kinds"),
    [
        (index("a", leading_nulls=0.95), ["public.a"]),
        (index("a", leading_nulls=0.9), ["public.a"]),
        (index("a", leading_nulls=0.89), []),
        (index("a", leading_nulls=0.95, size=MB), []),
        (index("a", leading_nulls=0.95, predicate="a IS NOT NULL"), []),
        (index("a", leading_nulls=0.95, constraint="a"), []),
        (index("a", leading_nulls=0.95, method="hash"), []),
        (index("a", hides_statistics=True), ["privilege"]),
        (index("a"), ["statistics"]),
        (index("a", leading_nulls=0.95, changed=0.6), ["statistics"]),
        (index("a", leading_nulls=0.1, changed=0.6), ["statistics"]),
        (index("a", leading_nulls=0.95, changed=0.2), ["public.a"]),
        (index("a", size=MB), []),
    ],
)
def test_mostly_null(index_: IndexState, kinds: list[str]) -> None:
    found = list(nulls.faults(catalogue(index_), Ratio(0.9), Bytes(10 * MB)))
    assert [fault.subject for fault in found] == kinds
    assert all((fault.level is Level.UNKNOWN) == (fault.subject[:7] != "public.") for fault in found)


# Bloat and damage


def pages(leaves: int, density: float, **details: int) -> Tree:
    others = sum(details.values())
    return Tree(Bytes((1 + leaves + others) * 8192), leaves, density, **details)


@pytest.mark.parametrize(
    ("tree", "fillfactor", "back"),
    [
        (pages(1000, 0.9, internal_pages=5), 90, 0.0),
        (pages(1000, 0.18, internal_pages=5), 90, 0.8),
        (pages(1000, 0.7), 70, 0.0),
        (pages(1000, 0.95), 90, 0.0),
        (pages(100, 0.9, deleted_pages=300), 90, 0.75),
        (pages(1, 0.0), 90, 0.0),
        (Tree(Bytes(0), 0, 0.0), 90, 0.0),
    ],
)
def test_what_a_rebuild_gives_back(tree: Tree, fillfactor: int, back: float) -> None:
    assert bloat.wasted(tree, fillfactor) == pytest.approx(back, abs=0.01)


@given(st.integers(1, 10**6), st.floats(0, 1), st.integers(0, 10**5), st.integers(0, 10**5), st.integers(10, 100))
def test_a_share_is_a_share(leaves: int, density: float, deleted: int, inner: int, fillfactor: int) -> None:
    tree = pages(leaves, density, deleted_pages=deleted, internal_pages=inner)
    assert 0 <= bloat.wasted(tree, fillfactor) < 1


def test_bloat_asks_for_size_and_share() -> None:
    large = index("a")
    trees = {"public.a": pages(1000, 0.2), "public.b": pages(1000, 0.2)}
    seen = catalogue(large, index("b", size=MB), index("c"))
    found = list(bloat.faults(seen, Inspection(2, trees), Ratio(0.5), Bytes(10 * MB)))
    assert [(fault.id, fault.repair) for fault in found] == [("bloat:public.a", Rebuild(large.existing))]
    closed = catalogue(large, pgstattuple=Extension("pgstattuple"))
    (unknown,) = bloat.faults(closed, Inspection(), Ratio(0.5), Bytes(10 * MB))
    assert (unknown.level, "`CREATE EXTENSION pgstattuple`" in unknown.note) == (Level.UNKNOWN, True)
    assert list(bloat.faults(closed, Inspection(), Ratio(0.5), Bytes(100 * MB))) == []


def test_the_most_suspicious_comes_first() -> None:
    usual, swollen = index("a", rows=1e6, size=30 * MB), index("b", rows=1e4, size=25 * MB)
    assert bloat.order([usual, swollen], Bytes(0)) == [swollen, usual]
    assert within([usual, swollen, index("c", size=MB)], Bytes(32 * MB)) == ([usual, index("c", size=MB)], [swollen])


def test_damage_of_either_kind_is_told_once() -> None:
    one, two = index("a"), index("b")
    checked = Inspection(1, troubles=(Trouble(one.name, "hole", is_damage=True), Trouble(two.name, "locked")))
    read = Inspection(1, troubles=(Trouble(one.name, "bad page", is_damage=True),), left_out=(two.name,))
    found = list(damage.faults(catalogue(one, two), checked, read))
    assert [(fault.id, fault.level) for fault in found] == [
        ("damage:public.a", Level.CRITICAL),
        ("damage:unread", Level.UNKNOWN),
    ]
    assert [each.id for each in bloat.faults(catalogue(one, two), read, Ratio(0.5), Bytes(0))] == ["bloat:budget"]


def test_what_a_copy_told_counts_for_the_same_file_only() -> None:
    """Looked at are a to d without their tables, e was left out; the copy compared all but d, which failed there."""
    small, hurt, built, failed, large = (index(name, filenode=n) for n, name in enumerate("abcde", 1))
    read = Inspection(4, uncompared=(small.name, hurt.name, built.name, failed.name), left_out=(large.name,))
    lacking = Trouble(hurt.name, "lacks a row", is_damage=True)
    files = {str(each.name): each.filenode for each in (small, hurt, failed, large)} | {str(built.name): 99}
    known = Inspection(4, troubles=(lacking,), uncompared=(failed.name,), files=files)
    told = with_copy(read, known, [small, hurt, built, failed, large])
    assert (told.troubles, told.left_out, told.uncompared) == ((lacking,), (), (built.name, failed.name))
    rebuilt = replace(hurt, filenode=17)
    assert with_copy(read, known, [small, rebuilt, built, failed, large]).troubles == ()


def test_an_index_that_the_copy_did_not_have_is_not_known_from_it() -> None:
    large, new = index("a", filenode=1), index("b", filenode=2)
    read = Inspection(left_out=(large.name, new.name))
    told = with_copy(read, Inspection(1, uncompared=(large.name,), files={"public.a": 1}), [large, new])
    assert (told.left_out, told.uncompared) == ((new.name,), (large.name,))


# Sequences

INT = 2**31 - 1
BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("sequence", "share"),
    [
        (Sequence(TABLE, None, 1, 10), 0.0),
        (Sequence(TABLE, 8, 1, 10), 0.8),
        (Sequence(TABLE, 10, 1, 10), 1.0),
        (Sequence(TABLE, 8, 1, 10, cycles=True), 0.0),
        (Sequence(TABLE, INT // 2 + 1, 1, BIG, columns={"t.id": INT}), 0.5),
        (Sequence(TABLE, INT // 2 + 1, 1, INT, cycles=True, columns={"t.id": INT}), 0.0),
        (Sequence(TABLE, 30000, 1, BIG, cycles=True, columns={"t.id": 32767}), 0.9155),
        (Sequence(TABLE, -9, -10, -1, increment=-1), 0.9),
        (Sequence(TABLE, BIG // 2, 1, BIG, columns={"t.id": BIG}), 0.5),
        (Sequence(TABLE, 200, 101, 300), 0.5),
    ],
)
def test_how_much_of_a_sequence_is_used(sequence: Sequence, share: float) -> None:
    assert sequences.used(sequence)[0] == pytest.approx(share, abs=1e-3)


def test_sequences_by_level() -> None:
    listed = (
        Sequence(Name("s", "a"), 80, 1, 100),
        Sequence(Name("s", "b"), 95, 1, 100),
        Sequence(Name("s", "c"), 70, 1, 100),
        Sequence(Name("s", "d"), None, 1, 100, is_hidden=True),
        Sequence(Name("s", "e"), None, 1, 100, is_hidden=True),
    )
    found = {fault.id: fault.level for fault in sequences.faults(catalogue(sequences=listed), Ratio(0.75), Ratio(0.9))}
    assert found == {"sequence:privilege": "unknown", "sequence:s.a": "warning", "sequence:s.b": "critical"}


# Collations


@pytest.mark.parametrize(
    ("recorded", "actual", "ids"),
    [
        ("2.31", "2.31", []),
        ("2.31", "2.36", ["collation:public.a"]),
        ("2.31", "", ["collation:public.a"]),
        ("", "", []),
        ("", "2.36", ["collation:default"]),
    ],
)
def test_collations(recorded: str, actual: str, ids: list[str]) -> None:
    state = CollationState("default", recorded, actual, "ALTER DATABASE d REFRESH COLLATION VERSION")
    sorted_by = index("a", collations=("default",))
    assert [fault.id for fault in collations.faults(catalogue(sorted_by, index("b"), collations=(state,)))] == ids


# All of them


@given(st.randoms())
def test_the_order_does_not_depend_on_the_order_of_the_facts(chance: random.Random) -> None:
    indexes = [index("a", "x"), index("b", "x"), index("c", "x", "y"), index("d", "q", leading_nulls=0.99),
               index("e", "z", is_valid=False), index("f_ccnew", "z", is_valid=False)]  # fmt: skip
    rest = {
        "foreign_keys": [KEY, replace(KEY, name="gk", columns=("q", "r"))],
        "sequences": [Sequence(Name("s", name), 95, 1, 100) for name in "ab"],
        "unvalidated": [Unvalidated(name, "public.t", "check", "ALTER …") for name in "ab"],
    }

    def judged() -> list[str]:
        seen = catalogue(*indexes, **{name: tuple(values) for name, values in rest.items()})
        return [fault.id for fault in faults(seen, [], Inspection(), Inspection(), LIMITS)]

    before = judged()
    for values in (indexes, *rest.values()):
        chance.shuffle(values)
    assert judged() == before
    assert len(before) == len(set(before)) == 11


def test_a_role_that_sees_no_statistics_is_told() -> None:
    found = faults(catalogue(reads_statistics=False), [], Inspection(), Inspection(), LIMITS)
    assert [(fault.id, "`GRANT pg_monitor TO reader`" in fault.note) for fault in found] == [
        ("statistics:privilege", True)
    ]


def test_the_catalogue_is_plain_data() -> None:
    full = catalogue(index("a", unattached=(TABLE,), parent=TABLE), foreign_keys=(KEY,),
                     sequences=(Sequence(TABLE, 1, 1, 2, columns={"t.id": 9}),))  # fmt: skip
    assert msgspec.json.decode(canonical(full), type=Catalogue) == full
