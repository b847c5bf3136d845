"""How much a worker may take."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many deliveries may be taken now: of each endpoint what it may have in flight, but `usual` at the most; of
    those in `most`, so many."""

    room: int
    usual: int
    most: Mapping[str, int]

    def of(self, endpoint_id: str, size: int) -> int:
        """What may be taken of an endpoint that would take `size`."""
        return min(size, self.usual, self.most.get(endpoint_id, size))
