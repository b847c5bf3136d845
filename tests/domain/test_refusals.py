"""What a copy refused is known again while it is fresh, and the index and its table are what they were."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aiprod_ops.domain.advice.coverage import NewIndex
from aiprod_ops.domain.advice.indexes import Candidate
from aiprod_ops.domain.advice.refusals import Refusal, fresh, refused
from aiprod_ops.domain.schema import Column, Condition, Index, Key, Name, Schema, Table
from aiprod_ops.units import Bytes

TABLE = Table(Name("public", "t"), (Column("a", "integer"), Column("b", "integer")))
INDEX = NewIndex(Name("public", "idx_t_a"), TABLE.name, (Key("a"),))
TAKEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
KEPT = Refusal.of(INDEX, TABLE, "helps too little", TAKEN)


def known(index: NewIndex, table: Table = TABLE) -> bool:
    return index.name in refused([Candidate(index, (1,), Bytes(0), "")], [KEPT], Schema((table,)))


def test_the_same_index_is_known_whatever_its_name_is() -> None:
    assert known(INDEX)
    assert known(replace(INDEX, name=Name("public", "idx_t_a_1")))
    assert str(KEPT) == "tried on a copy on 2026-11-20 and refused: helps too little"


@pytest.mark.parametrize(
    "other",
    [
        replace(INDEX, keys=(Key("b"),)),
        replace(INDEX, keys=(Key("a"), Key("b"))),
        replace(INDEX, where=Condition("b", "{} IS NULL")),
    ],
)
def test_another_index_is_not(other: NewIndex) -> None:
    assert not known(other)


def test_a_table_that_has_changed_is_tried_again() -> None:
    there = Index(Name("public", "i"), TABLE.name, (Key("b"),), "")
    assert not known(INDEX, replace(TABLE, indexes=(there,)))
    assert not known(INDEX, replace(TABLE, columns=TABLE.columns[:1]))


def test_the_newest_word_counts_and_old_ones_end() -> None:
    newer = replace(KEPT, reason="makes it worse", taken=TAKEN + timedelta(days=1))
    found = refused([Candidate(INDEX, (1,), Bytes(0), "")], [newer, KEPT], Schema((TABLE,)))
    assert found[INDEX.name] == newer
    assert fresh([KEPT, newer], TAKEN + timedelta(days=8), timedelta(days=7)) == (newer,)
