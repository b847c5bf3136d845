"""What the target's migrations declare, for a check to compare with what is there."""

from pathlib import Path

import msgspec

from aiprod_ops.domain.catalogue.drift import Migrated
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import OpsError
from aiprod_ops.ports import Kept, Migrations
from aiprod_ops.units import Seconds

_KEPT = "migrated"  #: name in the history

_ROLES = r"""
select rolname::text as role from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres' order by 1
/* aiprod-ops: roles that migrations may name */
"""
_EXTENSIONS = """
select e.extname::text as extension, n.nspname::text as schema
from pg_extension e join pg_namespace n on n.oid = e.extnamespace order by 1
/* aiprod-ops: extensions that migrations may need */
"""
_SEARCH_PATH = """
select current_schemas(false)::text[] as search_path
/* aiprod-ops: where unqualified names are looked for */
"""


def migrated(context: Context, timeout: Seconds = Seconds(60)) -> Migrated:
    """Run the migrations on an empty server of our own, at the most for `timeout`, and keep what came of it.

    It runs again only when something has changed that it follows from, and once a day. Where it cannot run the
    answer says why in `missing`; what the target itself refuses is raised.
    """
    if not context.target.migrations:
        return Migrated(
            missing="the configuration names no migrations: nobody can tell which indexes should be here; "
            f"add `migrations`, Alembic's versions folder, to the target {context.target.name}"
        )
    wanted, known = _wanted(context), _known(context)
    try:
        kept = context.platform.migrated(wanted, known, timeout)
    except OpsError as error:
        return Migrated(missing=error.told)
    if kept is not known:
        _keep(context, kept)
    return kept.migrated


def _wanted(context: Context) -> Migrations:
    server = context.db.server()
    return Migrations(
        folder=str(Path(context.target.migrations).absolute()),
        database=server.database,
        search_path=tuple(context.db.query(_SEARCH_PATH)[0]["search_path"]),
        roles=tuple(row["role"] for row in context.db.query(_ROLES)),
        extensions={row["extension"]: row["schema"] for row in context.db.query(_EXTENSIONS)},
        day=context.clock.now().date(),
        major=server.version // 10000,
    )


def _known(context: Context) -> Kept | None:
    """The last result; one of another shape, of another version of this program, is none."""
    last = context.history.last(_KEPT)
    if last is None:
        return None
    try:
        return msgspec.convert(last.value, Kept)
    except msgspec.ValidationError:
        return None


def _keep(context: Context, kept: Kept) -> None:
    try:
        context.history.keep(_KEPT, context.clock.now(), kept)
    except OSError as error:
        context.report(f"what the migrations declare is not kept: {error.strerror}; they run again next time")
