"""Which tables a statement changes, also in a CTE."""

from dataclasses import dataclass

from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.domain.sql.trees import is_kind, kind, parse, walk

_KINDS = {"InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete", "MergeStmt": "merge"}


@dataclass(frozen=True, slots=True)
class Write:
    """One change: `kind` is insert, update, delete or merge; `columns` are those an update sets."""

    kind: str
    schema: str
    table: str
    columns: tuple[str, ...] = ()


def writes(text: str) -> tuple[Write, ...]:
    """The changes a statement makes, in the order it names them. Raises Unreadable.

    >>> writes("UPDATE jobs SET status = $1, updated_at = now() WHERE id = $2")
    (Write(kind='update', schema='', table='jobs', columns=('status', 'updated_at')),)
    >>> writes("SELECT 1 FOR UPDATE")
    ()
    """
    found = []
    for node in walk(parse(text)):
        if is_kind(node, *_KINDS):
            columns = tuple(each.name for each in node.targetList or ()) if kind(node) == "UpdateStmt" else ()
            found.append(Write(_KINDS[kind(node)], node.relation.schemaname or "", node.relation.relname, columns))
    return tuple(found)


def written(text: str, schema: Schema) -> set[Name]:
    """The tables of a schema that a statement changes. Raises Unreadable."""
    tables = (schema.table(each.schema, each.table) for each in writes(text))
    return {table.name for table in tables if table is not None}
