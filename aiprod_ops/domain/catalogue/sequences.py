"""Sequences near their end, or near the largest value that their column can hold: then every insert fails.

Source: PostgreSQL manual, CREATE SEQUENCE (MAXVALUE, CYCLE), "Numeric Types" (the range of smallint and integer).
"""

from collections.abc import Iterator

from aiprod_ops.domain.catalogue.faults import Fault, Level
from aiprod_ops.domain.catalogue.indexes import Catalogue, Sequence, listed
from aiprod_ops.units import Ratio, show


def faults(catalogue: Catalogue, warning: Ratio, critical: Ratio) -> Iterator[Fault]:
    """One for each sequence that has used so much of what it has; one UNKNOWN for all that may not be read."""
    if hidden := [str(sequence.name) for sequence in catalogue.sequences if sequence.is_hidden]:
        note = (
            f"this role may not read {len(hidden)} sequence{'s' * (len(hidden) > 1)} ({listed(hidden)}): "
            f"`GRANT pg_read_all_data TO {catalogue.role}`"
        )
        yield Fault("sequence", "privilege", Level.UNKNOWN, note)
    for sequence in catalogue.sequences:
        share, limit = used(sequence)
        if share >= warning:
            level = Level.CRITICAL if share >= critical else Level.WARNING
            yield Fault("sequence", str(sequence.name), level, _note(sequence, share, limit))


def used(sequence: Sequence) -> tuple[float, str]:
    """The share that is used of the sequence or of a column's type, whichever is nearer, and which that is.

    >>> from aiprod_ops.domain.schema import Name
    >>> used(Sequence(Name("public", "s"), 26214, 1, 2**31 - 1, columns={"public.t.id": 2**15 - 1}))[1]
    'the type of public.t.id'
    """
    if sequence.last is None:
        return 0.0, ""
    rises = sequence.increment > 0
    first, end = (sequence.smallest, sequence.largest) if rises else (sequence.largest, sequence.smallest)
    limits = {} if sequence.cycles else {"the sequence": end}
    for column, most in sequence.columns.items():
        limit = most if rises else -most - 1
        if not sequence.cycles or abs(limit - first) < abs(end - first):
            limits[f"the type of {column}"] = limit
    shares = [(_share(sequence.last, first, limit), text) for text, limit in limits.items()]
    return max(shares, key=lambda each: each[0], default=(0.0, ""))


def _share(last: int, first: int, end: int) -> float:
    span = abs(end - first) + 1
    return min(1.0, (abs(last - first) + 1) / span)


def _note(sequence: Sequence, share: float, limit: str) -> str:
    taken = f", taken by {', '.join(sequence.columns)}" if sequence.columns else ""
    end = "MAXVALUE" if sequence.increment > 0 else "MINVALUE"
    helps = f"`ALTER SEQUENCE … NO {end}` moves its end"
    if sequence.columns:
        helps = "give the column and the sequence the type bigint before that, on a copy first"
        if limit == "the sequence":
            helps += f", or move its end: `ALTER SEQUENCE … {end} …`"
    used = f"{show(share, 'ratio')} of {limit} is used (last value {sequence.last:,}{taken})"
    return f"{used}; at its end every insert fails: {helps}"
