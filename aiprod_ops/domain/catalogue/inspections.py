"""What reading the pages of indexes told: figures of b-trees, troubles on the way, and what the budget left out."""

from collections.abc import Iterable
from dataclasses import dataclass, field

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
    """

    checked: int = 0
    trees: dict[str, Tree] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    left_out: tuple[Name, ...] = ()


def readable(indexes: Iterable[IndexState]) -> list[IndexState]:
    """Valid b-trees with pages of their own that nobody is working on."""
    return [
        index
        for index in indexes
        if index.method == "btree" and index.is_usable and not index.is_partitioned and not index.building
    ]


def within(indexes: Iterable[IndexState], budget: Bytes) -> tuple[list[IndexState], list[IndexState]]:
    """Those that fit into the budget in the order given, and those that do not; a smaller one behind may still fit."""
    chosen: list[IndexState] = []
    left_out: list[IndexState] = []
    spent = 0
    for index in indexes:
        fits = spent + index.size <= budget
        spent += index.size if fits else 0
        (chosen if fits else left_out).append(index)
    return chosen, left_out
