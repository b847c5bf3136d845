"""What a statement asks of each table: which columns it compares, joins and sorts by.

Only what a b-tree can use is recorded. Source: PostgreSQL manual, "Index Types" (B-Tree), "Multicolumn Indexes",
"Indexes and ORDER BY", "Indexes on Expressions".
"""

from dataclasses import dataclass, field

from aiprod_ops.domain.schema import Condition, Schema
from aiprod_ops.domain.sql.conditions import Comparison, column_text, comparisons
from aiprod_ops.domain.sql.scopes import Level, Relation, levels, own
from aiprod_ops.domain.sql.trees import Node, Unreadable, is_kind, kind, names, parse, uncast

__all__ = ["Access", "Query", "Unreadable", "read"]

Order = tuple[str, bool, bool]

_AGGREGATES = frozenset(
    {
        *("count", "sum", "avg", "min", "max", "stddev", "variance", "mode", "percentile_cont", "percentile_disc"),
        *("array_agg", "string_agg", "json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg", "any_value"),
        *("bool_and", "bool_or", "every", "bit_and", "bit_or"),
    }
)


@dataclass(frozen=True, slots=True)
class Access:
    """One relation at one query level, with the columns that an index could use; `schema` is '' if unqualified.

    `equal` holds what is compared with one value (`=`, a boolean itself, IS NULL) or with a list; the list ones are in
    `lists`, the IS NULL ones in `nulls`, too. `join` is (column, other alias, other column). `sort` is (column,
    descending, nulls first) where ORDER BY belongs to this relation alone; `limit` says that reading may stop early.
    An expression stands as its text (`lower(email)`) and is listed in `expressions`. `level` tells subqueries apart.
    `reads` are the columns that the statement names at all; None where it takes whole rows, or nobody knows. Each of
    the `conditions` holds for every row that is wanted.
    """

    schema: str
    table: str
    alias: str
    equal: tuple[str, ...] = ()
    join: tuple[tuple[str, str, str], ...] = ()
    ranges: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    sort: tuple[Order, ...] = ()
    limit: bool = False
    lists: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    level: int = 0
    reads: tuple[str, ...] | None = field(default=None, compare=False)
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """All relations that a statement reads; `writes` when it changes rows (also in a CTE) or locks them."""

    accesses: tuple[Access, ...] = ()
    writes: bool = False


@dataclass(slots=True)
class _Found:
    """What was found so far for one relation."""

    relation: Relation
    level: int
    by_use: dict[str, list[str]] = field(default_factory=dict)
    join: list[tuple[str, str, str]] = field(default_factory=list)
    sort: tuple[Order, ...] = ()
    limit: bool = False
    expressions: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    is_whole: bool = False  #: whole rows are read

    def access(self) -> Access:
        def used(*uses: str) -> tuple[str, ...]:
            return tuple(dict.fromkeys(column for use in uses for column in self.by_use.get(use, ())))

        relation = self.relation
        return Access(
            relation.schema, relation.table, relation.alias, used("=", "in", "null"), tuple(dict.fromkeys(self.join)),
            used("range"), used("like"), self.sort, self.limit, used("in"), used("null"),
            tuple(dict.fromkeys(self.expressions)), self.level,
            None if self.is_whole or not relation.columns else tuple(sorted(self.reads)),
            tuple(dict.fromkeys(self.conditions)),
        )  # fmt: skip


def read(text: str, schema: Schema | None = None) -> Query:
    """Understand one statement, normalised or with literals.

    With a schema, unqualified columns are resolved in joins and subqueries too; without one, only where a level has a
    single relation. Utility statements give an empty query. Raises Unreadable with a short reason.

    >>> read("SELECT * FROM jobs WHERE status = $1 ORDER BY created_at DESC LIMIT $2").accesses[0].sort
    (('created_at', True, True),)
    """
    found = levels(parse(text), schema)
    relations = {(level.number, each.alias): _Found(each, level.number) for level in found for each in level.relations}
    for level in found:
        for comparison in comparisons(level):
            _record(relations, comparison)
        _record_order(relations, level)
        _record_reads(relations, level)
    accesses = tuple(each.access() for each in relations.values() if each.relation.is_stored)
    return Query(accesses, any(_is_write(level.node) for level in found))


def _is_write(node: Node) -> bool:
    return kind(node) != "SelectStmt" or bool(node.lockingClause) or node.intoClause is not None


def _record(relations: dict[tuple[int, str], _Found], seen: Comparison) -> None:
    found = relations.get((seen.level, seen.alias))
    if found is None:
        return
    if seen.is_expression:
        found.expressions.append(seen.column)
    if seen.use == "only":
        found.conditions.append(Condition(seen.column, seen.form))
    elif seen.use == "join":
        found.join.append((seen.column, seen.other_alias, seen.other_column))
    else:
        found.by_use.setdefault(seen.use, []).append(seen.column)


