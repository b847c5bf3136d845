"""Lists in parts. A cursor names the last item seen, so that what comes or goes meanwhile moves nothing.

It is sealed with the user, the list and its filters: an altered one, or one of another list, is refused.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Column, RowMapping, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.validation import CURSOR

_SEAL_BYTES = 16


class PageRequest(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100, description="How many items, at most.")] = 20
    cursor: Annotated[str, StringConstraints(pattern=CURSOR)] | None = Field(
        None, description="The `next_cursor` of the part before; none for the first part."
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of one user: its name and its filters are sealed into its cursors."""

    secret: bytes
    user_id: str
    name: str
    filters: Mapping[str, str | None]

    async def part(
        self,
        connection: AsyncConnection,
        query: Select[Any],
        key: "Column[Any]",
        page: PageRequest,
        *,
        named: str = "id",
    ) -> tuple[Sequence[RowMapping], str | None]:
        """The rows of one part, newest first, and the cursor of the next. `key` is an id that grows with time; in a row
        it is `named` so."""
        if page.cursor is not None:
            query = query.where(key < self.opened(page.cursor))
        found = (await connection.execute(query.order_by(key.desc()).limit(page.limit + 1))).mappings().all()
        rows = found[: page.limit]
        return rows, self.sealed(str(rows[-1][named])) if len(found) > page.limit else None

    def sealed(self, last: str) -> str:
        """The cursor after an item."""
        data = UUID(last).bytes
        return _written(data + self._seal(data))

    def opened(self, cursor: str) -> str:
        """The id of the item that a cursor follows; raises Problem INVALID_CURSOR."""
        try:
            content = base64.b64decode(cursor + "=", altchars=b"-_", validate=True)
        except binascii.Error:
            content = b""
        data, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
        if cursor != _written(content) or len(data) != _SEAL_BYTES or not hmac.compare_digest(seal, self._seal(data)):
            raise Problem("INVALID_CURSOR")
        return str(UUID(bytes=data))

    def _seal(self, data: bytes) -> bytes:
        filters = "&".join(f"{name}={value}" for name, value in sorted(self.filters.items()) if value is not None)
        signed = b"\0".join([self.user_id.encode(), self.name.encode(), filters.encode(), data])
        return hmac.digest(self.secret, signed, hashlib.sha256)[:_SEAL_BYTES]


def _written(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
