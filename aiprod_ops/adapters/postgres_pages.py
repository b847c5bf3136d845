"""The pages of b-trees, read one index at a time by the extensions pgstattuple and amcheck.

What the server says to one index is no reason to leave out the others. Source: PostgreSQL manual, appendix A: XX001
data_corrupted (a page's checksum), XX002 index_corrupted, 58P01 undefined_file, 58030 io_error.
"""

import re
from collections.abc import Callable, Sequence

from aiprod_ops.adapters.postgres_catalog import Query
from aiprod_ops.adapters.postgres_indexes import extension
from aiprod_ops.domain.catalogue.inspections import Inspection, Tree, Trouble
from aiprod_ops.domain.schema import Name
from aiprod_ops.errors import Cancelled, Failed, PermissionMissing, TimedOut
from aiprod_ops.units import Bytes

_DAMAGE = re.compile(r"\(SQLSTATE (XX001|XX002|58P01|58030)\)")


def bloat(query: Query, names: Sequence[Name]) -> Inspection:
    """What pgstatindex counts in each. Raises Failed where the extension is missing."""
    function = _function(query, "pgstattuple", "pgstatindex")
    trees: dict[str, Tree] = {}

    def read(name: Name) -> None:
        values = {"schema": name.schema, "name": name.name}
        for row in query("index_pages", values, names={"function": function}):
            density = row["density"]
            trees[str(name)] = Tree(
                size=Bytes(row["size"]),
                leaf_pages=row["leaf_pages"],
                density=density / 100 if density == density else 0.0,
                internal_pages=row["internal_pages"],
                empty_pages=row["empty_pages"],
                deleted_pages=row["deleted_pages"],
            )

    troubles = _each(names, read)
    return Inspection(len(names) - len(troubles), trees, troubles)


def damage(query: Query, names: Sequence[Name]) -> Inspection:
    """What amcheck says of each. Raises Failed where the extension is missing."""
    function = _function(query, "amcheck", "bt_index_check")

    def check(name: Name) -> None:
        query("index_check", {"schema": name.schema, "name": name.name}, names={"function": function})

    troubles = _each(names, check)
    return Inspection(len(names) - len(troubles), troubles=troubles)


def _function(query: Query, name: str, function: str) -> Name:
    found = extension(query, name)
    if found.missing:
        raise Failed(found.missing)
    return Name(found.schema, function)


def _each(names: Sequence[Name], work: Callable[[Name], None]) -> tuple[Trouble, ...]:
    troubles = []
    for name in names:
        try:
            work(name)
        except Cancelled:
            raise
        except (Failed, TimedOut, PermissionMissing) as error:
            troubles.append(Trouble(name, error.message, is_damage=_DAMAGE.search(error.message) is not None))
    return tuple(troubles)