def _record_reads(relations: dict[tuple[int, str], _Found], level: Level) -> None:
    """Which columns of which relation a level names. `*`, a row as a value, a lock and a change take whole rows."""
    if _is_write(level.node):
        for each in level.relations:
            relations[level.number, each.alias].is_whole = True
    for node in own(level):
        if kind(node) != "ColumnRef":
            continue
        found = level.resolve(node)
        if found is not None:
            relations[found[0].number, found[1].alias].reads.add(found[2])
            continue
        parts = names(node.fields)
        for each in level.relations:
            if parts == ("*",) or each.alias in parts:
                relations[level.number, each.alias].is_whole = True


def _record_order(relations: dict[tuple[int, str], _Found], level: Level) -> None:
    """ORDER BY and LIMIT of a level; a lone `min(x)` or `max(x)` reads like ORDER BY x LIMIT 1.

    Source: PostgreSQL manual, "Aggregate Functions" (note on min and max), "Indexes and ORDER BY".
    """
    node = level.node
    if kind(node) != "SelectStmt" or node.valuesLists:
        return
    extreme = _extreme(level)
    if extreme is not None:
        alias, order = extreme
        found = relations[level.number, alias]
        found.sort, found.limit = (order,), True
        return
    if node.groupClause or node.distinctClause or node.havingClause or node.windowClause or _aggregates(level):
        return
    limit = _is_limited(node)
    orders = [_order(level, each) for each in node.sortClause or ()]
    if not orders:
        for relation in level.relations if limit and len(level.relations) == 1 else ():
            relations[level.number, relation.alias].limit = True
        return
    known = [each for each in orders if each is not None]
    if len(known) == len(orders) and len({alias for alias, _, _ in known}) == 1:
        found = relations[level.number, known[0][0]]
        found.sort, found.limit = tuple(order for _, order, _ in known), limit
        found.expressions += [order[0] for _, order, is_expression in known if is_expression]


def _is_limited(node: Node) -> bool:
    return node.limitCount is not None and not (kind(node.limitCount) == "A_Const" and node.limitCount.isnull)


def _aggregates(level: Level) -> bool:
    return any(
        kind(node) == "FuncCall"
        and node.over is None
        and (node.agg_star or node.agg_filter or node.agg_order or names(node.funcname)[-1] in _AGGREGATES)
        for node in own(level)
    )


def _extreme(level: Level) -> tuple[str, Order] | None:
    node = level.node
    targets: tuple[Node, ...] = node.targetList or ()
    call: Node = targets[0].val if len(targets) == 1 else None
    if kind(call) != "FuncCall" or node.groupClause or len(level.relations) != 1:
        return None
    name = names(call.funcname)[-1]
    if name not in ("min", "max") or call.over or call.agg_filter or len(call.args or ()) != 1:
        return None
    place = column_text(level, call.args[0])
    if place is None or place.is_expression or place.level != level.number:
        return None
    return place.alias, (place.column, name == "max", name == "max")


def _order(level: Level, item: Node) -> tuple[str, Order, bool] | None:
    """One ORDER BY item as (alias, order, is an expression); None when no relation of this level can give it.

    NULLs count as larger than all values: first when descending, unless said otherwise ("Sorting Rows").
    """
    place = column_text(level, _output(level.node, item.node))
    if place is None or place.level != level.number or item.useOp:
        return None
    descending = item.sortby_dir.name == "SORTBY_DESC"
    nulls = item.sortby_nulls.name
    first = descending if nulls == "SORTBY_NULLS_DEFAULT" else nulls == "SORTBY_NULLS_FIRST"
    return place.alias, (place.column, descending, first), place.is_expression


def _output(select: Node, node: Node) -> Node:
    """What an ORDER BY item means: an output column's name or number stands for its expression ("Sorting Rows")."""
    targets = [each for each in select.targetList or () if kind(each) == "ResTarget"]
    if kind(node) == "A_Const" and kind(node.val) == "Integer" and not any(_is_star(each.val) for each in targets):
        position = node.val.ival or 0
        return targets[position - 1].val if 0 < position <= len(targets) else node
    if kind(node) == "ColumnRef" and len(node.fields) == 1:
        for each in targets:
            if each.name == names(node.fields)[0]:
                return each.val
    return node


def _is_star(node: Node) -> bool:
    return is_kind(uncast(node), "ColumnRef") and names(uncast(node).fields)[-1] == "*"
