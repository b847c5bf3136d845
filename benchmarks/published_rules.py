"""The rules of two public index advisors, re-implemented from their sources so that they can be measured beside ours.

dexter 0.6 (ankane/dexter: lib/dexter/indexer.rb, column_resolver.rb): every column that a statement names is tried as a
hypothetical index, alone and in ordered pairs; what the planner picks is kept where it saves half of the cost.
PgHero 3.7 (ankane/pghero: lib/pghero/methods/suggested_indexes.rb): for single-table statements, the columns of WHERE
by the rows they leave, then those of ORDER BY, two at the most.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from aiprod_ops.actions.measurements import used_indexes
from aiprod_ops.domain.schema import Schema, TableSize
from aiprod_ops.domain.sql.trees import Node, kind, names, parse, walk
from aiprod_ops.domain.statements import Statement
from aiprod_ops.errors import Failed
from aiprod_ops.ports import Database

Columns = tuple[str, tuple[str, ...]]  #: table, columns

_MIN_COST, _SAVED = 100.0, 0.5  # dexter's defaults: --min-cost, --min-cost-savings-pct


def dexter(database: Database, statements: Sequence[Statement], schema: Schema) -> list[str]:
    """What dexter proposes for normalised statements. The database needs HypoPG."""
    database.query("create extension if not exists hypopg")
    database.query("select hypopg_reset()")
    able = [(each, cost, _named(each, schema)) for each in statements if (cost := _cost(database, each)) is not None]
    able = [each for each in able if each[1] >= _MIN_COST and each[2]]
    singles = sorted({(table, (column,)) for _, _, found in able for table, column in found})
    pairs = sorted({pair for _, _, found in able for pair in _pairs(found)})
    first = _hypothetical(database, singles)
    alone = {each.query_id: _plan(database, each) for each, _, _ in able}
    both = first | _hypothetical(database, pairs)
    paired = {each.query_id: _plan(database, each) for each, _, _ in able}
    known = {(table.name.name, index_columns[:n]) for table in schema.tables for n in (1, 2)
             for index_columns in (tuple(key.column for key in index.keys) for index in table.indexes)}  # fmt: skip
    chosen: set[Columns] = set()
    for each, cost, _ in able:
        chosen |= _kept(database, each, cost, alone[each.query_id], paired[each.query_id], both, known)
    database.query("select hypopg_reset()")
    covered = {(table, columns[:1]) for table, columns in chosen if len(columns) > 1}
    return [_creation(*each) for each in sorted(chosen - covered)]


def _kept(
    database: Database,
    statement: Statement,
    cost: float,
    alone: Mapping[str, Any],
    paired: Mapping[str, Any],
    names_of: Mapping[str, Columns],
    known: set[Columns],
) -> set[Columns]:
    """A pair has a higher bar than a single column; of several for one statement the best one alone is kept."""
    first, second = float(alone["Total Cost"]), float(paired["Total Cost"])
    is_pair = first > _MIN_COST and second < first * _SAVED
    found = _picked(paired if is_pair else alone, names_of) - known
    if is_pair and len(found) > 1:
        found, is_pair = _picked(alone, names_of) - known, False
    if not (is_pair or first < cost * _SAVED):
        return set()
    if len(found) < 2:
        return found
    costs = []
    for each in sorted(found):
        database.query("select hypopg_reset()")
        _hypothetical(database, [each])
        costs.append((float(_plan(database, statement)["Total Cost"]), each))
    best, winner = min(costs)
    return {winner} if best < (first if is_pair else cost) * _SAVED else set()


def _picked(plan: Mapping[str, Any], names_of: Mapping[str, Columns]) -> set[Columns]:
    return {names_of[name] for name in used_indexes(plan) if name in names_of}


def _named(statement: Statement, schema: Schema) -> list[tuple[str, str]]:
    """Every column of the statement's tables whose name occurs in it."""
    tree = parse(statement.text)
    tables = sorted({node.relname for node in walk(tree) if kind(node) == "RangeVar"})
    columns = {names(node.fields)[-1] for node in walk(tree) if kind(node) == "ColumnRef"}
    return [
        (table.name.name, column.name)
        for name in tables
        if (table := schema.table("", name)) is not None
        for column in table.columns
        if column.name in columns and column.type not in ("json", "jsonb", "point")
    ]


def _pairs(found: Sequence[tuple[str, str]]) -> Iterator[Columns]:
    for (table, one), (other, two) in permutations(found, 2):
        if table == other:
            yield table, (one, two)


def _hypothetical(database: Database, wanted: Sequence[Columns]) -> dict[str, Columns]:
    made = {}
    for table, columns in wanted:
        rows = database.query("select indexname from hypopg_create_index(%(sql)s)", {"sql": _creation(table, columns)})
        made[rows[0]["indexname"]] = (table, columns)
    return made


def _cost(database: Database, statement: Statement) -> float | None:
    try:
        return float(_plan(database, statement)["Total Cost"])
    except Failed:
        return None


