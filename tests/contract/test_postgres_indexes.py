"""A build that ends, or is seen, between two readings of the catalogue is never blamed."""

from collections.abc import Mapping
from typing import Any

import pytest

from aiprod_ops.adapters.postgres import indexes
from aiprod_ops.domain.catalogue.indexes import IndexState

Row = dict[str, Any]
INDEX: Row = {
    "oid": 7, "table_oid": 3, "schema": "public", "table": "t", "index_schema": "public", "index": "a",
    "definition": "CREATE INDEX a ON public.t USING btree (x)", "method": "btree", "predicate": "", "is_unique": False,
    "nulls_not_distinct": False, "is_deferrable": False, "is_valid": False, "is_ready": True, "is_live": True,
    "constraint": "", "constraint_kind": "", "referenced_by": [], "is_replica_identity": False, "is_clustered": False,
    "is_partitioned": False, "root_schema": None, "root": None, "unattached": None, "fillfactor": 90, "filenode": 1,
    "rows": 0.0, "size": 8192, "table_size": 8192, "owner": "bob", "leading_nulls": None, "changed": 0.0,
    "hides_statistics": False, "collations": [],
}  # fmt: skip
KEY: Row = {"oid": 7, "is_included": False, "is_expression": False, "key": "x", "is_descending": False,
            "is_nulls_first": False, "operator_class": ""}  # fmt: skip
ACCESS: Row = {"version": 180000, "database": "d", "role": "r", "is_standby": False, "reads_statistics": True,
               "extension": None}  # fmt: skip


def working(relation: int, **details: Any) -> Row:
    usual = {"is_index": False, "only_index": 7, "is_build": True, "pid": 42, "role": "ann", "application": "psql"}
    return usual | {"relation": relation} | details


def read(builds: list[Row], now: list[Row]) -> tuple[tuple[IndexState, ...], list[str]]:
    """The indexes as read, and the order of the readings."""
    answers = {"catalogue_indexes": [INDEX], "catalogue_keys": [KEY], "catalogue_access": [ACCESS],
               "index_builds": builds, "index_validity": now}  # fmt: skip
    asked: list[str] = []

    def query(
        name: str, values: Mapping[str, Any] | None = None, *, names: Mapping[str, Any] | None = None
    ) -> list[Row]:
        asked.append(name)
        return answers.get(name, [])

    return indexes.catalogue(query, lambda: ((), "")).indexes, asked


def test_builds_are_read_after_the_indexes_and_before_their_validity() -> None:
    (index,), asked = read([], [{"oid": 7, "is_usable": False}])
    assert not index.is_usable
    positions = [asked.index(name) for name in ("catalogue_indexes", "index_builds", "index_validity")]
    assert positions == sorted(positions)


def test_a_build_that_ended_meanwhile() -> None:
    assert [index.is_usable for index in read([], [{"oid": 7, "is_usable": True}])[0]] == [True]
    assert read([], [])[0] == ()


@pytest.mark.parametrize(
    ("build", "is_building"),
    [
        (working(3), True),
        (working(3, only_index=0), True),
        (working(3, only_index=8), False),
        (working(4, only_index=0), False),
        (working(7, is_index=True, is_build=False, only_index=0), True),
        (working(8, is_index=True), False),
    ],
)
def test_who_works_on_it(build: Row, is_building: bool) -> None:
    (index,), _ = read([build], [{"oid": 7, "is_usable": False}])
    assert index.building == ("process 42 of ann (psql)" if is_building else "")
