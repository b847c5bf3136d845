"""The Alembic revision of indexes that were built, so that the schema and its migrations do not drift apart."""

from collections.abc import Mapping, Sequence

from aiprod_ops.actions.index_builds import Build, creation

_TEMPLATE = '''"""{title}

Written by `aiprod-ops run {runbook}` after the index was built and verified; plan {digest}.
It runs on databases that do not have the index yet, and does nothing where it is there and valid.
"""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None

# (schema, index, statement that builds it)
INDEXES = {indexes}


def upgrade() -> None:
    # Outside a transaction, and without a lock_timeout: in the wait phase of a concurrent build one leaves an
    # INVALID index.
    with op.get_context().autocommit_block():
        for schema, name, statement in INDEXES:
            is_valid = op.get_bind().scalar(_STATE, {{"schema": schema, "name": name}})
            if is_valid is False:
                _drop(schema, name)
            if not is_valid:
                op.execute(statement)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for schema, name, _ in reversed(INDEXES):
            _drop(schema, name)


def _drop(schema: str, name: str) -> None:
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {{quote(schema)}}.{{quote(name)}}")


_STATE = sa.text(
    "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :name"
)
'''


def alembic_revision(runbook: str, digest: str, builds: Sequence[Build]) -> Mapping[str, str]:
    """One file: `<digest>_add_<index>.py`. Its revision id is the plan's digest: the same plan writes the same file."""
    if not builds:
        return {}
    first = builds[0]
    rows = "".join(f"    ({b.index.name.schema!r}, {b.index.name.name!r}, {creation(b)!r}),\n" for b in builds)
    title = f"Add {', '.join(build.index.name.name for build in builds)}."
    heads = [head for head in first.revision.split(",") if head]
    down = heads[0] if len(heads) == 1 else tuple(heads) or None
    text = _TEMPLATE.format(
        title=title, runbook=runbook, digest=digest[:12], revision=digest[:12], down=down, indexes=f"[\n{rows}]"
    )
    return {f"{digest[:12]}_add_{first.index.name.name}.py": text}
