"""Quantities that carry their unit in their type, how they are read from people and how they are shown to them."""

import re
from typing import NewType

Seconds = NewType("Seconds", float)
Milliseconds = NewType("Milliseconds", float)
Bytes = NewType("Bytes", int)
Ratio = NewType("Ratio", float)

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def seconds(text: str | float) -> Seconds:
    """Read a duration such as `30 s`, `5min`, `4 h`; a bare number is seconds.

    >>> seconds("4 h"), seconds("250ms"), seconds(3)
    (14400.0, 0.25, 3.0)

    Raises ValueError for anything else.
    """
    return Seconds(_read(text, _SECONDS, "s", "a duration such as '500 ms', '30 s', '5 min', '4 h' or '30 d'"))


def milliseconds(text: str | float) -> Milliseconds:
    """Read a duration; a bare number is milliseconds.

    >>> milliseconds("500"), milliseconds("1.5 s")
    (500.0, 1500.0)
    """
    scale = {name: factor * 1000 for name, factor in _SECONDS.items()}
    return Milliseconds(_read(text, scale, "ms", "a duration such as '500 ms' or '1.5 s'"))


def size(text: str | float) -> Bytes:
    """Read a size in decimal units (1 kB = 1000 B).

    >>> size("1.5 GB"), size(12)
    (1500000000, 12)
    """
    return Bytes(int(_read(text, _BYTES, "B", "a size such as '64 MB' or '2 GB'")))


def _read(text: str | float, scale: dict[str, float] | dict[str, int], bare: str, expected: str) -> float:
    if isinstance(text, int | float):
        return float(text) * scale[bare]
    match = _QUANTITY.fullmatch(text)
    if match is None or (match[2] or bare) not in scale:
        raise ValueError(f"{text!r} is not {expected}")
    return float(match[1]) * scale[match[2] or bare]


def show(value: float, unit: str) -> str:
    """Write a quantity for people: three digits that matter, in the unit that fits.

    >>> show(0.0421, "s"), show(412.3, "ms"), show(88_000_000, "B"), show(0.934, "ratio"), show(1_204_233, "")
    ('42.1 ms', '412 ms', '88.0 MB', '93.4 %', '1,204,233')
    """
    if unit == "ms":
        return show(value / 1000, "s")
    if unit == "s":
        return _seconds_text(value)
    if unit == "B":
        for name, factor in reversed(_BYTES.items()):
            if abs(value) >= factor and factor > 1:
                return f"{_three(value / factor)} {name}"
        return f"{value:.0f} B"
    if unit == "ratio":
        return f"{_three(value * 100)} %"
    if unit == "grade":
        return ""  # of a state: its name says it
    if unit == "×":
        return f"{_three(value)} ×"
    text = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else _three(value)
    return f"{text} {unit}".strip()


def _seconds_text(value: float) -> str:
    if value == 0:
        return "0 s"
    if abs(value) < 0.0095:
        return f"{value * 1000:.2f} ms"
    if abs(value) < 1:
        return f"{_three(value * 1000)} ms"
    if abs(value) < 120:
        return f"{_three(value)} s"
    for name in ("min", "h", "d"):
        if abs(value) < 120 * _SECONDS[name] or name == "d":
            return f"{_three(value / _SECONDS[name])} {name}"
    raise AssertionError("unreachable")


def _three(value: float) -> str:
    size_of = abs(value)
    if size_of >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size_of >= 9.995 else f"{value:.2f}"
