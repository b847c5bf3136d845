"""Statements as trees: PostgreSQL's own parser behind a few functions. The only module that imports pglast.

pglast is imported on first use: it takes longer than everything else here together. Nodes are `Any`, because pglast
carries no types; they are told apart by `kind`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

Node = Any

_DEEPEST = 100
_NUL = "\x00"
_NEAR = re.compile(r' at or near ".*', re.DOTALL)
_FIELD = "(?:year|month|day|hour|minute|second)"
_FIELDS = re.compile(rf"\s+{_FIELD}(?:\s+to\s+{_FIELD})?\b(?:\s*\(\s*\d+\s*\))?", re.IGNORECASE)
_PREPARE = re.compile(r"\s*prepare\s+[^\s(]+\s*(\([^)]*\)\s*|\s)as\s+", re.IGNORECASE)
_FROM = re.compile(r"\s*\bfrom\s+", re.IGNORECASE)


class Unreadable(ValueError):
    """A statement cannot be understood; the message is a short reason."""


def parse(text: str) -> tuple[Node, ...]:
    """Parse a text into its statements; `PREPARE … AS` and `DECLARE … CURSOR FOR` give the statement inside.

    Normalised texts are understood as they are, `interval $1` included. Raises Unreadable, without quoting the text: a
    statement that was cut off in the log may hold a user's data there.
    Source: PostgreSQL manual, "pg_stat_statements": an entry shows the text of PREPARE for what EXECUTE ran.
    """
    from pglast import parser

    if _NUL in text:
        raise Unreadable("it holds a NUL character")
    try:
        raw = parser.parse_sql(text)
    except (parser.ParseError, RecursionError) as exc:
        raise Unreadable(f"the parser says: {_NEAR.sub('', str(exc.args[0]) if exc.args else 'nothing')}") from None
    statements = tuple(_inner(each.stmt) for each in raw)
    if _is_deep(statements):
        raise Unreadable(f"it is nested more than {_DEEPEST} levels deep")
    return statements


def _is_deep(node: Node) -> bool:
    """Whether functions that call themselves for each level would run out of Python's stack."""
    waiting = [(node, 0)]
    while waiting:
        current, depth = waiting.pop()
        if depth > _DEEPEST:
            return True
        waiting += [(child, depth + (not isinstance(child, tuple))) for _, child in children(current)]
    return False


def _inner(node: Node) -> Node:
    while kind(node) in ("PrepareStmt", "DeclareCursorStmt"):
        node = node.query
    return node


def kind(node: Node) -> str:
    """The node's type in PostgreSQL's words (`SelectStmt`); a tuple of nodes is `tuple`, nothing is `NoneType`."""
    return type(node).__name__


def children(node: Node) -> Iterator[tuple[str, Node]]:
    """Fields of a node that hold nodes or tuples of them, in the grammar's order, with their names."""
    if isinstance(node, tuple):
        for item in node:
            if item is not None:
                yield "", item
    elif _is_node(node):
        for name in node:
            value = getattr(node, name)
            if isinstance(value, tuple) or _is_node(value):
                yield name, value


def _is_node(value: object) -> bool:
    return type(value).__module__ == "pglast.ast"


def walk(node: Node, stop: Callable[[Node], bool] = lambda _: False) -> Iterator[Node]:
    """The node and all below it, parents first, from left to right; what `stop` says yes to is given, not entered."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current is None:
            continue
        if not isinstance(current, tuple):
            yield current
            if stop(current):
                continue
        waiting.extend(child for _, child in reversed(list(children(current))))


def names(node: Node) -> tuple[str, ...]:
    """The parts of a qualified name (of a column, a function, an operator, a type); `*` for a star."""
    return tuple(part.sval if kind(part) == "String" else "*" for part in node or ())


def is_kind(node: Node, *kinds: str) -> bool:
    """Whether the node is one of these types."""
    return kind(node) in kinds


def uncast(node: Node) -> Node:
    """What stands below casts and COLLATE."""
    while kind(node) in ("TypeCast", "CollateClause"):
        node = node.arg
    return node


def normalised(text: str) -> str:
    """The text with `$n` for its constants, as libpg_query numbers them: in the order of its walk, not of the text.

    Raises Unreadable.
    """
    from pglast import parser

    parse(text)
    return str(parser.normalize(text))


def written(node: Node) -> str:
    """A node as SQL text."""
    from pglast.stream import RawStream

    return str(RawStream()(node))


def repaired(text: str) -> str:
    """A normalised text that a server parses again.

    pg_stat_statements puts `$n` where a literal stood and leaves the rest: `interval $1` and `extract($1 from x)` are
    not in the server's grammar. They become `CAST($1 AS interval)` and `pg_catalog.extract($1, x)`;
    of `PREPARE name AS statement` the statement is left.

    >>> repaired("select now() - interval $1 day > timestamptz $2")
    'select now() - CAST($1 AS interval day) > CAST($2 AS timestamptz)'

    Raises Unreadable. Source: PostgreSQL manual, "Constants of Other Types": `type 'string'` takes literals only.
    """
    text = _PREPARE.sub("", text, count=1)
    changes: list[tuple[int, int, str]] = []
    for node in walk(parse(text)):
        if kind(node) == "TypeCast" and kind(node.arg) == "ParamRef":
            changes += _cast(text, node)
        elif kind(node) == "FuncCall" and names(node.funcname) == ("pg_catalog", "extract"):
            changes += _extract(text, node)
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _cast(text: str, node: Node) -> list[tuple[int, int, str]]:
    start, param = node.typeName.location, node.arg.location
    if not 0 <= start < param:
        return []
    number = f"${node.arg.number}"
    end, unit = param + len(number), ""
    fields = _FIELDS.match(text, end)
    if fields and node.typeName.typmods:
        end, unit = fields.end(), fields[0]
    return [(start, end, f"CAST({number} AS {text[start:param].strip()}{unit})")]


def _extract(text: str, node: Node) -> list[tuple[int, int, str]]:
    first: Node = node.args[0] if node.args else None
    if kind(first) != "ParamRef" or text[node.location : node.location + 7].lower() != "extract":
        return []
    start = first.location + len(f"${first.number}")
    separator = _FROM.match(text, start)
    if separator is None:
        return []
    return [(node.location, node.location + 7, "pg_catalog.extract"), (start, separator.end(), ", ")]
