"""From a logged statement to its normalised text and its values, and back to which value belongs to which `$n`."""

from collections.abc import Iterator
from itertools import zip_longest

from aiprod_ops.domain.sql.trees import Node, Unreadable, kind, names, normalised, parse, uncast, walk, written

#: Where a node stands, or what the same statement may say in two ways; none of it takes part in the comparison.
_PLACES = frozenset(
    {"location", "stmt_location", "stmt_len", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end", "typemod"}
    | {"schemaname"}
)


class _Different(Exception):
    """Two trees are not of the same statement."""


def quote(value: str) -> str:
    r"""A value as an SQL string literal, for the server to cast: an `unknown` literal takes the type it is used as.

    >>> quote("it's"), quote("a\\b")
    ("'it''s'", "E'a\\\\b'")

    Source: PostgreSQL manual, "String Constants": backslashes mean themselves only if standard_conforming_strings.
    """
    doubled = value.replace("'", "''")
    return f"'{doubled}'" if "\\" not in doubled else "E'" + doubled.replace("\\", "\\\\") + "'"


def normalise(sample: str, *, squash: bool = True) -> tuple[str, tuple[str, ...]]:
    """The text as pg_stat_statements shows it, up to white space, with the literals in the order of their `$n`.

    `squash` joins lists of constants into `IN ($1 /*, ... */)`, as PostgreSQL 18 does; of a list the first literal is
    given. Parameters that the text has already keep their number and have no literal.

    >>> normalise("SELECT * FROM jobs WHERE status = 'failed' AND kind IN (1, 2) LIMIT 10")
    ('SELECT * FROM jobs WHERE status = $1 AND kind IN ($2 /*, ... */) LIMIT $3', ("'failed'", '1', '10'))

    Raises Unreadable. Source: PostgreSQL 18 manual, "pg_stat_statements".
    """
    text = _numbered(sample, normalised(sample), squash=squash)
    found = literals(text, sample)
    if found is None:
        raise Unreadable("its literals cannot be told from its normalised text")
    return text, tuple(literal for _, literal in sorted(found.items()))


def literals(text: str, sample: str) -> dict[int, str] | None:
    """The SQL text of the value behind each `$n` of a normalised text, from one call with its literals.

    White space, case, and schema names may differ. Of a squashed list the first value stands for it. None when the two
    are not the same statement or cannot be read.
    """
    found: dict[int, str] = {}
    try:
        for number, literal in _paired(parse(text), parse(sample)):
            found.setdefault(number, literal)
    except (Unreadable, _Different):
        return None
    return found


def _numbered(sample: str, text: str, *, squash: bool) -> str:
    """Number the new parameters from left to right, after those that the sample had, and squash lists."""
    first = max((node.number for node in walk(parse(sample)) if kind(node) == "ParamRef"), default=0) + 1
    tree = parse(text)
    lists = sorted(_lists(tree)) if squash else []
    parts: list[str] = []
    at = 0
    number = first
    for location, old in sorted({(node.location, node.number) for node in walk(tree) if kind(node) == "ParamRef"}):
        if location < at or old < first:
            continue
        start, end, suffix = location, location + len(f"${old}"), ""
        if lists and lists[0][0] < location < lists[0][1]:
            (opened, end), suffix = lists.pop(0), " /*, ... */"
            start = opened + 1
        parts += [text[at:start], f"${number}{suffix}"]
        at, number = end, number + 1
    return "".join([*parts, text[at:]])


def _lists(tree: Node) -> Iterator[tuple[int, int]]:
    """Where lists of two or more constants open and close: of IN, and of ARRAY[…]."""
    for node in walk(tree):
        if kind(node) == "A_Expr" and node.kind.name == "AEXPR_IN":
            items, ends = node.rexpr, (node.rexpr_list_start, node.rexpr_list_end)
        elif kind(node) == "A_ArrayExpr":
            items, ends = node.elements, (node.list_start, node.list_end)
        else:
            continue
        if isinstance(items, tuple) and len(items) > 1 and all(kind(uncast(item)) == "ParamRef" for item in items):
            yield ends


def _paired(one: Node, other: Node) -> Iterator[tuple[int, str]]:
    """Pairs of parameter number and literal, walking both trees side by side. Raises _Different."""
    if kind(one) == "ParamRef":
        yield from _literal(one, other)
    elif isinstance(one, tuple) and isinstance(other, tuple):
        yield from _lists_paired(one, other)
    elif kind(one) == kind(other) and type(one).__module__ == "pglast.ast":
        for name in one:
            if name not in _PLACES:
                yield from _paired(getattr(one, name), getattr(other, name))
    elif _is_negative(one) and kind(other) == "A_Const":
        yield one.rexpr.number, _number(other).removeprefix("-")
    elif one != other and (one or other):
        raise _Different


def _lists_paired(one: tuple[Node, ...], other: tuple[Node, ...]) -> Iterator[tuple[int, str]]:
    """Lists item by item; a lone parameter stands for a whole list of literals (of which the first is taken)."""
    if len(one) == 1 and kind(uncast(one[0])) == "ParamRef" and len(other) > 1:
        if any(kind(uncast(item)) not in ("A_Const", "ParamRef") for item in other):
            raise _Different
        one, other = one[:1], other[:1]
    for left, right in zip_longest(one, other):
        yield from _paired(left, right)


def _literal(parameter: Node, node: Node) -> Iterator[tuple[int, str]]:
    inner = uncast(node)
    if kind(inner) == "A_Const":
        yield parameter.number, _constant(inner) if inner is node else written(node)
    elif kind(inner) != "ParamRef" or inner.number != parameter.number:
        raise _Different


def _constant(node: Node) -> str:
    """A constant as SQL text; numbers stay as they are, strings are quoted."""
    if node.isnull:
        return "NULL"
    if kind(node.val) == "String":
        return quote(node.val.sval or "")
    if kind(node.val) == "Boolean":
        return "true" if node.val.boolval else "false"
    if kind(node.val) == "BitString":
        return f"{node.val.bsval[0]}'{node.val.bsval[1:]}'"
    return _number(node)


def _number(node: Node) -> str:
    if kind(node.val) == "Integer":
        return str(node.val.ival or 0)
    if kind(node.val) == "Float":
        return str(node.val.fval)
    raise _Different


def _is_negative(node: Node) -> bool:
    """`- $1`: what older servers leave of a negative number, whose sign the parser folds into the literal."""
    if kind(node) != "A_Expr" or node.lexpr is not None:
        return False
    return names(node.name) == ("-",) and kind(node.rexpr) == "ParamRef"
