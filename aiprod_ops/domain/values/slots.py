"""Which column each parameter of a statement is compared with, and of which type it has to be declared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.domain.sql.conditions import Place, column_text
from aiprod_ops.domain.sql.scopes import Level, is_query, levels, own
from aiprod_ops.domain.sql.trees import Node, kind, names, parse, uncast, walk

_SIMPLE = {"=": "=", "<>": "<>", "<": "<", "<=": "<", ">": ">", ">=": ">", "~~": "like", "~~*": "like"}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
#: A whole value of the column is a good partner for these. Source: PostgreSQL manual, "Functions and Operators": those
#: of arrays, ranges, JSON and network addresses.
_CONTAINING = ("@>", "<@", "&&", "<<", "<<=", ">>", ">>=", "&<", "&>", "-|-")
_KEYED = ("?", "->", "->>")
_MEMBERS = ("->", "->>")
_HAVING = ("?", "?|", "?&", "~", "~*", "!~", "!~*", "!~~", "!~~*", "@@")
_OF_ANOTHER_TYPE = frozenset(
    {
        *("length", "char_length", "character_length", "octet_length", "bit_length", "ascii", "position", "strpos"),
        *("extract", "date_part", "to_char", "age", "cardinality", "array_length", "jsonb_array_length"),
        *("json_array_length", "jsonb_typeof", "json_typeof", "starts_with", "isempty", "num_nonnulls", "num_nulls"),
    }
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter and what it is compared with.

    `operator` is `=` (also `@>`, `&&` …), `<>`, `<` (also <=), `>` (also >=), `in`, `any` (an array), `like`,
    `set` (UPDATE … SET, INSERT), `element` (of an array or a range), `key` or `member` (of JSON; `member x` where the
    key is known), `limit`, `offset` or `other`; the last three have no table and no column.
    """

    number: int
    table: Name | None
    column: str
    operator: str
    type: str = ""  #: the column's, as declared


def slots(text: str, schema: Schema) -> tuple[Slot, ...]:
    """The parameters of a normalised statement by number, with the column that each is compared with.

    >>> from aiprod_ops.domain.schema import Column, Name, Schema, Table
    >>> jobs = Table(Name("public", "jobs"), (Column("status", "text"),))
    >>> found = slots("SELECT * FROM jobs WHERE status = $1 LIMIT $2", Schema((jobs,)))
    >>> [(slot.column, slot.operator) for slot in found]
    [('status', '='), ('', 'limit')]

    Raises Unreadable.
    """
    statements = parse(text)
    found: dict[int, Slot] = {}
    for level in levels(statements, schema):
        for node, other, operator in _compared(level):
            _note(found, schema, level, node, other, operator)
        for column, node in _assigned(level):
            relation = level.relations[0]
            _add(found, schema, relation.schema, relation.table, node, column, "set")
    for node in walk(statements):
        for column, value in _inserted(node, schema):
            _add(found, schema, node.relation.schemaname or "", node.relation.relname, value, column, "set")
    for node in walk(statements):
        for name, operator in (("limitCount", "limit"), ("limitOffset", "offset")):
            count = uncast(getattr(node, name, None))
            if kind(count) == "ParamRef":
                found.setdefault(count.number, Slot(count.number, None, "", operator))
    for node in walk(statements):
        if kind(node) == "ParamRef":
            found.setdefault(node.number, Slot(node.number, None, "", "other"))
    return tuple(slot for _, slot in sorted(found.items()))


def _note(found: dict[int, Slot], schema: Schema, level: Level, node: Node, other: Node, operator: str) -> None:
    """Record what one parameter is compared with, if that is a column, or an expression over one."""
    parameter, place = uncast(node), column_text(level, other)
    if kind(parameter) != "ParamRef":
        return
    if place is None or place.is_expression:
        place, operator = _within(level, other, operator)
    if place is None:
        return
    relation = next((each for each in _around(level, place).relations if each.alias == place.alias), None)
    if relation is not None:
        _add(found, schema, relation.schema, relation.table, node, place.column, operator)


def _within(level: Level, node: Node, operator: str) -> tuple[Place | None, str]:
    """The one column that an expression is over, and how it is compared: a member of JSON, or like the column itself.

    `lower(name) = $1` and `date_trunc('day', at) = $1` are compared with values of the column: of the right type, and
    near those that are there. Not so what has a type of its own: `(paid IS NULL) = $1`, `length(name) = $1`.
    """
    if _is_of_another_type(uncast(node)):
        return None, operator
    places = [column_text(level, each) for each in walk(node, is_query) if kind(each) == "ColumnRef"]
    if len(set(places)) != 1 or places[0] is None:
        return None, operator
    inner = uncast(node)
    if kind(inner) == "A_Expr" and names(inner.name)[-1] in _MEMBERS:
        known = uncast(inner.rexpr)
        is_named = kind(known) == "A_Const" and kind(known.val) == "String"
        return places[0], f"member {known.val.sval}" if is_named else "member"
    return places[0], operator


