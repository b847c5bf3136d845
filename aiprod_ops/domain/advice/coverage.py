"""A new index, what a statement needs of one, and whether an index that exists already gives it."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aiprod_ops.domain.schema import Condition, Index, Key, Name, Table

_LIMIT = 63  #: bytes of an identifier (PostgreSQL manual, "Identifiers and Key Words": NAMEDATALEN - 1)
_CAST = re.compile(r"::\"?[a-z_ ]+\"?(\(\d+\))?(\[\])?")
_PATTERN = re.compile(r"(text|varchar|bpchar)_pattern_ops")


@dataclass(frozen=True, slots=True)
class NewIndex:
    """A b-tree to be built, of all rows or of those that pass `where`.

    The driver quotes `name`, `table`, plain keys and the condition's column; expressions are SQL already.
    """

    name: Name
    table: Name
    keys: tuple[Key, ...]
    where: Condition | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Its keys without direction and operator class, in order."""
        return tuple(key.column for key in self.keys)

    @property
    def place(self) -> str:
        """Table, keys and condition; the schema where it is not the one that nobody names."""
        table = self.table.name if self.table.schema == "public" else str(self.table)
        return f"{table} ({', '.join(self.columns)}){_where(self.where)}"

    def __str__(self) -> str:
        keys = ", ".join(shown(key) for key in self.keys)
        return f"{self.name.name} on {self.table} ({keys}){_where(self.where)}"


@dataclass(frozen=True, slots=True)
class Need:
    """What an index must offer a statement: `equals` in any order, then `tail` in this one.

    `use` tells what the tail is for: `sort` (needed in order), `range`, `like`, `soft` (a sort that is welcome but not
    needed: few rows are left to be sorted), or '' without a tail. With `where` it asks this of the rows that pass it;
    `part` wants just these rows, and the tail is something to point to them.
    """

    table: Name
    equals: tuple[Key, ...] = ()
    tail: tuple[Key, ...] = ()
    use: str = ""
    where: Condition | None = None


def _where(condition: Condition | None) -> str:
    return f" WHERE {condition.text(condition.column)}" if condition else ""


def shown(key: Key) -> str:
    """A key for people, as CREATE INDEX would have it but unquoted."""
    words = [key.column]
    if key.operator_class:
        words.append(key.operator_class)
    if key.descending:
        words.append("DESC")
    if key.nulls_first != key.descending:
        words.append("NULLS FIRST" if key.nulls_first else "NULLS LAST")
    return " ".join(words)


def flipped(keys: Iterable[Key]) -> tuple[Key, ...]:
    """The same order read backwards (PostgreSQL manual, "Indexes and ORDER BY": b-trees are read either way)."""
    return tuple(replace(key, descending=not key.descending, nulls_first=not key.nulls_first) for key in keys)


def serves(keys: Sequence[Key], need: Need) -> bool:
    """Whether an index with these keys gives a statement what it needs.

    Its leading keys are the need's equality columns in any order; the tail follows as it is, or reversed.
    Of a part that is wanted as it is, any index does.
    Source: PostgreSQL manual, "Multicolumn Indexes", "Indexes and ORDER BY", "Operator Classes".
    """
    if need.use == "part":
        return True
    count = len(need.equals)
    lead, rest = keys[:count], keys[count:]
    if len(lead) < count or sorted(_same(key) for key in lead) != sorted(_same(key) for key in need.equals):
        return False
    if not all(_compares(key) for key in lead):
        return False
    if need.use in ("", "soft"):
        return count > 0
    return follows(rest, need)


def follows(keys: Sequence[Key], need: Need) -> bool:
    """Whether these keys begin with the need's tail, as it is or reversed."""
    rest = keys[: len(need.tail)]
    if [_same(key) for key in rest] != [_same(key) for key in need.tail]:
        return False
    if need.use == "sort":
        wanted = [_order(key) for key in need.tail]
        return [_order(key) for key in rest] in (wanted, [_order(key) for key in flipped(need.tail)])
    return all(key.operator_class == wanted.operator_class for key, wanted in zip(rest, need.tail, strict=True))


