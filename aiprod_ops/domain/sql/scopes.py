"""Which relations a statement reads at each query level, and which of them a column name means there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiprod_ops.domain.schema import Schema
from aiprod_ops.domain.sql.trees import Node, children, is_kind, kind, names, walk

_SYSTEM = ("pg_catalog", "information_schema", "pg_toast")
_EVERY: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """One entry of a FROM clause. `table` is empty for what is not stored: a subquery, a CTE, a function.

    `columns` is empty where nobody knows them (no schema given, or not stored).
    """

    alias: str
    schema: str = ""
    table: str = ""
    columns: frozenset[str] = frozenset()

    @property
    def is_stored(self) -> bool:
        """Whether it is a relation of the user's own; the system's are left out."""
        own = self.schema not in _SYSTEM and not self.schema.startswith("pg_")
        return bool(self.table) and own and not (not self.schema and self.table.startswith("pg_"))


@dataclass(frozen=True, slots=True)
class Condition:
    """One conjunct. In an outer join it filters only the relations that may be missing: `filters` names them.

    `outer` are those for which outer joins below it may have given a row of NULLs, and how many may.
    """

    expression: Node
    filters: frozenset[str] | None
    outer: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Level:
    """One SELECT, UPDATE, DELETE or MERGE of a statement, without what is nested in it.

    `number` tells levels apart; `nested` gives the levels that a sublink opened, by the sublink's identity.
    """

    number: int
    node: Node
    parent: "Level | None"
    relations: list[Relation] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    using: list[tuple[str, frozenset[str], frozenset[str], frozenset[str] | None]] = field(default_factory=list)
    nested: dict[int, "Level"] = field(default_factory=dict)

    def resolve(self, column: Node) -> "tuple[Level, Relation, str] | None":
        """The level, relation and name that a column reference means; None where that is not certain.

        Source: PostgreSQL manual, "Column References" and "Subquery Expressions": inner names hide outer ones.
        """
        parts = names(column.fields)
        name, qualifier = parts[-1], parts[:-1]
        if name == "*":
            return None
        found = self._qualified(qualifier) if qualifier else self._holding(name)
        if found:
            return self, found, name
        if self.parent is not None and (qualifier or self._knows_all()):
            return self.parent.resolve(column)
        return None

    def _qualified(self, qualifier: tuple[str, ...]) -> Relation | None:
        for relation in self.relations:
            if relation.alias == qualifier[-1] and (len(qualifier) == 1 or relation.schema in ("", qualifier[-2])):
                return relation
        return None

    def _holding(self, name: str) -> Relation | None:
        known = [relation for relation in self.relations if name in relation.columns]
        if known:
            return known[0] if len(known) == 1 else None
        unknown = [relation for relation in self.relations if not relation.columns]
        return unknown[0] if len(unknown) == 1 else None

    def _knows_all(self) -> bool:
        return all(relation.columns for relation in self.relations)


def levels(statements: tuple[Node, ...], schema: Schema | None) -> list[Level]:
    """All query levels of parsed statements, outer ones first; utility statements have none."""
    reader = _Reader(schema)
    for statement in statements:
        reader.statement(statement, None, frozenset())
    return reader.found


def is_query(node: Node) -> bool:
    """Whether the node opens a query level of its own."""
    return is_kind(node, "SelectStmt", "UpdateStmt", "DeleteStmt", "InsertStmt", "MergeStmt")


def own(level: Level) -> Iterator[Node]:
    """All nodes of a level, without those of nested levels (their sublinks and subqueries are given, not entered)."""
    for part in own_parts(level):
        yield from walk(part, is_query)


def own_parts(level: Level) -> list[Node]:
    """The clauses of a level, without WITH and the branches of a set operation."""
    return [child for name, child in children(level.node) if name not in ("withClause", "larg", "rarg")]


class _Reader:
    def __init__(self, schema: Schema | None) -> None:
        self.schema = schema
        self.found: list[Level] = []

    def statement(self, node: Node, parent: Level | None, ctes: frozenset[str]) -> Level | None:
        """Read one query and all it nests; gives its level (for a set operation, that of its first branch)."""
        if not is_query(node):
            return None
        ctes = self._with(node, parent, ctes)
        if kind(node) == "SelectStmt" and node.larg is not None:
            first = self.statement(node.larg, parent, ctes)
            self.statement(node.rarg, parent, ctes)
            return first
        if kind(node) == "InsertStmt" and kind(node.selectStmt) == "SelectStmt" and not node.selectStmt.valuesLists:
            return self.statement(node.selectStmt, parent, ctes)
        return self._level(node, parent, ctes)

    def _with(self, node: Node, parent: Level | None, ctes: frozenset[str]) -> frozenset[str]:
        if node.withClause is None:
            return ctes
        recursive = bool(node.withClause.recursive)
        every = ctes | {cte.ctename for cte in node.withClause.ctes}
        for cte in node.withClause.ctes:
            self.statement(cte.ctequery, parent, every if recursive else ctes)
            ctes |= {cte.ctename}
        return ctes

    def _level(self, node: Node, parent: Level | None, ctes: frozenset[str]) -> Level:
        level = Level(len(self.found), node, parent)
        self.found.append(level)
        outer: dict[str, int] = {}
        for item in self._sources(node):
            outer |= self._source(level, item, ctes)[1]
        where = node.joinCondition if kind(node) == "MergeStmt" else getattr(node, "whereClause", None)
        level.conditions += [Condition(each, _EVERY, outer) for each in conjuncts(where)]
        for each in own(level):
            if kind(each) == "SubLink":
                nested = self.statement(each.subselect, level, ctes)
                if nested is not None:
                    level.nested[id(each)] = nested
        return level

    @staticmethod
    def _sources(node: Node) -> tuple[Node, ...]:
        if kind(node) == "SelectStmt":
            return tuple(node.fromClause or ())
        if kind(node) == "UpdateStmt":
            return (node.relation, *(node.fromClause or ()))
        if kind(node) == "DeleteStmt":
            return (node.relation, *(node.usingClause or ()))
        return (node.relation, node.sourceRelation) if kind(node) == "MergeStmt" else ()

    def _source(self, level: Level, item: Node, ctes: frozenset[str]) -> tuple[frozenset[str], dict[str, int]]:
        """Add one FROM item to the level; gives the aliases it brought, and how many outer joins may miss each."""
        if kind(item) == "JoinExpr":
            return self._join(level, item, ctes)
        if kind(item) == "RangeTableSample":
            return self._source(level, item.relation, ctes)
        alias = item.alias.aliasname if getattr(item, "alias", None) else ""
        if kind(item) == "RangeVar":
            level.relations.append(self._relation(item, alias or item.relname, ctes))
            return frozenset({alias or item.relname}), {}
        if kind(item) == "RangeSubselect":
            self.statement(item.subquery, level, ctes)
        level.relations.append(Relation(alias))
        return frozenset({alias}), {}

    def _relation(self, item: Node, alias: str, ctes: frozenset[str]) -> Relation:
        if not item.schemaname and item.relname in ctes:
            return Relation(alias)
        table = self.schema.table(item.schemaname or "", item.relname) if self.schema else None
        columns = frozenset(column.name for column in table.columns) if table else frozenset()
        return Relation(alias, item.schemaname or "", item.relname, columns)

    def _join(self, level: Level, item: Node, ctes: frozenset[str]) -> tuple[frozenset[str], dict[str, int]]:
        """Source: PostgreSQL manual, "Joined Tables": ON of an outer join never removes rows of the kept side."""
        left, missing_left = self._source(level, item.larg, ctes)
        right, missing_right = self._source(level, item.rarg, ctes)
        both, outer = left | right, {**missing_left, **missing_right}
        sides = {"JOIN_INNER": _EVERY, "JOIN_LEFT": right, "JOIN_RIGHT": left}
        filters = sides.get(item.jointype.name, frozenset())
        level.conditions += [Condition(each, filters, outer) for each in conjuncts(item.quals)]
        level.using += [(part.sval, left, right, filters) for part in item.usingClause or ()]
        missing = {"JOIN_LEFT": right, "JOIN_RIGHT": left, "JOIN_FULL": both}.get(item.jointype.name, frozenset())
        return both, outer | {alias: outer.get(alias, 0) + 1 for alias in missing}


def conjuncts(node: Node) -> list[Node]:
    """The conditions that AND joins, nested ones flattened."""
    if node is None:
        return []
    if kind(node) == "BoolExpr" and node.boolop.name == "AND_EXPR":
        return [each for arg in node.args for each in conjuncts(arg)]
    return [node]
