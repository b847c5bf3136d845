"""The pages of b-trees, read one index after the other by the extensions pgstattuple and amcheck.

What the server says to one index is no reason to leave out the others: they are sent in batches, and a batch that fails
is sent again one by one. Source: PostgreSQL manual, appendix A: XX001
data_corrupted (a page's checksum), XX002 index_corrupted, 58P01 undefined_file, 58030 io_error.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiprod_ops.adapters.postgres.catalog import Query
from aiprod_ops.adapters.postgres.indexes import extension
from aiprod_ops.domain.catalogue.inspections import Inspection, Tree, Trouble
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import Cancelled, Failed, PermissionMissing, TimedOut
from aiprod_ops.units import Bytes

_DAMAGE = re.compile(r"\(SQLSTATE (XX001|XX002|58P01|58030)\)")


_BATCH = 200  #: a round trip for each of 50,000 small indexes takes 40 s; a batch locks so many indexes for reading


def bloat(query: Query, names: Sequence[Name]) -> Inspection:
    """What pgstatindex counts in each. Raises Failed where the extension is missing."""
    function = _function(query, "pgstattuple", "pgstatindex")
    trees: dict[str, Tree] = {}

    def read(batch: Sequence[Name]) -> None:
        for row in query("index_pages", _columns(batch), names={"function": function}):
            trees[str(Name(row["schema"], row["name"]))] = _tree(row)

    troubles = tuple(_troubles(names, read))
    return Inspection(len(names) - len(troubles), trees, troubles)


def damage(query: Query, names: Sequence[Name], *, rows: bool = False) -> Inspection:
    """What amcheck says of each; with `rows` every row of the table is looked for, too. Raises Failed where the
    extension is missing."""
    function = _function(query, "amcheck", "bt_index_check")

    def check(batch: Sequence[Name]) -> None:
        query("index_check", _columns(batch) | {"rows": rows}, names={"function": function})

    troubles = tuple(_troubles(names, check))
    return Inspection(len(names) - len(troubles), troubles=troubles)


def _columns(names: Sequence[Name]) -> dict[str, object]:
    return {"schemas": [name.schema for name in names], "names": [name.name for name in names]}


def _tree(row: dict[str, Any]) -> Tree:
    density = row["density"]  # NaN without a leaf
    return Tree(
        size=Bytes(row["size"]),
        leaf_pages=row["leaf_pages"],
        density=density / 100 if density == density else 0.0,
        internal_pages=row["internal_pages"],
        empty_pages=row["empty_pages"],
        deleted_pages=row["deleted_pages"],
    )


def _function(query: Query, name: str, function: str) -> Name:
    found = extension(query, name)
    if found.missing:
        raise Failed(found.missing)
    return Name(found.schema, function)


def _troubles(names: Sequence[Name], work: Callable[[Sequence[Name]], None]) -> Iterator[Trouble]:
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        if _trouble(batch, work) is not None:
            alone = (_trouble([name], work) for name in batch)
            yield from (trouble for trouble in alone if trouble is not None)


def _trouble(batch: Sequence[Name], work: Callable[[Sequence[Name]], None]) -> Trouble | None:
    try:
        work(batch)
    except Cancelled:
        raise
    except (Failed, TimedOut, PermissionMissing) as error:
        return Trouble(batch[0], error.message, is_damage=_DAMAGE.search(error.message) is not None)
    return None
