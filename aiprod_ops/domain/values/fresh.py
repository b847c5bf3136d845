"""Keys that no row has yet: an INSERT that is measured twice must not collide with itself."""

from collections.abc import Sequence
from dataclasses import replace

from aiprod_ops.domain.schema import Schema
from aiprod_ops.domain.values.parameters import ValueSet
from aiprod_ops.domain.values.slots import Slot

#: Expressions by type. A collision of two random numbers fails one measurement, and nothing else.
_NEW = {
    "uuid": "gen_random_uuid()",
    "text": "md5(random()::text)",
    "character varying": "md5(random()::text)",
    "bigint": "(1e15 + random() * 1e15)::bigint",
    "integer": "(1e9 + random() * 1e9)::integer",
}


def fresh(sets: Sequence[ValueSet], slots: Sequence[Slot], schema: Schema) -> tuple[ValueSet, ...]:
    """The same value sets, with a new key for each column that is written and that a unique index holds.

    A type that is not listed keeps its value, and the INSERT may fail as a duplicate.
    """
    new = {position: _NEW.get(slot.type.partition("(")[0], "") for position, slot in enumerate(slots)}
    keys = {position for position, slot in enumerate(slots) if new[position] and _is_key(slot, schema)}
    if not keys:
        return tuple(sets)
    return tuple(
        replace(each, values=tuple(new[n] if n in keys else value for n, value in enumerate(each.values)))
        for each in sets
    )


def _is_key(slot: Slot, schema: Schema) -> bool:
    if slot.operator != "set" or slot.table is None:
        return False
    table = schema.table(slot.table.schema, slot.table.name)
    indexes = table.indexes if table else ()
    return any(
        index.is_unique and index.is_valid and slot.column == key.column for index in indexes for key in index.keys
    )
