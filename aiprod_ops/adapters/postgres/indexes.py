"""Everything about indexes, sequences and constraints, read in a few statements whatever their number."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from aiprod_ops.adapters.postgres.catalog import Query
from aiprod_ops.domain.catalogue import indexes as values
from aiprod_ops.domain.catalogue.indexes import Catalogue, Extension, FailedBuild, IndexState
from aiprod_ops.domain.catalogue.usage import NodeUsage
from aiprod_ops.domain.schema import Key, Name
from aiprod_ops.units import Bytes

Row = dict[str, Any]
Failures = Callable[[], tuple[tuple[FailedBuild, ...], str]]
_NOTHING: tuple[tuple[FailedBuild, ...], str] = ((), "")


def catalogue(query: Query, failures: Failures) -> Catalogue:
    """The whole catalogue. `failures` reads the server's log; it is asked only where an index was left behind."""
    access = query("catalogue_access")
    first = access[0]
    indexes = _standing(query)
    is_left = any(not index.is_usable and not index.building for index in indexes)
    failed, log_missing = failures() if is_left else _NOTHING
    extensions = {row["extension"]: row for row in access if row["extension"]}
    own = "catalogue_default_collation" + ("" if first["version"] >= 150000 else "_14")
    return Catalogue(
        version=first["version"],
        database=first["database"],
        role=first["role"],
        reads_statistics=first["reads_statistics"],
        is_standby=first["is_standby"],
        indexes=indexes,
        foreign_keys=tuple(_foreign_key(row) for row in query("catalogue_foreign_keys")),
        sequences=_sequences(query("catalogue_sequences")),
        unvalidated=tuple(values.Unvalidated(**row) for row in query("catalogue_unvalidated")),
        collations=tuple(values.CollationState(**row) for row in (*query(own), *query("catalogue_collations"))),
        pgstattuple=_extension("pgstattuple", extensions),
        amcheck=_extension("amcheck", extensions),
        failed_builds=failed,
        log_missing=log_missing,
    )


def extension(query: Query, name: str) -> Extension:
    """One of the two extensions, as this role finds it now."""
    return _extension(name, {row["extension"]: row for row in query("catalogue_access") if row["extension"]})


def usage(query: Query) -> NodeUsage:
    """What this node counted of each index that is not unique."""
    node = query("node_usage")[0]
    rows = [(str(Name(row["schema"], row["index"])), row) for row in query("index_usage")]
    return NodeUsage(
        scans={name: int(row["scans"] or 0) for name, row in sorted(rows)},
        since=node["since"],
        last={name: row["last"] for name, row in sorted(rows) if row["last"] is not None},
        is_standby=node["is_standby"],
        receiver=node["receiver"],
        standbys=tuple(node["standbys"]),
    )


def _standing(query: Query) -> tuple[IndexState, ...]:
    """The indexes, then who works on them, then once more those that nobody works on: a build that ended meanwhile
    must not look like a carcass, nor one that began."""
    rows = query("catalogue_indexes")
    keys: dict[int, list[Row]] = {}
    for row in query("catalogue_keys"):
        keys.setdefault(row["oid"], []).append(row)
    working = query("index_builds")
    found = {row["oid"]: _index(row, keys[row["oid"]], _building(row, working)) for row in rows if row["oid"] in keys}
    left = [oid for oid, index in found.items() if not index.is_usable and not index.building]
    if left:
        now = {row["oid"]: row["is_usable"] for row in query("index_validity", {"indexes": left})}
        for oid in left:
            if oid not in now:
                del found[oid]
            elif now[oid]:
                found[oid] = replace(found[oid], is_valid=True, is_ready=True, is_live=True)
    return _with_sizes(found.values())


def _with_sizes(indexes: Iterable[IndexState]) -> tuple[IndexState, ...]:
    """A partitioned index is as large as all that belong to it."""
    listed = list(indexes)
    sizes: dict[Name, int] = {}
    for index in listed:
        if index.parent is not None:
            sizes[index.parent] = sizes.get(index.parent, 0) + index.size
    return tuple(
        replace(index, size=Bytes(sizes.get(index.name, 0))) if index.is_partitioned else index for index in listed
    )


