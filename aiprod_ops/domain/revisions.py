"""The Alembic revision of indexes that were built or removed, so that schema and migrations do not drift apart."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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


def following(text: str, others: Iterable[str]) -> str:
    """A revision that comes after the heads of the others, so that two in a row do not make two heads.

    The others are read, not run: `revision` and `down_revision` have to be literals. Where none can be read the text
    stays as it is.
    """
    known: set[Any] = set()
    before: set[Any] = set()
    for other in others:
        known.add(dict(_literals(other)).get("revision"))
        before |= _before(other)
    heads = sorted(str(head) for head in known - before - {None})
    down = heads[0] if len(heads) == 1 else tuple(heads)
    return _DOWN.sub(f"down_revision = {down!r}", text, count=1) if heads else text


def follows(text: str, revision: str) -> bool:
    """Whether a revision names this one as the one before it."""
    return revision in _before(text)


def same(one: str, other: str) -> bool:
    """Whether two texts are one revision, wherever it was put in the line."""
    return _DOWN.sub("", one) == _DOWN.sub("", other)


def _before(text: str) -> set[Any]:
    down = dict(_literals(text)).get("down_revision")
    return set(down) if isinstance(down, list | tuple) else {down}


_DOWN = re.compile(r"^down_revision = .*$", re.MULTILINE)


def _literals(text: str) -> Iterator[tuple[str, Any]]:
    """Names that a module gives a literal at its top; nothing of a text that is no Python."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and node.value is not None:
            with suppress(ValueError):
                yield target.id, ast.literal_eval(node.value)
