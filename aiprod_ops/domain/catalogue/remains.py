"""Indexes that no query can use and every write pays for: failed builds, and what REINDEX and DROP left half done.

Source: PostgreSQL manual, CREATE INDEX, "Building Indexes Concurrently"; REINDEX, "Rebuilding Indexes Concurrently";
index.c, index_set_state_flags (the order of indisvalid, indisready, indislive).
"""

import re
from collections.abc import Iterator

from aiprod_ops.domain.catalogue.faults import Drop, Fault, Level, Rebuild, Repair
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState
from aiprod_ops.domain.schema import Name

_REINDEX = re.compile(r"_cc(new|old)\d*\Z")


def faults(catalogue: Catalogue) -> Iterator[Fault]:
    """INVALID, not ready and half-dropped indexes. One that somebody works on right now is none of them."""
    unusable = [index for index in catalogue.indexes if not index.is_usable and not index.building]
    if not unusable:
        return
    if catalogue.is_standby:
        names = ", ".join(str(index.name) for index in unusable)
        note = f"{names}: not valid; only the primary knows whether they are being built: check there"
        yield Fault("invalid", "standby", Level.UNKNOWN, note)
        return
    tables: dict[Name, list[IndexState]] = {}
    for index in catalogue.indexes:
        tables.setdefault(index.table, []).append(index)
    for index in unusable:
        yield _fault(index, tables[index.table], catalogue)


def _fault(index: IndexState, beside: list[IndexState], catalogue: Catalogue) -> Fault:
    subject = str(index.name)
    if index.is_partitioned:
        return Fault("invalid", subject, Level.WARNING, _unattached(index))
    if not index.is_live or _REINDEX.search(index.name.name):
        left = "REINDEX CONCURRENTLY" if index.is_live else "DROP INDEX CONCURRENTLY"
        note = f"{left} did not end and left it; {_price(index)}; {_who(index, catalogue)}"
        return Fault("remains", subject, Level.WARNING, note, Drop(index.existing))
    return Fault("invalid", subject, Level.WARNING, *_repaired(index, beside, catalogue))


def _repaired(index: IndexState, beside: list[IndexState], catalogue: Catalogue) -> tuple[str, Repair]:
    seen = "not ready: its build ended before a row was in it" if not index.is_ready else "INVALID: its build failed"
    note = f"{seen}; {_price(index)}; {_who(index, catalogue)}"
    twin = next((each for each in beside if each.is_usable and _same(each, index)), None)
    if twin is not None and not index.is_needed:
        return f"{note}; {twin.name} is valid and has the same keys", Drop(index.existing)
    if index.is_unique:
        name = ".".join('"' + part.replace('"', '""') + '"' for part in (index.name.schema, index.name.name))
        note += (
            "; it is unique: as long as keys are doubled a rebuild fails, too. Remove the doubles, or give it up: "
            f"`DROP INDEX CONCURRENTLY {name};`"
        )
    return note, Rebuild(index.existing)


def _same(one: IndexState, other: IndexState) -> bool:
    return one.definition.partition(" USING ")[2] == other.definition.partition(" USING ")[2] and (
        one.is_unique >= other.is_unique
    )


def _unattached(index: IndexState) -> str:
    missing = ", ".join(str(name) for name in index.unattached)
    if not missing:
        return "the partitioned index is not valid because an index attached to it is not: repair that one"
    return (
        f"the partitioned index is not valid before each partition has its own: {missing} lack one; "
        "build it there concurrently, then `ALTER INDEX … ATTACH PARTITION …`"
    )


def _price(index: IndexState) -> str:
    return "no query uses it, every write maintains it" if index.is_ready else "no query uses it, and its name is taken"


def _who(index: IndexState, catalogue: Catalogue) -> str:
    name = _REINDEX.sub("", index.name.name)
    wanted = {index.name.name, name, index.table.name}
    for build in catalogue.failed_builds:
        if build.index in wanted or (not build.index and build.table in wanted):
            by = f"{build.role} ({build.application})" if build.application else build.role
            return f"left by {by} at {build.at}: {build.message}"
    told = f" ({catalogue.log_missing})" if catalogue.log_missing else ""
    return f"its owner is {index.owner}; the log does not tell who left it{told}"
