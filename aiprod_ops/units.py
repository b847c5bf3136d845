"""Quantities that carry their unit in their type, how they are read from people and how they are shown to them."""

import math
import re
from typing import NewType

Seconds = NewType("Seconds", float)
Milliseconds = NewType("Milliseconds", float)
Bytes = NewType("Bytes", int)
Ratio = NewType("Ratio", float)  #: 0 to 1
Cores = NewType("Cores", float)  #: how many are kept busy: 0.01 is 600 ms a minute

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_MOST_SECONDS = 36525 * 86400.0
_MOST_BYTES = 2**63 - 1
_MOST_CORES = 10_000.0
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def seconds(text: str | float) -> Seconds:
    """Read a duration such as `30 s`, `5min`, `4 h`; a bare number is seconds.

    >>> seconds("4 h"), seconds("250ms"), seconds(3)
    (14400.0, 0.25, 3.0)

    Raises ValueError for anything else.
    """
    expected = "a duration of at most a hundred years, such as '500 ms', '30 s', '5 min', '4 h' or '30 d'"
    return Seconds(_read(text, _SECONDS, "s", _MOST_SECONDS, expected))


def milliseconds(text: str | float) -> Milliseconds:
    """Read a duration; a bare number is milliseconds.

    >>> milliseconds("500"), milliseconds("1.5 s")
    (500.0, 1500.0)
    """
    scale = {name: factor * 1000 for name, factor in _SECONDS.items()}
    expected = "a duration such as '500 ms' or '1.5 s'"
    return Milliseconds(_read(text, scale, "ms", _MOST_SECONDS * 1000, expected))


def size(text: str | float) -> Bytes:
    """Read a size in decimal units (1 kB = 1000 B).

    >>> size("1.5 GB"), size(12)
    (1500000000, 12)
    """
    return Bytes(int(_read(text, _BYTES, "B", _MOST_BYTES, "a size such as '64 MB' or '2 GB'")))


def ratio(text: str | float) -> Ratio:
    """Read a share of a whole, as `0.8` or `80 %`.

    >>> ratio("80 %"), ratio(0.5)
    (0.8, 0.5)
    >>> ratio("80")
    Traceback (most recent call last):
    ValueError: '80' is not a share from 0 to 1, such as 0.8 or '80 %'
    """
    return Ratio(_plain(text, 1.0, "a share from 0 to 1, such as 0.8 or '80 %'", percent=True))


def cores(text: str | float) -> Cores:
    """Read a number of cores; 1 % of one is `0.01`.

    >>> cores("2.5")
    2.5
    """
    return Cores(_plain(text, _MOST_CORES, f"a number of cores from 0 to {_MOST_CORES:,.0f}, such as 0.01 or 2"))


def count(text: str | int) -> int:
    """Read a number of things.

    >>> count("20")
    20
    """
    found = _plain(text, float(_MOST_BYTES), expected := "a whole number from 0, such as 20")
    if not found.is_integer():
        raise ValueError(f"{text!r} is not {expected}")
    return int(text)


def number(text: str | float) -> float:
    """Read a number without a unit.

    >>> number("2.5"), number(-1)
    (2.5, -1.0)
    """
    return _plain(text, math.inf, "a number such as 2 or 0.5", least=-math.inf)


def _plain(text: str | float, most: float, expected: str, *, least: float = 0.0, percent: bool = False) -> float:
    match = _NUMBER.fullmatch(str(text))
    value = float(match[1]) / (100 if match[2] else 1) if match and (percent or not match[2]) else math.nan
    if not (least <= value <= most and math.isfinite(value)):
        raise ValueError(f"{text!r} is not {expected}")
    return value


def _read(text: str | float, scale: dict[str, float] | dict[str, int], bare: str, most: float, expected: str) -> float:
    match = _QUANTITY.fullmatch(str(text))
    value = math.nan
    if isinstance(text, int | float):
        value = float(text) * scale[bare]
    elif match is not None and (match[2] or bare) in scale:
        value = float(match[1]) * scale[match[2] or bare]
    if not 0 <= value <= most:
        raise ValueError(f"{text!r} is not {expected}")
    return value


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
