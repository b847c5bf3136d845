"""Which conditions of a query level a b-tree can use, one comparison at a time.

Source: PostgreSQL manual, "Index Types": `<`, `<=`, `=`, `>=`, `>`, BETWEEN, IN,
IS NULL, and LIKE with a constant start.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiprod_ops.domain.sql.scopes import Level, is_query, own_parts
from aiprod_ops.domain.sql.trees import Node, kind, names, uncast, walk

#: Immutable functions of one argument that are met as index expressions ("Function Volatility Categories").
_IMMUTABLE = frozenset({"lower", "upper", "md5", "length", "char_length", "abs", "btrim", "ltrim", "rtrim", "reverse"})
#: A value that changes from row to row cannot be looked up in an index.
_VOLATILE = frozenset({"random", "clock_timestamp", "timeofday", "nextval", "gen_random_uuid", "uuidv4", "uuidv7"})
_MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_WILDCARDS = ("%", "_")


@dataclass(frozen=True, slots=True)
class Place:
    """A column (or a simple expression over one) of the relation `alias` at `level`."""

    level: int
    alias: str
    column: str
    is_expression: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """One usable comparison: `use` is `=`, `in`, `null`, `range`, `like` or `join` (then with the other side).

    `only` is one that holds no value, as `{} IS NOT NULL` in `form`: rows of a partial index may be told by it.
    """

    level: int
    alias: str
    column: str
    use: str
    other_alias: str = ""
    other_column: str = ""
    is_expression: bool = False
    form: str = ""


def comparisons(level: Level) -> Iterator[Comparison]:
    """All usable comparisons of one level, in the order of the text; those of joins are given for both sides."""
    found = [(condition, each) for condition in level.conditions for each in _of(level, condition.expression)]
    there: dict[str, int] = {}
    for condition, each in found:
        if condition.filters is None and _wants_a_value(level, each):
            there[each.alias] = max(there.get(each.alias, 0), condition.outer.get(each.alias, 0))
    for condition, each in found:
        is_wanted = condition.filters is None or each.level != level.number or each.alias in condition.filters
        may_miss = condition.outer.get(each.alias, 0) > there.get(each.alias, 0)
        if is_wanted and not (may_miss and _finds_what_is_missing(level, each)):
            yield each
    for column, left, right, filters in level.using:
        yield from _using(level, column, left, right, filters)


def _finds_what_is_missing(level: Level, seen: Comparison) -> bool:
    """IS NULL above an outer join is true of rows that are not there: it tells nothing of those that are."""
    return seen.level == level.number and (seen.use == "null" or seen.form == "{} IS NULL")


def _wants_a_value(level: Level, seen: Comparison) -> bool:
    """Whether no row of NULLs passes: the outer joins below are inner ones then.

    Source: PostgreSQL source, prepjointree.c, reduce_outer_joins().
    """
    return seen.level == level.number and seen.use != "null" and seen.form != "{} IS NULL"


def _using(
    level: Level, column: str, left: frozenset[str], right: frozenset[str], filters: frozenset[str] | None
) -> Iterator[Comparison]:
    """Source: PostgreSQL manual, "Joined Tables": USING (a) is ON left.a = right.a."""
    first, second = (_holding(level, column, side) for side in (left, right))
    if first and second:
        for one, other in ((first, second), (second, first)):
            if filters is None or one in filters:
                yield Comparison(level.number, one, column, "join", other, column)


def _holding(level: Level, column: str, side: frozenset[str]) -> str | None:
    able = [each.alias for each in level.relations if each.alias in side and column in each.columns]
    if not able:
        able = [each.alias for each in level.relations if each.alias in side and not each.columns]
    return able[0] if len(able) == 1 else None


def column_text(level: Level, node: Node) -> Place | None:
    """The place a node reads: a plain column, or one known immutable function over one; None for anything else.

    A cast of a column is not the column: an index on the column does not serve it ("Indexes on Expressions").
    """
    if kind(node) == "ColumnRef":
        found = level.resolve(node)
        return Place(found[0].number, found[1].alias, found[2]) if found else None
    if kind(node) != "FuncCall" or len(node.args or ()) != 1 or kind(node.args[0]) != "ColumnRef":
        return None
    name = names(node.funcname)
    if name[-1] not in _IMMUTABLE or name[:-1] not in ((), ("pg_catalog",)) or node.over or node.agg_filter:
        return None
    place = column_text(level, node.args[0])
    return place and Place(place.level, place.alias, f"{name[-1]}({quoted(place.column)})", is_expression=True)


def quoted(name: str) -> str:
    """An identifier as `quote_identifier` writes it, but for key words, which a function's argument may be."""
    plain = name.isascii() and name == name.lower() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    return name if plain else '"' + name.replace('"', '""') + '"'