def _plan(database: Database, statement: Statement) -> dict[str, Any]:
    """The generic plan of a normalised text, prepared without types and executed with NULLs, as dexter does."""
    database.query("set plan_cache_mode = force_generic_plan")
    count = max((node.number for node in walk(parse(statement.text)) if kind(node) == "ParamRef"), default=0)
    if not count:
        return _first(database.query(f"explain (format json) {statement.text}"))
    database.query("deallocate all")
    database.query(f"prepare peer as {statement.text}")
    return _first(database.query(f"explain (format json) execute peer({', '.join(['null'] * count)})"))


def _first(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    plan: dict[str, Any] = rows[0]["QUERY PLAN"][0]["Plan"]
    return plan


def _creation(table: str, columns: Sequence[str], using: str = "") -> str:
    return f"create index on {table} {using}({', '.join(columns)})"


_RANGES = (">", ">=", "<", "<=", "~~", "~~*", "BETWEEN")
_LEAST_ROWS = 500


def pghero(statements: Sequence[Statement], schema: Schema, sizes: Mapping[str, TableSize]) -> list[str]:
    """What PgHero proposes. Where it names a trigram index for LIKE, the statement needs the extension pg_trgm."""
    found: set[tuple[str, str, tuple[str, ...]]] = set()
    for statement in statements:
        asked = _structure(statement.text)
        if asked is None:
            continue
        name, where, sort = asked
        table = schema.table("", name)
        if table is not None and (best := _best(where, sort, sizes[str(table.name)])) is not None:
            using, columns = best
            existing = [tuple(key.column for key in index.keys) for index in table.indexes]
            if not any(each[: len(columns)] == columns for each in existing):
                found.add((name, using, columns))
    return [_creation(table, columns, using) for table, using, columns in sorted(found)]


def _best(
    where: Sequence[tuple[str, str]], sort: Sequence[tuple[str, bool]], size: TableSize
) -> tuple[str, tuple[str, ...]] | None:
    """Columns by the rows they leave; ORDER BY up to its first DESC; what leaves more than 30 % is cut off the end."""
    if size.rows < _LEAST_ROWS or not (where or sort) or any(c not in size.statistics for c, _ in (*where, *sort)):
        return None
    first = next((n for n, (_, descending) in enumerate(sort) if descending), len(sort))
    ranked = sorted(dict.fromkeys(where), key=lambda each: (_left(size, each, size.rows), each[0]))
    asked = [*ranked, *((column, "") for column, _ in sort[: first + 1])]
    if asked[0][1] in ("~~", "~~*"):
        return "using gist ", (f"{asked[0][0]} gist_trgm_ops",)
    rows, left, columns = size.rows, [size.rows], list[str]()
    for column, operator in asked:
        if operator in ("~~", "~~*") or column in columns:
            continue
        columns.append(column)
        rows = _left(size, (column, operator), rows)
        left.append(rows)
        if rows < 50 or len(columns) >= 2 or operator in _RANGES:
            break
    while columns and left[-1] > left[-2] * 0.3:
        columns.pop()
        left.pop()
    return ("", tuple(columns)) if columns else None


def _left(size: TableSize, asked: tuple[str, str], rows: float) -> float:
    column, operator = asked
    known = size.statistics[column]
    if operator == "null":
        return rows * known.null_fraction
    rows *= 1 - known.null_fraction
    one = rows / known.distinct if known.distinct else 0.0
    return (rows + one) / 10 if operator in _RANGES else rows - one if operator == "<>" else one


def _structure(text: str) -> tuple[str, list[tuple[str, str]], list[tuple[str, bool]]] | None:
    """Table, WHERE and ORDER BY of a statement over one table; None for all else (joins, OR, rows, functions)."""
    node = parse(text)[0]
    if kind(node) == "SelectStmt" and node.fromClause and kind(node.fromClause[0]) == "RangeVar":
        table = node.fromClause[0].relname
    elif kind(node) in ("UpdateStmt", "DeleteStmt"):
        table = node.relation.relname
    else:
        return None
    where = _conditions(node.whereClause)
    return None if where is None else (table, where, _sorted(node))


def _conditions(node: Node) -> list[tuple[str, str]] | None:
    if node is None:
        return []
    if kind(node) == "BoolExpr" and node.boolop.name == "AND_EXPR":
        parts = [_conditions(each) for each in node.args]
        return None if None in parts else [each for part in parts for each in part or ()]
    if kind(node) == "NullTest" and kind(node.arg) == "ColumnRef" and node.nulltesttype.name == "IS_NULL":
        return [(names(node.arg.fields)[-1], "null")]
    if kind(node) == "A_Expr" and kind(node.lexpr) == "ColumnRef":
        operator = names(node.name)[-1]
        return [(names(node.lexpr.fields)[-1], operator)] if operator in ("=", "<>", *_RANGES) else None
    return None


def _sorted(node: Node) -> list[tuple[str, bool]]:
    found = []
    for item in getattr(node, "sortClause", None) or ():
        if kind(item.node) != "ColumnRef":
            return []
        found.append((names(item.node.fields)[-1], item.sortby_dir.name == "SORTBY_DESC"))
    return found
