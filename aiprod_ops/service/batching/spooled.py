"""A batch as it was sent: validated item by item while it comes, kept in a file until all of it is there.

No connection of the database is held while somebody sends, and memory does not grow with the batch.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from aiprod_ops.service.batching.items import Reader, Unreadable
from aiprod_ops.service.http.problems import MOST_ERRORS, Problem
from aiprod_ops.service.operations.submissions import AnySubmission, Submission
from aiprod_ops.service.operations.views import STORED_PRIORITIES
from aiprod_ops.service.validation import Violation, from_pydantic

_A_TURN = 20  #: items, about 1 ms
_ITEM: TypeAdapter[Submission] = TypeAdapter(AnySubmission)


@dataclass(slots=True)
class Spooled:
    """What was sent: how many items may become jobs (they are in the file), how many may not, and why the first ones.
    `errors` are by item, counted from 1. The digest is of the items, not of the bytes that they came as: a form that is
    sent again has another boundary."""

    accepted: int = 0
    rejected: int = 0
    errors: list[tuple[int, Violation]] = field(default_factory=list)
    file: IO[bytes] = field(default_factory=TemporaryFile)
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> bytes:
        return bytes(self._hash.digest())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The jobs, in their order."""
        self.file.seek(0)
        for line in self.file:
            yield json.loads(line)

    def add(self, item: Any) -> None:
        """Validate an item, as the same would be alone."""
        number = self.accepted + self.rejected + 1
        if isinstance(item, Unreadable):
            self._reject(number, [Violation("", "json", None, item.why, "Send one JSON object.")])
            return
        try:
            job = _ITEM.validate_python(item)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            self._reject(number, [from_pydantic({**each, "loc": ("body", *each["loc"])}) for each in found])
            return
        row = job.model_dump()
        row["priority"] = STORED_PRIORITIES.get(job.priority, job.priority)
        row["title"] = job.title or ""
        line = json.dumps(row).encode() + b"\n"
        self._hash.update(line)
        self.file.write(line)
        self.accepted += 1

    def _reject(self, number: int, violations: list[Violation]) -> None:
        self.rejected += 1
        self._hash.update(f"{number} {violations}\n".encode())
        self.errors += [(number, each) for each in violations[: MOST_ERRORS - len(self.errors)]]


async def spool(body: AsyncIterator[bytes], reader: Reader, most: int) -> Spooled:
    """Read a batch of at most so many items; raises Problem, and OSError where there is no room for it. The event loop
    goes on meanwhile."""
    made = Spooled()
    try:
        async for data in body:
            for number, item in enumerate(reader.feed(data)):
                _add(made, item, most)
                if number % _A_TURN == _A_TURN - 1:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        for item in reader.close():
            _add(made, item, most)
        made.file.flush()  # no room for it is told now, and not while the jobs are copied
    except BaseException:
        made.file.close()
        raise
    return made


def _add(made: Spooled, item: Any, most: int) -> None:
    made.add(item)
    if made.accepted + made.rejected > most:
        detail = f"The batch has more than {most:,} jobs, which is what the tier allows: divide it."
        raise Problem("BATCH_TOO_LARGE", detail, headers={"Connection": "close"})
