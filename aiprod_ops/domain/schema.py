"""What a database looks like: tables, columns and their statistics, indexes."""

from dataclasses import dataclass

from aiprod_ops.units import Bytes


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A schema-qualified name, unquoted: the driver quotes it."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as declared. `type` is what `format_type` prints, `btree` whether a b-tree can order it."""

    name: str
    type: str
    is_not_null: bool = False
    btree: bool = True
    is_text: bool = False  #: text-like with a pattern operator class (text, varchar, char)
    is_c_collated: bool = False  #: byte order: a plain b-tree serves LIKE 'prefix%' too


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """What ANALYZE knows of a column, without any of its values.

    `distinct` is a count (pg_stats' negative form already multiplied by the rows); `frequencies` are those of the
    most common values, largest first, each a share of all rows; `width_bytes` is the average. `true` is the share of
    rows in which a boolean is true.
    Source: PostgreSQL manual, view pg_stats.
    """

    null_fraction: float
    distinct: float
    frequencies: tuple[float, ...] = ()
    width_bytes: int = 8
    correlation: float = 0.0
    true: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an index: a column, or an expression as text. `operator_class` is empty for the default one."""

    column: str
    descending: bool = False
    nulls_first: bool = False
    operator_class: str = ""
    is_expression: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Condition:
    """What some rows of a table pass, without a value: `form` is `{} IS NULL`, `{} IS NOT NULL`, `{}` or `NOT {}`.

    It stands in a statement as it is, never as a parameter, so a generic plan can rest on it, too.
    """

    column: str
    form: str

    def text(self, column: str) -> str:
        """As SQL, with the column's name as it is to be written."""
        return self.form.format(column)


@dataclass(frozen=True, slots=True)
class Index:
    """An index that exists. `definition` is what `pg_get_indexdef` prints; `predicate` is empty for a full index."""

    name: Name
    table: Name
    keys: tuple[Key, ...]
    definition: str
    method: str = "btree"
    include: tuple[str, ...] = ()
    predicate: str = ""
    is_unique: bool = False
    is_valid: bool = True
    is_ready: bool = True
    constraint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as declared: what a migration changes, not what data does."""

    name: Name
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables that somebody uses, sorted by name. Only what is stable: it goes into a plan's digest.

    `search_path` resolves unqualified names; `revision` is Alembic's head in the database, if there is one.
    `taken` are the names of everything else that shares the tables' name space: views, sequences, and the `partitioned`
    parents, which hold no rows themselves.
    """

    tables: tuple[Table, ...]
    search_path: tuple[str, ...] = ("public",)
    revision: str = ""
    taken: tuple[Name, ...] = ()
    partitioned: tuple[Name, ...] = ()

    def table(self, schema: str, name: str) -> Table | None:
        """Find a table by name; an empty `schema` searches the search path, in order."""
        wanted = (schema,) if schema else self.search_path
        for candidate in wanted:
            for table in self.tables:
                if table.name == Name(candidate, name):
                    return table
        return None


@dataclass(frozen=True, slots=True)
class TableSize:
    """What data does to a table; it moves all the time. `statistics` by column; without them ANALYZE never ran."""

    rows: float
    pages: int
    size: Bytes
    statistics: dict[str, ColumnStatistics]