def is_usable(index: Index, where: Condition | None = None) -> bool:
    """Whether the planner may use it for any value: a valid, ready b-tree, of all rows or of those that pass `where`.

    A generic plan cannot prove a partial index's predicate from a parameter (PostgreSQL manual, "Partial Indexes").
    """
    is_whole = not index.predicate or has_predicate(index.predicate, where)
    return index.method == "btree" and index.is_valid and index.is_ready and is_whole


def has_predicate(predicate: str, where: Condition | None) -> bool:
    """Whether a predicate, as `pg_get_expr` prints it, is this condition; '' is that of a full index."""
    return _loose(predicate) == (_loose(where.text(where.column)) if where else "")


def _loose(text: str) -> str:
    return re.sub(r'[\s()"]', "", text).lower()


def serving(table: Table, need: Need) -> Index | None:
    """An existing index that gives the need: by its keys, or because it is unique within the equality columns."""
    equals = {_same(key) for key in need.equals}
    for index in table.indexes:
        if not is_usable(index, need.where) or (need.use == "part" and not _holds(index, need)):
            continue
        is_lookup = index.is_unique and bool(index.keys) and all(_same(key) in equals for key in index.keys)
        if is_lookup or serves(index.keys, need):
            return index
    return None


def _holds(index: Index, need: Need) -> bool:
    """Whether an index of all rows finds the part, as a partial one does: its first key tells who is NULL and who not.

    Source: PostgreSQL manual, "Index Types": an IS NULL or IS NOT NULL condition on an index column can be used.
    """
    first = index.keys[0] if index.keys else None
    if index.predicate or first is None or need.where is None:
        return bool(index.predicate)
    return "NULL" in need.where.form and not first.is_expression and first.column == need.where.column


def exists(index: NewIndex, table: Table) -> Index | None:
    """An existing b-tree with the same keys, of the same rows; a valid one before an INVALID remainder."""
    wanted = [(_same(key), *_order(key)) for key in index.keys]
    found = [
        each
        for each in table.indexes
        if each.method == "btree"
        and has_predicate(each.predicate, index.where)
        and [(_same(key), *_order(key)) for key in each.keys] == wanted
    ]
    return next((each for each in found if each.is_valid and each.is_ready), found[0] if found else None)


def name_for(table: Table, keys: Sequence[Key], taken: Iterable[str], where: Condition | None = None) -> Name:
    """`idx_table_column_column`, lower case, at the most 63 bytes, with a number where the name is taken; of a part of
    the table `idx_table_column_where_column_is_null`.

    The name of an INVALID remainder with the same keys is used again: the build replaces it.
    """
    part = ["where", where.text(where.column)] if where else []
    plain = "_".join(["idx", table.name.name, *(key.column for key in keys), *part]).lower()
    base = re.sub(r"_+", "_", re.sub(r"[^a-z0-9_]", "_", plain)).strip("_")
    used = set(taken)
    for number in range(len(used) + 1):
        suffix = f"_{number}" if number else ""
        name = Name(table.name.schema, _shortened(base, plain, _LIMIT - len(suffix)) + suffix)
        remainder = exists(NewIndex(name, table.name, tuple(keys), where), table)
        is_ours = remainder is not None and remainder.name == name and not remainder.is_valid
        if name.name not in used or is_ours:
            return name
    raise AssertionError("one of n + 1 names is free")


def _shortened(base: str, plain: str, most: int) -> str:
    if len(base) <= most:
        return base
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{base[: most - 9]}_{digest}"


def _same(key: Key) -> str:
    """The key's column, or its expression without the casts and brackets that `pg_get_indexdef` adds."""
    if not key.is_expression:
        return key.column
    text = _CAST.sub("", key.column).replace(" ", "")
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return "=" + text.replace("((", "(").replace("))", ")")


def _order(key: Key) -> tuple[bool, bool, str]:
    return key.descending, key.nulls_first, key.operator_class


def _compares(key: Key) -> bool:
    """Pattern operator classes know equality too ("Operator Classes and Operator Families")."""
    return not key.operator_class or _PATTERN.fullmatch(key.operator_class) is not None
