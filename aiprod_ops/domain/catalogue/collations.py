"""Collations that sort differently than when an index was built: lookups miss rows, and unique keys are doubled.

Source: PostgreSQL manual, ALTER COLLATION and ALTER DATABASE, "REFRESH COLLATION VERSION"; the version of a database's
own collation is recorded since PostgreSQL 15.
"""

from collections.abc import Iterator

from aiprod_ops.domain.catalogue.faults import Fault, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, CollationState, IndexState


def faults(catalogue: Catalogue) -> Iterator[Fault]:
    """One for each index that sorts or compares by a collation whose version has changed."""
    users: dict[str, list[IndexState]] = {}
    for index in catalogue.indexes:
        for name in index.collations:
            users.setdefault(name, []).append(index)
    for each in catalogue.collations:
        if each.actual and not each.recorded and (lost := users.get(each.name)):
            note = (
                f"no version was recorded (PostgreSQL 15 does it for the database's own) of {each.actual}, which "
                f"{len(lost)} indexes are sorted by: compare the operating system's release with the one they were "
                "built on"
            )
            yield Fault("collation", each.name, Level.UNKNOWN, note)
    changed = [each for each in catalogue.collations if each.recorded and each.recorded != each.actual]
    seen: set[str] = set()
    for collation in changed:
        for index in users.get(collation.name, ()):
            if str(index.name) not in seen and not index.is_partitioned and not index.building:
                seen.add(str(index.name))
                yield _fault(index, collation)


def _fault(index: IndexState, collation: CollationState) -> Fault:
    note = (
        f"it was built by {collation.name} version {collation.recorded}, and the operating system has "
        f"{collation.actual or 'none'} now: lookups may miss rows; when all of its indexes are rebuilt, "
        f"`{collation.refresh}`"
    )
    return Fault("collation", str(index.name), Level.CRITICAL, note, Rebuild(index.existing))
