"""Markdown tables that can be read as they are, and values written the way they are typed."""

import re
from collections.abc import Sequence

from aiprod_ops.engine.registry import Param

_DURATIONS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SIZES = (("TB", 1000**4), ("GB", 1000**3), ("MB", 1000**2), ("kB", 1000), ("B", 1))


_PIPE = re.compile(r"`[^`]*`|\|")


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """A Markdown table with aligned columns; a `|` in a cell is escaped, but in code, where Python-Markdown splits no
    cell and would show the backslash.

    >>> print(table([["a", "1|2"], ["b", "`3|4`"]], ["name", "value"]))
    | name | value |
    | ---- | ----- |
    | a    | 1\\|2  |
    | b    | `3|4` |
    """
    cells = [[_PIPE.sub(_escaped, " ".join(str(cell).split())) for cell in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * w for w in widths) + " |", *lines[1:]])


def _escaped(found: re.Match[str]) -> str:
    return "\\|" if found[0] == "|" else found[0]


def typed(value: object, kind: str) -> str:
    """A parameter's value as a person types it on the command line.

    >>> typed(300.0, "Seconds"), typed(2_000_000, "Bytes"), typed(0.05, "Ratio"), typed(True, "bool")
    ('5min', '2MB', '0.05', 'yes')
    >>> typed(2**40, "Bytes")
    '1099511627776B'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if kind in ("Seconds", "Milliseconds"):
        return _scaled(value, _DURATIONS) if kind == "Seconds" else f"{value:g}ms"
    return _scaled(value, _SIZES) if kind == "Bytes" else f"{value:g}"


def _scaled(value: float, units: Sequence[tuple[str, int]]) -> str:
    if value == 0:
        return f"0{units[-1][0]}"
    name, factor = next(((n, f) for n, f in units if value % f == 0), units[-1])
    return f"{value / factor:.15g}{name}"


def options(params: Sequence[Param], promised: dict[str, object]) -> list[tuple[str, str, str]]:
    """Rows of option, default, meaning. `promised` are the values of `service.toml` by path."""
    rows = []
    for param in params:
        if param.promise:
            default = f"`{promised[param.promise]}`, promised as `{param.promise}`"
        elif param.default is None:
            default = "none: it has to be given"
        else:
            default = f"`{typed(param.default, param.type)}`" if param.default != "" else "empty"
        rows.append((f"`{param.option}`", default, param.help))
    return rows