def _of(level: Level, node: Node) -> Iterator[Comparison]:
    if kind(node) == "A_Expr":
        yield from _operator(level, node)
    elif kind(node) == "NullTest":
        yield from _null(level, node, is_null=node.nulltesttype.name == "IS_NULL")
    elif kind(node) == "BooleanTest" and node.booltesttype.name in ("IS_TRUE", "IS_FALSE"):
        yield from _use(column_text(level, node.arg), "=")
    elif kind(node) == "ColumnRef":
        yield from _use(column_text(level, node), "=")
        yield from _only(level, node, "{}")
    elif kind(node) == "BoolExpr":
        yield from _boolean(level, node)
    elif kind(node) == "SubLink":
        yield from _sublink(level, node)


def _use(place: Place | None, use: str) -> Iterator[Comparison]:
    if place is not None:
        yield Comparison(place.level, place.alias, place.column, use, is_expression=place.is_expression)


def _null(level: Level, node: Node, *, is_null: bool) -> Iterator[Comparison]:
    if is_null:
        yield from _use(column_text(level, node.arg), "null")
    yield from _only(level, node.arg, "{} IS NULL" if is_null else "{} IS NOT NULL")


def _only(level: Level, node: Node, form: str) -> Iterator[Comparison]:
    """The planner takes a partial index only where the statement has its predicate ("Partial Indexes")."""
    place = column_text(level, node)
    if place is not None and not place.is_expression:
        yield Comparison(place.level, place.alias, place.column, "only", form=form)


def _boolean(level: Level, node: Node) -> Iterator[Comparison]:
    """NOT of a boolean column is an equality, NOT (… IS NULL) is IS NOT NULL; an OR of equalities of one column is a
    list; other ORs are no use. Source: PostgreSQL source, prepqual.c, negate_clause().
    """
    if node.boolop.name == "NOT_EXPR" and kind(node.args[0]) == "ColumnRef":
        yield from _use(column_text(level, node.args[0]), "=")
        yield from _only(level, node.args[0], "NOT {}")
    if node.boolop.name == "NOT_EXPR" and kind(node.args[0]) == "NullTest":
        yield from _null(level, node.args[0], is_null=node.args[0].nulltesttype.name == "IS_NOT_NULL")
    if node.boolop.name != "OR_EXPR":
        return
    branches = [list(_of(level, each)) for each in node.args]
    firsts = [each[0] for each in branches if len(each) == 1 and each[0].use in ("=", "in")]
    if len(firsts) == len(branches) and len({(each.level, each.alias, each.column) for each in firsts}) == 1:
        first = firsts[0]
        yield Comparison(first.level, first.alias, first.column, "in", is_expression=first.is_expression)


def _operator(level: Level, node: Node) -> Iterator[Comparison]:
    name, shape = names(node.name)[-1], node.kind.name
    if shape == "AEXPR_OP" and name in _MIRRORED and node.lexpr is not None:
        yield from _pair(level, node.lexpr, name, node.rexpr)
    elif shape in ("AEXPR_IN", "AEXPR_OP_ANY") and name == "=":
        if is_constant(level, node.rexpr):
            single = shape == "AEXPR_IN" and len(node.rexpr) == 1 and not is_squashed(node)
            yield from _use(column_text(level, node.lexpr), "=" if single else "in")
    elif shape in ("AEXPR_BETWEEN", "AEXPR_BETWEEN_SYM"):
        if is_constant(level, node.rexpr):
            yield from _use(column_text(level, node.lexpr), "range")
    elif _is_prefix(node) and is_constant(level, node.rexpr):
        yield from _use(column_text(level, node.lexpr), "like")


