"""Damaged indexes, as amcheck and the page checksums find them.

Source: PostgreSQL manual, amcheck, `bt_index_check`; appendix A: data_corrupted (XX001), index_corrupted (XX002).
"""

from collections.abc import Iterable, Iterator

from aiprod_ops.domain.catalogue.faults import Fault, Kind, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState, listed
from aiprod_ops.domain.catalogue.inspections import Inspection, readable
from aiprod_ops.domain.schema import Name


def order(indexes: Iterable[IndexState]) -> list[IndexState]:
    """What is checked first: the small ones, so that the budget reaches as many as it can."""
    return sorted(readable(indexes), key=lambda index: (index.size, index.name))


def order_with_tables(indexes: Iterable[IndexState]) -> list[IndexState]:
    """Which are compared with their tables first: those of small tables."""
    return sorted(indexes, key=lambda index: (index.table_size, index.name))


def faults(catalogue: Catalogue, checked: Inspection, read: Inspection) -> Iterator[Fault]:
    """One for each index that amcheck (`checked`) or pgstatindex (`read`) found damaged."""
    if catalogue.amcheck.missing and readable(catalogue.indexes):
        yield Fault("damage", "amcheck", Level.UNKNOWN, catalogue.amcheck.missing)
    standing = {index.name: index for index in catalogue.indexes}
    said: dict[Name, str] = {}
    for trouble in (*checked.troubles, *read.troubles):
        if trouble.is_damage and trouble.index in standing:
            said.setdefault(trouble.index, trouble.said)
    for name in sorted(said):
        note = (
            f"{said[name]}; queries may miss rows or fail. Look at the disk and its log first, and keep a copy of the "
            "file: what damaged one may have damaged more"
        )
        yield Fault("damage", str(name), Level.CRITICAL, note, Rebuild(standing[name].existing))
    yield from unread("damage", checked)


def unread(kind: Kind, inspection: Inspection) -> Iterator[Fault]:
    """One UNKNOWN for all indexes that could not be read, one for those that the budget left out."""
    if troubles := [each for each in inspection.troubles if not each.is_damage]:
        note = "; ".join(f"{each.index}: {each.said}" for each in troubles[:5])
        yield Fault(kind, "unread", Level.UNKNOWN, f"{len(troubles)} could not be read: {note}")
    if left := inspection.left_out:
        note = (
            f"{len(left)} indexes are larger than what may be read ({listed(left)}): read them on a copy with "
            "`aiprod-ops prove verify-indexes`, or raise `--read`"
        )
        yield Fault(kind, "budget", Level.UNKNOWN, note)
