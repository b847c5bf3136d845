"""Which column each parameter of a statement is compared with, and of which type it has to be declared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.schema import Name, Schema
from aiprod_ops.domain.sql.conditions import Place, column_text
from aiprod_ops.domain.sql.scopes import Level, levels, own
from aiprod_ops.domain.sql.trees import Node, kind, names, parse, uncast, walk

_SIMPLE = {"=": "=", "<>": "<>", "<": "<", "<=": "<", ">": ">", ">=": ">", "~~": "like", "~~*": "like"}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter and what it is compared with.

    `operator` is `=`, `<>`, `<` (also <=), `>` (also >=), `in`, `any` (an array), `like`, `set` (UPDATE …
    SET), `limit`, `offset` or `other`; the last three have no table and no column.
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
        for name, operator in (("limitCount", "limit"), ("limitOffset", "offset")):
            count = uncast(getattr(node, name, None))
            if kind(count) == "ParamRef":
                found.setdefault(count.number, Slot(count.number, None, "", operator))
    for node in walk(statements):
        if kind(node) == "ParamRef":
            found.setdefault(node.number, Slot(node.number, None, "", "other"))
    return tuple(slot for _, slot in sorted(found.items()))


def _note(found: dict[int, Slot], schema: Schema, level: Level, node: Node, other: Node, operator: str) -> None:
    """Record what one parameter is compared with, if that is a column (an expression over one has other values)."""
    parameter, place = uncast(node), column_text(level, other)
    if kind(parameter) != "ParamRef" or place is None or place.is_expression:
        return
    relation = next((each for each in _around(level, place).relations if each.alias == place.alias), None)
    if relation is not None:
        _add(found, schema, relation.schema, relation.table, parameter, place.column, operator)


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
        found.setdefault(parameter.number, Slot(parameter.number, declared.name, column, operator, known.type))


def _assigned(level: Level) -> Iterator[tuple[str, Node]]:
    if kind(level.node) == "UpdateStmt":
        for target in level.node.targetList or ():
            if not target.indirection:
                yield target.name, target.val


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
