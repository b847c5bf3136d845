"""Bloat: what a rebuild would give back of a b-tree, from what pgstatindex counted in it, or from a rebuild on a copy.
Estimates are not used.

Source: PostgreSQL manual, pgstattuple, `pgstatindex`; nbtsort.c (how a build fills pages).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aiprod_ops.domain.catalogue.damage import unread
from aiprod_ops.domain.catalogue.faults import Fault, Level, Rebuild
from aiprod_ops.domain.catalogue.indexes import Catalogue, IndexState
from aiprod_ops.domain.catalogue.inspections import Inspection, Tree, readable
from aiprod_ops.units import Bytes, Ratio, show

_PAGE = 8192  #: bytes; another block size is a compile-time option that no distribution takes
_META = 1
_UNMERGED = 0.3  #: duplicates that are not merged yet hid up to 22 points in our tests
_SAME_SIZE = 0.1
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
            told = f"a rebuild gives {show(back, 'ratio')} of {show(tree.size, 'B')} back"
            counted = f"its leaves are {show(tree.density, 'ratio')} full, {_idle(tree):,} pages are empty"
            note = f"{told}: {counted}" if tree.rebuilt is None else f"{told}: tried on a copy"
            yield Fault("bloat", str(index.name), Level.WARNING, note, Rebuild(index.existing))
    yield from unread("bloat", read)


def _idle(tree: Tree) -> int:
    return tree.empty_pages + tree.deleted_pages


def doubtful(indexes: Iterable[IndexState], read: Inspection, share: Ratio) -> list[IndexState]:
    """Those of which a rebuild may give back `share`, though the count says less: on a copy it can be tried.

    Rows that came one by one leave duplicates that nobody has merged yet, and a rebuild merges them. A unique index has
    none to speak of.
    """
    found = ((index, read.trees.get(str(index.name))) for index in indexes if not index.is_unique)
    return [i for i, tree in found if tree and share - _UNMERGED <= wasted(tree, i.fillfactor) < share]


def known_from_copy(read: Inspection, copy: Inspection) -> Inspection:
    """With what rebuilds on a copy gave, of the indexes that are about as large as they were then."""
    trees = dict(read.trees)
    for name, then in copy.trees.items():
        now = trees.get(name)
        if now is not None and then.rebuilt is not None and abs(now.size - then.size) <= _SAME_SIZE * then.size:
            trees[name] = replace(now, rebuilt=Bytes(round(then.rebuilt * now.size / then.size)))
    return replace(read, trees=trees)


def wasted(tree: Tree, fillfactor: int = 90) -> float:
    """The share of its size that a rebuild gives back.

    A build fills leaves up to the fillfactor, so the leaves' content needs fewer of them, the inner pages shrink in
    proportion, and empty and deleted pages are gone. What vacuum has not removed yet counts as content. Where a rebuild
    was tried, it is what that gave.

    >>> round(wasted(Tree(Bytes(1011 * 8192), 1000, 0.45, internal_pages=10), 90), 2)
    0.5
    """
    if not tree.size:
        return 0.0
    if tree.rebuilt is not None:
        return max(0.0, 1 - tree.rebuilt / tree.size)
    leaves = max(1.0, tree.leaf_pages * tree.density * 100 / fillfactor)
    inner = tree.internal_pages * leaves / max(1, tree.leaf_pages)
    return max(0.0, 1 - (_META + leaves + inner) * _PAGE / tree.size)
