"""Bloat: what a rebuild would give back of a b-tree, from what pgstatindex counted in it. Estimates are not used.

Source: PostgreSQL manual, pgstattuple, `pgstatindex`; nbtsort.c (how a build fills pages).
"""

from collections.abc import Iterable, Iterator

from aiprod_ops.domain.catalogue.damage import unread
from aiprod_ops.domain.catalogue.faults import Fault, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState
from aiprod_ops.domain.catalogue.inspections import Inspection, Tree, readable
from aiprod_ops.units import Bytes, Ratio, show

_PAGE = 8192  #: bytes; another block size is a compile-time option that no distribution takes
_META = 1
_ENTRY = 16  #: bytes of the smallest entry with its line pointer and an aligned key of 4 to 8 bytes


def order(indexes: Iterable[IndexState], least: Bytes) -> list[IndexState]:
    """The b-trees of at least this size, first those with the most bytes beyond the smallest entry for each row.

    It says where to look first and no more: wide keys look like bloat to it, deduplication hides it.
    """
    large = [index for index in readable(indexes) if index.size >= least]
    return sorted(large, key=lambda index: (index.rows * _ENTRY * len(index.keys) - index.size, index.name))


def faults(catalogue: Catalogue, read: Inspection, share: Ratio, least: Bytes) -> Iterator[Fault]:
    """One for each index that a rebuild would make smaller by `share`."""
    large = order(catalogue.indexes, least)
    if catalogue.pgstattuple.missing and large:
        yield Fault("bloat", "pgstattuple", Level.UNKNOWN, catalogue.pgstattuple.missing)
    for index in large:
        tree = read.trees.get(str(index.name))
        if tree is not None and (back := wasted(tree, index.fillfactor)) >= share:
            note = (
                f"a rebuild gives {show(back, 'ratio')} of {show(tree.size, 'B')} back: its leaves are "
                f"{show(tree.density, 'ratio')} full, {tree.empty_pages + tree.deleted_pages:,} pages are empty"
            )
            yield Fault("bloat", str(index.name), Level.WARNING, note, Rebuild(index.existing))
    yield from unread("bloat", read)


def wasted(tree: Tree, fillfactor: int = 90) -> float:
    """The share of its size that a rebuild gives back.

    A build fills leaves up to the fillfactor, so the leaves' content needs fewer of them, the inner pages shrink in
    proportion, and empty and deleted pages are gone. What vacuum has not removed yet counts as content.

    >>> round(wasted(Tree(Bytes(1011 * 8192), 1000, 0.45, internal_pages=10), 90), 2)
    0.5
    """
    if not tree.size:
        return 0.0
    leaves = max(1.0, tree.leaf_pages * tree.density * 100 / fillfactor)
    inner = tree.internal_pages * leaves / max(1, tree.leaf_pages)
    return max(0.0, 1 - (_META + leaves + inner) * _PAGE / tree.size)
