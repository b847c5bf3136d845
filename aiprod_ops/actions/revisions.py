"""The Alembic revision of indexes that were built or removed, so that schema and migrations do not drift apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.schema import Name

_TEMPLATE = '''"""{title}

Written by `aiprod-ops run {runbook}` after the change was made and verified; plan {digest}.
It does nothing where an index that it adds is there and valid, or one that it removes is gone.
"""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None

# (schema, index, statement that builds it)
CREATED = {created}
REMOVED = {removed}


def upgrade() -> None:
    # Outside a transaction, and without a lock_timeout: in the wait phase of a concurrent build one leaves an
    # INVALID index.
    with op.get_context().autocommit_block():
        for index in CREATED:
            _build(*index)
        for schema, name, _ in REMOVED:
            _drop(schema, name)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for index in REMOVED:
            _build(*index)
        for schema, name, _ in reversed(CREATED):
            _drop(schema, name)


def _build(schema: str, name: str, statement: str) -> None:
    is_valid = op.get_bind().scalar(_STATE, {{"schema": schema, "name": name}})
    if is_valid is False:
        _drop(schema, name)
    if not is_valid:
        op.execute(statement)


def _drop(schema: str, name: str) -> None:
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {{quote(schema)}}.{{quote(name)}}")


_STATE = sa.text(
    "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :name"
)
'''


@dataclass(frozen=True, slots=True)
class Declared:
    """An index, and the whole statement that builds it concurrently."""

    name: Name
    statement: str


def alembic_revision(
    runbook: str, digest: str, revision: str, *, created: Sequence[Declared] = (), removed: Sequence[Declared] = ()
) -> Mapping[str, str]:
    """One file, `<digest>_<what>.py`, that follows the heads `revision` names (comma-separated; none: a first one).

    Its revision id is the plan's digest: the same plan writes the same file. Nothing to declare gives no file.
    """
    if not (created or removed):
        return {}
    heads = [head for head in revision.split(",") if head]
    down = heads[0] if len(heads) == 1 else tuple(heads) or None
    told = [f"{word} {', '.join(each.name.name for each in group)}"
            for word, group in (("Add", created), ("Remove", removed)) if group]  # fmt: skip
    text = _TEMPLATE.format(
        title=f"{'. '.join(told)}.", runbook=runbook, digest=digest[:12], revision=digest[:12], down=down,
        created=_rows(created), removed=_rows(removed),
    )  # fmt: skip
    word, first = ("add", created[0]) if created else ("remove", removed[0])
    return {f"{digest[:12]}_{word}_{first.name.name}.py": text}


def _rows(declared: Sequence[Declared]) -> str:
    rows = "".join(f"    ({each.name.schema!r}, {each.name.name!r}, {each.statement!r}),\n" for each in declared)
    return f"[\n{rows}]" if rows else "[]"
