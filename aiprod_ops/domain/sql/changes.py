"""What a statement changes: which table, and which columns of rows that are there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from aiprod_ops.domain.sql.trees import Node, kind, parse, walk


@dataclass(frozen=True, slots=True)
class Change:
    """Rows of one table are added, altered or removed; `columns` are those that an UPDATE sets.

    `schema` is '' if unqualified. `verb` is `insert`, `update` or `delete`. One that is not `is_counted` stands in a
    CTE: the server counts the rows of the statement around it.
    """

    schema: str
    table: str
    verb: str
    columns: frozenset[str] = frozenset()
    is_counted: bool = True


def changes(text: str) -> tuple[Change, ...]:
    """All changes of a statement, also those in its CTEs; of a MERGE and an upsert each branch.

    >>> changes("UPDATE jobs SET status = $1, updated_at = now() WHERE id = $2")[0].verb
    'update'

    Raises Unreadable.
    """
    outermost = parse(text)
    return tuple(
        replace(found, is_counted=any(node is each for each in outermost))
        for node in walk(outermost)
        for found in _of(node)
    )


def _of(node: Node) -> Iterator[Change]:
    if kind(node) == "InsertStmt":
        yield _change(node, "insert")
        if node.onConflictClause is not None and node.onConflictClause.targetList:
            yield _change(node, "update", node.onConflictClause.targetList)
    elif kind(node) == "UpdateStmt":
        yield _change(node, "update", node.targetList)
    elif kind(node) == "DeleteStmt":
        yield _change(node, "delete")
    elif kind(node) == "MergeStmt":
        for branch in node.mergeWhenClauses or ():
            verb = branch.commandType.name.removeprefix("CMD_").lower()
            if verb in ("insert", "update", "delete"):
                yield _change(node, verb, branch.targetList if verb == "update" else ())


def _change(node: Node, verb: str, targets: tuple[Node, ...] = ()) -> Change:
    columns = frozenset(target.name for target in targets or () if target.name)
    return Change(node.relation.schemaname or "", node.relation.relname, verb, columns)
