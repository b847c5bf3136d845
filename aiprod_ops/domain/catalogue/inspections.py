"""What reading the pages of indexes told: figures of b-trees, troubles on the way, and what the budget left out."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from aiprod_ops.domain.catalogue.indexes import IndexState
from aiprod_ops.domain.schema import Name
from aiprod_ops.units import Bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """A b-tree as `pgstatindex` counts it. `density` is the mean filling of its leaves, 0 for one without any.

    `rebuilt` is its size after a rebuild, where one was tried on a copy.
    """

    size: Bytes
    leaf_pages: int
    density: float
    internal_pages: int = 0
    empty_pages: int = 0
    deleted_pages: int = 0
    rebuilt: Bytes | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an index could not be read, or what is wrong inside it, in the server's words."""

    index: Name
    said: str
    is_damage: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """The indexes that were read, one after the other, until the budget of bytes was spent.

    `trees` are by index (`str(Name)`), filled where figures were asked for; `checked` counts all that were read.
    `uncompared` were looked at without their tables: that none of their rows is missing nobody knows. `files` are the
    filenodes at that time by index, of an inspection that later ones fall back on.
    """

    checked: int = 0
    trees: dict[str, Tree] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    left_out: tuple[Name, ...] = ()
    uncompared: tuple[Name, ...] = ()
    files: dict[str, int] = field(default_factory=dict)


def readable(indexes: Iterable[IndexState]) -> list[IndexState]:
    """Valid b-trees with pages of their own that nobody is working on."""
    return [
        index
        for index in indexes
        if index.method == "btree" and index.is_usable and not index.is_partitioned and not index.building
    ]


def _size(index: IndexState) -> Bytes:
    return index.size


def within(
    indexes: Iterable[IndexState], budget: Bytes, cost: Callable[[IndexState], Bytes] = _size
) -> tuple[list[IndexState], list[IndexState]]:
    """Those that fit into the budget in the order given, and those that do not; a smaller one behind may still fit."""
    chosen: list[IndexState] = []
    left_out: list[IndexState] = []
    spent = 0
    for index in indexes:
        fits = spent + cost(index) <= budget
        spent += cost(index) if fits else 0
        (chosen if fits else left_out).append(index)
    return chosen, left_out


def with_copy(read: Inspection, known: Inspection, standing: Collection[IndexState]) -> Inspection:
    """With what an inspection of a copy told of the indexes that were left out, or looked at without their tables.

    An index that is in another file now was built or rebuilt since: of that one it told nothing.
    """
    same = {index.name for index in standing if known.files.get(str(index.name)) == index.filenode}
    same -= {*known.left_out, *(trouble.index for trouble in known.troubles if not trouble.is_damage)}
    added = same.intersection(read.left_out)
    asked = added.union(same.intersection(read.uncompared))
    without_table = added.intersection(known.uncompared).union(set(read.uncompared) - (same - set(known.uncompared)))
    return replace(
        read,
        trees={**{str(name): known.trees[str(name)] for name in added if str(name) in known.trees}, **read.trees},
        troubles=(*read.troubles, *(trouble for trouble in known.troubles if trouble.index in asked)),
        left_out=tuple(name for name in read.left_out if name not in added),
        uncompared=tuple(sorted(without_table)),
    )