def _is_prefix(node: Node) -> bool:
    is_like = node.kind.name in ("AEXPR_LIKE", "AEXPR_OP") and names(node.name)[-1] == "~~"
    return is_like and has_start(node.rexpr)


def is_squashed(node: Node) -> bool:
    """Whether `IN ($1 /*, ... */)` stands for a list: the brackets are further apart than one parameter needs.

    Source: PostgreSQL 18 manual, "pg_stat_statements": lists of constants are shown as their first element.
    """
    first = uncast(node.rexpr[0])
    width = node.rexpr_list_end - node.rexpr_list_start - 1
    return kind(first) == "ParamRef" and node.rexpr_list_start > 0 and width >= len(f"${first.number} /*, ... */")


def _pair(level: Level, left: Node, name: str, right: Node) -> Iterator[Comparison]:
    """One `left operator right`; rows are compared column by column, ranges of rows by their first column."""
    if kind(left) == "RowExpr" and kind(right) == "RowExpr" and len(left.args) == len(right.args):
        for one, other in list(zip(left.args, right.args, strict=True))[: None if name == "=" else 1]:
            yield from _pair(level, one, name, other)
        return
    first, second = column_text(level, left), column_text(level, right)
    use = "=" if name == "=" else "range"
    if first and second:
        if use == "=" and (first.level, first.alias) != (second.level, second.alias):
            yield from _joined(first, second)
    elif first and is_constant(level, right):
        yield from _use(first, use)
    elif second and is_constant(level, left):
        yield from _use(second, use)


def _joined(first: Place, second: Place) -> Iterator[Comparison]:
    for one, other in ((first, second), (second, first)):
        yield Comparison(one.level, one.alias, one.column, "join", other.alias, other.column, one.is_expression)


def _sublink(level: Level, node: Node) -> Iterator[Comparison]:
    """`column IN (SELECT other …)` joins the two ("Subquery Expressions")."""
    inner = level.nested.get(id(node))
    if node.subLinkType.name != "ANY_SUBLINK" or inner is None or "=" not in (names(node.operName) or "="):
        return
    outer = column_text(level, node.testexpr)
    targets: tuple[Node, ...] = getattr(inner.node, "targetList", None) or ()
    target = column_text(inner, targets[0].val) if len(targets) == 1 else None
    if outer and target:
        yield from _joined(outer, target)
    elif outer:
        yield Comparison(level.number, outer.alias, outer.column, "join", "", "", outer.is_expression)


def is_constant(level: Level, node: Node) -> bool:
    """Whether an expression has one value for the whole level: no column of it, no volatile function.

    A scalar subquery that is not correlated counts: it runs once, before ("InitPlan" of EXPLAIN).
    """
    return not _depends(level, node, level)


def _depends(at: Level, node: Node, level: Level) -> bool:
    """Whether an expression at (or nested in) a level has another value for each of the level's rows."""
    for each in walk(node, is_query):
        if kind(each) == "ColumnRef":
            found = at.resolve(each)
            if (found is None and at is level) or (found is not None and found[0] is level):
                return True
        elif kind(each) == "FuncCall" and names(each.funcname)[-1] in _VOLATILE:
            return True
        elif kind(each) == "SubLink":
            inner = at.nested.get(id(each))
            if inner is None or any(_depends(inner, part, level) for part in own_parts(inner)):
                return True
    return False


def has_start(pattern: Node) -> bool:
    """Whether a LIKE pattern can begin with something fixed: a parameter may, a literal must.

    Source: PostgreSQL manual, "Index Types": an index serves LIKE 'foo%' but not LIKE '%bar'.
    """
    node = uncast(pattern)
    if kind(node) == "ParamRef":
        return True
    if kind(node) == "A_Const" and kind(node.val) == "String":
        return bool(node.val.sval) and not node.val.sval.startswith(_WILDCARDS)
    return kind(node) == "A_Expr" and names(node.name) == ("||",) and has_start(node.lexpr)