def _is_of_another_type(node: Node) -> bool:
    """Whether an expression gives something else than what its columns hold: a truth, a length, a part of a date.

    Source: PostgreSQL manual, "Comparison Functions and Operators", "String Functions", "Date/Time Functions".
    """
    if kind(node) == "A_Expr":
        asks = names(node.name)[-1] in (*_SIMPLE, *_CONTAINING, *_HAVING)
        return node.kind.name != "AEXPR_NULLIF" and (node.kind.name != "AEXPR_OP" or asks)
    if kind(node) == "FuncCall":
        return names(node.funcname)[-1] in _OF_ANOTHER_TYPE
    return kind(node) in ("NullTest", "BooleanTest", "BoolExpr", "SubLink")


def _around(level: Level, place: Place) -> Level:
    while level.number != place.level and level.parent is not None:
        level = level.parent
    return level


def _add(
    found: dict[int, Slot], schema: Schema, named: str, table: str, node: Node, column: str, operator: str
) -> None:
    declared = schema.table(named, table) if table else None
    known = declared.column(column) if declared else None
    parameter = uncast(node)
    if kind(parameter) == "ParamRef" and declared is not None and known is not None:
        if operator == "=" and known.type.endswith("range") and not _is_cast_to_range(node):
            operator = "element"
        found.setdefault(parameter.number, Slot(parameter.number, declared.name, column, operator, known.type))


def _is_cast_to_range(node: Node) -> bool:
    """`during @> $1::integer` asks for a point; without a cast the server takes the column's own type."""
    return kind(node) != "TypeCast" or names(node.typeName.names)[-1].endswith("range")


def _assigned(level: Level) -> Iterator[tuple[str, Node]]:
    if kind(level.node) == "UpdateStmt":
        for target in level.node.targetList or ():
            if not target.indirection:
                yield target.name, target.val


def _inserted(node: Node, schema: Schema) -> Iterator[tuple[str, Node]]:
    """(column, value) of INSERT … VALUES; without a list of columns they are the table's, in order."""
    if kind(node) != "InsertStmt" or kind(node.selectStmt) != "SelectStmt":
        return
    columns = [target.name for target in node.cols or ()]
    if not columns:
        table = schema.table(node.relation.schemaname or "", node.relation.relname)
        columns = [column.name for column in table.columns] if table else []
    for row in node.selectStmt.valuesLists or ():
        yield from zip(columns, row, strict=False)


def _compared(level: Level) -> Iterator[tuple[Node, Node, str]]:
    """(possible parameter, what it is compared with, operator) of all comparisons of a level, also in SELECT lists."""
    for node in own(level):
        if kind(node) != "A_Expr":
            continue
        name, shape = names(node.name)[-1], node.kind.name
        if shape in ("AEXPR_OP", "AEXPR_LIKE", "AEXPR_ILIKE"):
            yield from _sides(node.lexpr, name, node.rexpr)
        elif shape == "AEXPR_IN":
            for item in node.rexpr if isinstance(node.rexpr, tuple) else ():
                yield item, node.lexpr, "in"
        elif shape == "AEXPR_OP_ANY" and name == "=":
            yield node.rexpr, node.lexpr, "any"
            yield node.lexpr, node.rexpr, "element"
            array = uncast(node.rexpr)
            for item in (array.elements or ()) if kind(array) == "A_ArrayExpr" else ():
                yield item, node.lexpr, "in"
        elif shape == "AEXPR_BETWEEN":
            yield node.rexpr[0], node.lexpr, ">"
            yield node.rexpr[1], node.lexpr, "<"


def _sides(left: Node, name: str, right: Node) -> Iterator[tuple[Node, Node, str]]:
    if kind(left) == "RowExpr" and kind(right) == "RowExpr":
        for one, other in zip(left.args, right.args, strict=False):
            yield from _sides(one, name, other)
    elif name in _KEYED and left is not None:
        yield right, left, "key"
    elif name in _CONTAINING and left is not None:
        yield right, left, "="
        yield left, right, "="
    elif name in _SIMPLE and left is not None:
        yield right, left, _SIMPLE[name]
        if name in _MIRRORED:
            yield left, right, _SIMPLE[_MIRRORED[name]]


def types(wanted: Sequence[Slot], values: Sequence[str]) -> tuple[str, ...]:
    """Parameter types for `PREPARE name (types) AS`; `unknown` where the server infers the right one by itself.

    It cannot for `current_date - $1`, which was a number in the statement, nor within `ARRAY[$1]`. The values are those
    of one set, in the order of the slots; numbers that no slot has are `unknown`, too.
    Source: PostgreSQL manual, PREPARE (data_type), "Numeric Constants".
    """
    by_number = {slot.number: _type(slot, value) for slot, value in zip(wanted, values, strict=True)}
    return tuple(by_number.get(number, "unknown") for number in range(1, max(by_number, default=0) + 1))


def _type(slot: Slot, value: str) -> str:
    if slot.operator == "in":
        return slot.type or "unknown"
    if slot.table is not None or slot.operator in ("limit", "offset"):
        return "unknown"
    if value in ("true", "false"):
        return "boolean"
    number = value.removeprefix("-")
    if number.isdecimal():
        return "integer" if int(number) < 2**31 else "bigint" if int(number) < 2**63 else "numeric"
    return "numeric" if number[:1].isdigit() and "'" not in number else "unknown"
