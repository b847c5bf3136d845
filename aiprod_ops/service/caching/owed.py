"""Invalidations that Redis did not confirm: done before anything is read from it again."""

from collections.abc import Iterable

_MOST = 10_000  #: names; beyond them the whole cache is emptied, which is one


class Owed:
    """Names to delete. Each has the number of the time when it was owed last: one that is owed again while it is being
    deleted stays, because the deletion may have come before."""

    def __init__(self, everything: str) -> None:
        self._everything = everything
        self._names: dict[str, int] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._names)

    def add(self, names: Iterable[str]) -> None:
        """
        >>> owed = Owed("*"); owed.add(["a"]); taken = owed.taken(); owed.add(["a", "b"]); owed.paid(taken)
        >>> sorted(owed.taken())
        ['a', 'b']
        """
        self._last += 1
        self._names.update(dict.fromkeys(names, self._last))
        if len(self._names) > _MOST:
            self._names = {self._everything: self._last}

    def taken(self) -> dict[str, int]:
        """All that is owed now; to be given to `paid` when it was deleted."""
        return dict(self._names)

    def paid(self, taken: dict[str, int]) -> None:
        for name, number in taken.items():
            if self._names.get(name) == number:
                del self._names[name]
