"""Drift: indexes that the migrations declare and the database does not have, and the other way round."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from aiprod_ops.domain.catalogue.faults import Existing, Fault, Level, Restore
from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.schema import Index, Name, Schema, Table

VERSIONS = "alembic_version"  #: Alembic's own table: no migration declares it
_HEAD = re.compile(r'(CREATE (?:UNIQUE )?INDEX )(?:"(?:[^"]|"")+"|\S+) (ON )')
_OPTIONS = re.compile(r" WITH \(([^()]*)\)")
_REMAINS = re.compile(r"_cc(new|old)\d*\Z")  # REINDEX CONCURRENTLY was interrupted: not drift, another fault


@dataclass(frozen=True, slots=True)
class Step:
    """One revision as it ran on an empty server: the revisions that came before it, indexes it made and took away."""

    revision: str
    after: tuple[str, ...] = ()
    made: tuple[Name, ...] = ()  #: an index that got another definition is made again
    gone: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Migrated:
    """What the migrations declare: the schema at their head, on a server of `version` (`server_version_num`).

    `steps` are in the order in which they ran, the last one is the head. Where nobody can tell, `missing` says why.
    """

    schema: Schema = Schema(())  # noqa: RUF009 - frozen
    version: int = 0
    steps: tuple[Step, ...] = ()
    missing: str = ""


def drift(migrated: Migrated, there: Schema, version: int) -> list[Fault]:
    """Faults by table, then by name; `version` is the `server_version_num` of the server that `there` was read from.

    Tables that the migrations do not know are no drift of indexes: `drift_scope` counts them.
    """
    if reason := migrated.missing or _unknown_place(migrated.steps, there.revision):
        return [Fault("drift", "migrations", Level.UNKNOWN, reason)]
    seen = _Seen(there, _pending(migrated.steps, there.revision), _versions(migrated.version, version))
    tables = {table.name: table for table in there.tables}
    found: list[Fault] = []
    for table in _known(migrated):
        here = tables.get(table.name)
        found += seen.table(table, here) if here else [seen.no_table(table)]
    return found


def drift_scope(migrated: Migrated, there: Schema, version: int) -> list[Finding]:
    """One line of information: what was compared with what, and how many tables the migrations do not know."""
    if migrated.missing or _unknown_place(migrated.steps, there.revision):
        return []
    known = {table.name for table in _known(migrated)}
    unknown = [str(table.name) for table in there.tables if table.name not in known and table.name.name != VERSIONS]
    head = migrated.steps[-1].revision
    note = f"compared with the migrations at their head {head}; the database is at {there.revision}"
    if versions := _versions(migrated.version, version):
        note += f"; {versions}"
    if unknown:
        note += f"; not compared: {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}"
    return [Finding("tables the migrations do not know", len(unknown), note=note)]


def _known(migrated: Migrated) -> list[Table]:
    return [table for table in migrated.schema.tables if table.name.name != VERSIONS]


def _versions(migrated: int, there: int) -> str:
    """How the two servers differ in their major version; empty where they do not."""
    if migrated // 10000 == there // 10000:
        return ""
    return f"the migrations ran on PostgreSQL {migrated // 10000}, this server is {there // 10000}"


def _unknown_place(steps: tuple[Step, ...], revision: str) -> str:
    """Why the database has no place among the revisions; empty where it has one."""
    if not revision:
        return (
            f"no revision was found in the database: a table {VERSIONS} that has a row, lies in the search path and "
            f"that this role may read. Migrate it (`alembic upgrade head`), or `GRANT SELECT ON {VERSIONS} TO …;`"
        )
    unknown = sorted(set(revision.split(",")) - {step.revision for step in steps})
    if unknown:
        return (
            f"the database is at revision {', '.join(unknown)}, which the migrations folder does not have (its head is "
            f"{steps[-1].revision if steps else 'none'}): check out the version of the code that is deployed here"
        )
    return ""


def _pending(steps: tuple[Step, ...], revision: str) -> dict[str, Step]:
    """The steps that have not run in a database at `revision` (heads, separated by commas), by revision, in order.

    >>> steps = (Step("001"), Step("002", ("001",)), Step("003", ("002",)))
    >>> list(_pending(steps, "002"))
    ['003']
    """
    after = {step.revision: step.after for step in steps}
    ran: set[str] = set()
    left = revision.split(",")
    while left:
        one = left.pop()
        if one not in ran:
            ran.add(one)
            left += after.get(one, ())
    return {step.revision: step for step in steps if step.revision not in ran}


@dataclass(frozen=True, slots=True)
class _Seen:
    """The database as it is: `pending` steps have not run there; `versions` is empty where both servers print alike."""

    there: Schema
    pending: Mapping[str, Step]
    versions: str

    def table(self, declared: Table, there: Table) -> Iterator[Fault]:
        """The faults of one table that is on both sides."""
        wanted = {index.name: index for index in declared.indexes}
        present = {index.name: index for index in there.indexes if _is_there(index)}
        for name in sorted(wanted.keys() & present.keys()):
            if _form(wanted[name]) != _form(present[name]):
                yield self.different(wanted[name], present[name])
        missing, extra = _without(wanted, present), _without(present, wanted)
        for index in missing:
            twin = next((each for each in extra if _form(each) == _form(index)), None)
            if twin is None:
                yield self.missing(index)
            else:
                extra.remove(twin)
                yield self.renamed(index, twin)
        for index in extra:
            yield self.undeclared(index)

    def missing(self, index: Index) -> Fault:
        name = str(index.name)
        if step := self._pending(index.name, "made"):
            # Building it ahead would break a migration that expects to build it.
            note = f"{_not_run(step, 'which makes it')}: {index.definition}. Run `alembic upgrade head`"
            return Fault("missing", name, Level.WARNING, note)
        level = Level.CRITICAL if index.is_unique else Level.WARNING
        note = f"the migrations declare it, and it is not here: {index.definition}"
        if obstacle := self._holder(index.name) or (_add_constraint(index) if index.constraint else ""):
            return Fault("missing", name, level, f"{note}. {obstacle}")
        return Fault("missing", name, level, note, Restore(Existing(index.name, index.table, index.definition)))

    def different(self, declared: Index, there: Index) -> Fault:
        note = f"declared: {_shown(declared)}; here: {_shown(there)}"
        if step := self._pending(declared.name, "made"):
            note = f"{_not_run(step, 'which changes it')}. {note}"
            return Fault("different", str(declared.name), Level.WARNING, note)
        if self.versions:
            note += f". {self.versions}, and may print the same index another way: name the server's own `postgres_bin`"
            return Fault("different", str(declared.name), Level.UNKNOWN, note)
        level = Level.CRITICAL if declared.is_unique and not there.is_unique else Level.WARNING
        return Fault("different", str(declared.name), level, f"{note}. {_replace(declared, there)}")

    def renamed(self, declared: Index, there: Index) -> Fault:
        note = f"the migrations call it {declared.name.name}, here it is {there.name.name}: {there.definition}"
        if step := self._pending(declared.name, "made"):
            note = f"{_not_run(step, 'which names it so')}. {note}"
        elif holder := self._holder(declared.name):
            note += f". {holder}"
        else:
            statement = f"ALTER INDEX {_sql(there.name)} RENAME TO {_sql(declared.name.name)}"
            note += f". Let it have the declared name: `{statement};`"
        return Fault("renamed", str(declared.name), Level.WARNING, note)

    def undeclared(self, index: Index) -> Fault:
        if step := self._pending(index.name, "gone"):
            note = f"{_not_run(step, 'which drops it')}: {index.definition}"
        else:
            note = f"it is here, and no migration declares it: {index.definition}. {_decide(index)}"
        return Fault("undeclared", str(index.name), Level.WARNING, note)

    def no_table(self, table: Table) -> Fault:
        """One fault for a table that is not there, whatever the number of its indexes."""
        names = {index.name for index in table.indexes}
        makers = [step for step in self.pending.values() if names & set(step.made)]
        if makers:
            note = f"{_not_run(makers[0], 'which makes it')}: the table, and its {len(names)} indexes"
            return Fault("missing", str(table.name), Level.WARNING, note)
        note = (
            f"the migrations make this table, and it is not here; its {len(names)} indexes were not compared. Somebody "
            f"dropped it, or the migrations run with another search_path than `{', '.join(self.there.search_path)}`"
        )
        return Fault("missing", str(table.name), Level.UNKNOWN, note)

    def _pending(self, name: Name, what: str) -> Step | None:
        """The last step that has not run here and makes this index, or takes it away."""
        return next((step for step in reversed(list(self.pending.values())) if name in getattr(step, what)), None)

    def _holder(self, name: Name) -> str:
        """Who else has the name, and what to do about it; empty where it is free."""
        for index in (index for table in self.there.tables for index in table.indexes):
            if index.name == name and not _is_there(index):
                return f"An INVALID index has this name: rebuild it, `REINDEX INDEX CONCURRENTLY {_sql(name)};`"
            if index.name == name:
                return f"An index of {index.table} has this name: rename that one first"
        if name in self.there.taken or any(table.name == name for table in self.there.tables):
            return "Another relation has this name: rename that one first"
        return ""


def _is_there(index: Index) -> bool:
    return index.is_valid and index.is_ready and not _REMAINS.search(index.name.name)


def _without(these: Mapping[Name, Index], those: Iterable[Name]) -> list[Index]:
    known = set(those)
    return [these[name] for name in sorted(these) if name not in known]


def _form(index: Index) -> tuple[str, bool]:
    """The definition without the name and with storage parameters in order, and whether a constraint needs it.

    All else is printed by the server from its catalogue: qualified, with method, casts and operator classes.
    Source: PostgreSQL manual, "System Catalog Information Functions", pg_get_indexdef.
    """
    text = _HEAD.sub(r"\1\2", index.definition, count=1)
    text = _OPTIONS.sub(lambda found: f" WITH ({', '.join(sorted(found[1].split(', ')))})", text, count=1)
    return text, bool(index.constraint)


def _shown(index: Index) -> str:
    return index.definition + (" (of a constraint)" if index.constraint else "")


def _not_run(step: Step, what: str) -> str:
    return f"revision {step.revision}, {what}, has not run here"


def _add_constraint(index: Index) -> str:
    add = f"ALTER TABLE {_sql(index.table)} ADD CONSTRAINT {_sql(index.constraint)}"
    return (
        f"It belongs to a constraint: build the index concurrently, then `{add} … USING INDEX {_sql(index.name.name)};`"
    )


def _replace(declared: Index, there: Index) -> str:
    """What a person does: build the declared one beside the other, then change the names over."""
    if declared.constraint or there.constraint:
        return "A constraint needs one of them: write a migration that replaces it"
    name, new = declared.name, f"{declared.name.name}_new"
    build = _HEAD.sub(lambda found: f"{found[1]}CONCURRENTLY {_sql(new)} {found[2]}", declared.definition, count=1)
    drop = f"DROP INDEX CONCURRENTLY {_sql(name)}"
    rename = f"ALTER INDEX {_sql(Name(name.schema, new))} RENAME TO {_sql(name.name)}"
    return f"If the declared one is right: `{build};` `{drop};` `{rename};`; else write a migration for this one"


def _decide(index: Index) -> str:
    if index.constraint:
        drop = f"ALTER TABLE {_sql(index.table)} DROP CONSTRAINT {_sql(index.constraint)}"
        return f"It belongs to a constraint: write a migration that adds it, or remove it: `{drop};`"
    keep = re.sub(r"(CREATE (?:UNIQUE )?INDEX )", r"\1IF NOT EXISTS ", index.definition, count=1)
    return f"Write a migration with `{keep};`, unless another finding says that it can go"


def _sql(name: Name | str) -> str:
    parts = (name.schema, name.name) if isinstance(name, Name) else (name,)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