def _building(row: Row, working: Sequence[Row]) -> str:
    """Who works on it. REINDEX and DROP INDEX CONCURRENTLY lock the index itself; CREATE INDEX CONCURRENTLY locks its
    table alone, and which index it builds is not shown to every role."""
    is_usable = row["is_valid"] and row["is_ready"] and row["is_live"]
    on_indexes = {each["pid"] for each in working if each["is_index"]}
    for each in working:
        on_it = each["relation"] == row["oid"]
        creates = each["relation"] == row["table_oid"] and each["is_build"] and each["pid"] not in on_indexes
        if on_it or (creates and not is_usable and each["only_index"] in (0, row["oid"])):
            by = f" ({each['application']})" if each["application"] else ""
            return f"process {each['pid']} of {each['role']}{by}"
    return ""


def _index(row: Row, keys: Sequence[Row], building: str) -> IndexState:
    return IndexState(
        name=Name(row["index_schema"], row["index"]),
        table=Name(row["schema"], row["table"]),
        definition=row["definition"],
        keys=tuple(_key(key) for key in keys if not key["is_included"]),
        method=row["method"],
        include=tuple(key["key"] for key in keys if key["is_included"]),
        predicate=row["predicate"],
        is_unique=row["is_unique"],
        nulls_not_distinct=row["nulls_not_distinct"],
        is_deferrable=row["is_deferrable"],
        is_valid=row["is_valid"],
        is_ready=row["is_ready"],
        is_live=row["is_live"],
        constraint=row["constraint"],
        constraint_kind=row["constraint_kind"],
        referenced_by=tuple(row["referenced_by"]),
        is_replica_identity=row["is_replica_identity"],
        is_clustered=row["is_clustered"],
        is_partitioned=row["is_partitioned"],
        parent=Name(row["root_schema"], row["root"]) if row["root"] else None,
        unattached=_names(row["unattached"]),
        fillfactor=row["fillfactor"],
        filenode=row["filenode"],
        size=Bytes(int(row["size"])),
        table_size=Bytes(int(row["table_size"])),
        rows=row["rows"],
        owner=row["owner"],
        building=building,
        leading_nulls=row["leading_nulls"],
        changed=row["changed"],
        hides_statistics=row["hides_statistics"],
        collations=tuple(row["collations"]),
    )


def _key(row: Row) -> Key:
    return Key(
        row["key"],
        row["is_descending"],
        row["is_nulls_first"],
        row["operator_class"],
        is_expression=row["is_expression"],
    )


def _names(pairs: Sequence[Sequence[str]] | None) -> tuple[Name, ...]:
    return tuple(Name(schema, name) for schema, name in pairs or ())


def _foreign_key(row: Row) -> values.ForeignKey:
    return values.ForeignKey(
        row["name"],
        Name(row["schema"], row["table"]),
        tuple(row["columns"]),
        Name(row["referenced_schema"], row["referenced"]),
        row["rows"],
        row["is_partitioned"],
        _names(row["partitions"]),
    )


def _sequences(rows: Sequence[Row]) -> tuple[values.Sequence, ...]:
    found: dict[Name, values.Sequence] = {}
    for row in rows:
        name = Name(row["schema"], row["sequence"])
        fixed = ("last", "smallest", "largest", "increment", "cycles", "is_hidden")
        sequence = found.setdefault(name, values.Sequence(name, **{field: row[field] for field in fixed}))
        if row["column"]:
            sequence.columns[row["column"]] = row["column_largest"]
    return tuple(found.values())


def _extension(name: str, found: dict[str, Row]) -> Extension:
    row = found.get(name)
    return Extension(name, row["schema"], row["may_execute"], row["grant"]) if row else Extension(name)
