"""Something that is read while something else goes on."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Later(Generic[T]):
    """An answer that comes."""

    future: "Future[T]"

    def wait(self) -> T:
        """The answer, or the error in its place."""
        return self.future.result()


@contextmanager
def later(work: Callable[[], T]) -> Iterator[Later[T]]:
    """Begin with some work; it has ended when the context ends."""
    with ThreadPoolExecutor(1) as pool:
        yield Later(pool.submit(work))
