"""Hypothetical indexes sift candidates before they are built on the copy: what no plan would take is not built.

Only a sieve, never a verdict: estimated sizes ignore deduplication (94 MB said, 12 MB in fact), and a plan that is
cheap on paper may be slower (54,021 → 2.55 predicted, 2.9 × slower measured). What passes is built and measured.
Source: HypoPG documentation, "Usage".
"""

from collections.abc import Iterable, Mapping

from aiprod_ops.actions.index_builds import Build, creation
from aiprod_ops.actions.measurements import Subject, cases, explained, used_indexes
from aiprod_ops.errors import Failed, PermissionMissing
from aiprod_ops.ports import Database

_IS_THERE = "select from pg_available_extensions where name = 'hypopg' /* aiprod-ops */"
_INSTALL = "create extension if not exists hypopg"
_CREATE = "select indexname as name from hypopg_create_index(%(sql)s) /* aiprod-ops */"
_FORGET = "select hypopg_reset() /* aiprod-ops */"


def unwanted(database: Database, builds: Mapping[str, Build], subjects: Iterable[Subject]) -> set[str]:
    """Names of builds that no plan of their statements would take, custom or generic, if all of them were there.

    On a disposable copy, because the extension is made there. Nothing is unwanted where the server has no HypoPG, or
    fails, nor an index none of whose statements could be planned.
    """
    if not database.query(_IS_THERE):
        return set()
    try:
        database.execute(_INSTALL)
        names = _imagined(database, builds)
        taken, planned = _taken(database, subjects)
        database.query(_FORGET)
    except (Failed, PermissionMissing):
        return set()
    asked = {name for name, build in builds.items() if planned & {query_id for query_id, _ in build.serves}}
    return {name for imagined, name in names.items() if name in asked and imagined not in taken}


def _imagined(database: Database, builds: Mapping[str, Build]) -> dict[str, str]:
    """Build names by the names that HypoPG gave."""
    names: dict[str, str] = {}
    for name, build in sorted(builds.items()):
        rows = database.query(_CREATE, {"sql": creation(build).replace(" CONCURRENTLY", "", 1)})
        names[str(rows[0]["name"])] = name
    return names


def _taken(database: Database, subjects: Iterable[Subject]) -> tuple[set[str], set[int]]:
    """Names of all indexes in the plans, and the query ids that could be planned."""
    taken: set[str] = set()
    planned: set[int] = set()
    for case in cases(subjects):
        taken |= set(used_indexes(explained(database, case, analyze=False)["Plan"]))
        planned.add(case.subject.statement.query_id)
    return taken, planned
