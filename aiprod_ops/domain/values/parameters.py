"""What to put in for `$n` to measure a statement with real values: from pg_stats or from the log, never invented."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiprod_ops.domain.schema import Name
from aiprod_ops.domain.sql.trees import kind, parse, repaired, walk
from aiprod_ops.domain.values.drawing import ColumnValues, draw, is_drawable
from aiprod_ops.domain.values.literals import literals, normalise, quote
from aiprod_ops.domain.values.slots import Slot, slots, types

__all__ = [
    "ColumnValues", "Logged", "Missing", "Slot", "ValueSet", "literals", "logged", "normalise", "quote", "repaired",
    "slots", "types", "value_sets",
]  # fmt: skip

#: Value classes, in the order in which they are measured.
KINDS = ("rare", "median", "common")


@dataclass(frozen=True, slots=True)
class Logged:
    """One call from the log: its literals by parameter number, and how long it took. Users' data: never shown."""

    values: Mapping[int, str]
    duration_ms: float


@dataclass(frozen=True, slots=True)
class ValueSet:
    """SQL literals for all slots, in the order of their numbers. `kind` is rare, median or common.

    `source` is `statistics`, `log`, or `statistics and log` where LIMIT and the like came from the log.
    """

    kind: str
    values: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Missing:
    """No value set can be built; `reason` names the parameter."""

    reason: str


def logged(text: str, sample: str, duration_ms: float, parameters: Sequence[str] = ()) -> Logged | None:
    """One logged call as values of a normalised text; `parameters` are those the log gave for `$n` (SQL literals).

    None when the sample is of another statement, or a value is missing.
    """
    found = literals(text, sample)
    if found is None:
        return None
    values = dict(enumerate(parameters, 1)) | found
    wanted = {node.number for node in walk(parse(text)) if kind(node) == "ParamRef"}
    return Logged({number: values[number] for number in sorted(wanted)}, duration_ms) if wanted <= set(values) else None


def value_sets(
    wanted: Sequence[Slot], statistics: Mapping[tuple[Name, str], ColumnValues], samples: Sequence[Logged]
) -> tuple[ValueSet, ...] | Missing:
    """Up to three sets of real values, rare, median and common ones, equal sets given once.

    Where several columns are compared, and the log has three different calls, these are whole calls: its fastest,
    median and slowest. Else a column's values come from its statistics; LIMIT, OFFSET and what is compared with no
    column come from the log (the median call). How wide a range is, no statistics tell: its two ends come from the log,
    if it has them. Where only the log can tell, its fastest, median and slowest call stand for the three.
    """
    ordered = sorted(samples, key=lambda each: (each.duration_ms, sorted(each.values.items())))
    sets: dict[tuple[str, ...], ValueSet] = {}
    for position, name in enumerate(KINDS):
        built = _built(name, position, wanted, statistics, ordered)
        if isinstance(built, Missing):
            return built
        sets.setdefault(built.values, built)
    return tuple(sets.values())


def _built(
    name: str,
    position: int,
    wanted: Sequence[Slot],
    statistics: Mapping[tuple[Name, str], ColumnValues],
    ordered: Sequence[Logged],
) -> ValueSet | Missing:
    values: list[str] = []
    sources: set[str] = set()
    drawn = {slot.number: column for slot in wanted if (column := _drawn(slot, wanted, statistics, bool(ordered)))}
    if _belongs_together(wanted, ordered):
        drawn = {}
    is_spread = any(slot.table is not None and slot.number not in drawn for slot in wanted)
    among = ordered[(len(ordered) - 1) * (position if is_spread else 1) // 2] if ordered else None
    for slot in wanted:
        if slot.number in drawn:
            values.append(draw(name, slot.operator, drawn[slot.number], is_pair=_is_paired(slot, wanted)))
            sources.add("statistics")
        elif among is not None and slot.number in among.values:
            values.append(among.values[slot.number])
            sources.add("log")
        else:
            return Missing(_reason(slot))
    return ValueSet(name, tuple(values), " and ".join(sorted(sources, reverse=True)) or "no parameters")


def _belongs_together(wanted: Sequence[Slot], ordered: Sequence[Logged]) -> bool:
    """Whether whole logged calls are to be preferred: values of several columns that are drawn one by one mix.

    Three different calls are needed: fewer do not tell rare from common.
    """
    columns = {(slot.table, slot.column) for slot in wanted if slot.table is not None and slot.operator != "set"}
    calls = {tuple(sorted(each.values.items())) for each in ordered}
    is_whole = all({slot.number for slot in wanted} <= each.values.keys() for each in ordered)
    return len(columns) > 1 and len(calls) >= len(KINDS) and is_whole


def _drawn(
    slot: Slot, wanted: Sequence[Slot], statistics: Mapping[tuple[Name, str], ColumnValues], is_logged: bool
) -> ColumnValues | None:
    """The statistics that a slot's value is drawn from; None where the log has to give it."""
    if slot.table is None or (is_logged and _is_paired(slot, wanted)):
        return None
    column = statistics.get((slot.table, slot.column))
    return column if column is not None and is_drawable(column) else None


def _is_paired(slot: Slot, wanted: Sequence[Slot]) -> bool:
    """Whether a range has a lower and an upper end on the same column."""
    same = [each.operator for each in wanted if (each.table, each.column) == (slot.table, slot.column)]
    return slot.operator in ("<", ">") and same.count("<") == same.count(">") == 1


def _reason(slot: Slot) -> str:
    if slot.table is not None:
        return f"no value is known for ${slot.number} ({slot.table}.{slot.column}): no statistics and no logged call"
    what = {"limit": "LIMIT", "offset": "OFFSET"}.get(slot.operator, "compared with no column")
    return f"no value is known for ${slot.number} ({what}): it needs a call in the JSON log, log_min_duration_statement"
