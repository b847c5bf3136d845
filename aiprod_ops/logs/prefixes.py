"""`log_line_prefix`: from what PostgreSQL's configuration says, or from what lines look like, to how they are read.

Source: PostgreSQL manual, "log_line_prefix".
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from aiprod_ops.logs.entries import USUAL

MAIN = ("LOG", "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "DEBUG1", "DEBUG2", "DEBUG3", "DEBUG4", "DEBUG5")
FURTHER = ("DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "STATEMENT", "BACKTRACE")
FIELDS = (
    "stamp", "session", "database", "application", "query_id",
    "severity", "duration", "prepared", "message", "other",
)  # fmt: skip
_SEVERITY = "|".join((*MAIN, *FURTHER))
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_ZONE = r"(?:[A-Z][A-Za-z]*|[+-]\d\d(?::?\d\d)*)"
_TEXT = r"[^\n]*?"
_ESCAPES = {
    "t": rf"(?P<stamp>{_TIME} {_ZONE})",
    "m": rf"(?P<stamp>{_TIME}\.\d+ {_ZONE})",
    "n": r"(?P<stamp>\d+\.\d+)",
    "s": rf"{_TIME} {_ZONE}",
    "p": r"(?P<session>\d+)",
    "c": r"[0-9a-f]+\.[0-9a-f]+",
    "d": rf"(?P<database>{_TEXT})",
    "a": rf"(?P<application>{_TEXT})",
    "Q": r"(?P<query_id>-?\d+)",
    "e": r"[0-9A-Z]{5}",
    "l": r"\d+",
    "x": r"\d+",
    "P": r"\d*",
    "v": r"[\d/]*",
    "%": "%",
} | dict.fromkeys("uhrbiL", _TEXT)
_ESCAPE = re.compile(r"%(-?\d*)([a-zA-Z%])")

_HEAD = re.compile(rf"([^\n]{{0,400}}?)\b(?:{_SEVERITY}):  ")
_NAMES = {"user": "%u", "db": "%d", "app": "%a", "client": "%h", "pid": "%p", "qid": "%Q"} | {
    "usr": "%u", "database": "%d", "application": "%a", "host": "%h", "remote": "%h", "query_id": "%Q", "queryid": "%Q",
}  # fmt: skip
#: What a part of a prefix looks like, and what it was made from; tried in this order, each once.
_SHAPES = [
    (re.compile(rf"{_TIME}\.\d+ {_ZONE}"), "%m"),
    (re.compile(rf"{_TIME} {_ZONE}"), "%t"),
    (re.compile(r"\b\d{10}\.\d{3}\b"), "%n"),
    (re.compile(r"\b[0-9a-f]{8}\.[0-9a-f]+\b"), "%c"),
    (re.compile(r"(?<=\[)\d+(?=\])"), "%p"),
    (re.compile(r"(?<=\[)\d+(?=-\d+\])"), "%l"),
    (re.compile(r"(?<=:)[\w.:-]+\(\d+\)"), "%r"),
    (re.compile(r"(?<![%\w])[^\s:@=,%]+@[^\s:@=,/]+/\S+"), "%u@%d/%a"),
    (re.compile(r"(?<![%\w])[^\s:@=,%]+@[^\s:@=,/]+"), "%u@%d"),
]
_PAIR = re.compile(rf"\b({'|'.join(_NAMES)})=(.*?)(?=,\w+=|\s+\w+=|[\])|;]|\s*\Z|\s+[\[(])")
_NUMBER = re.compile(r"(?<![%\w])\d+(?![\w-])")


def entries(prefix: str) -> re.Pattern[str]:
    """What matches one entry with its continuation lines, or one line that is none.

    Groups: those of FIELDS; empty where the prefix does not hold it. Of a call `duration` and `prepared` are told, and
    `message` is its text. `other` is a line that does not fit. Raises ValueError for an unknown escape.
    """
    begun = _pattern(prefix)
    message = r"(?P<message>[^\n]*(?:\n\t[^\n]*)*)"
    absent = "".join(f"(?P<{name}>)" for name in FIELDS[:5] if f"(?P<{name}>" not in begun)
    entry = rf"{begun}(?P<severity>{_SEVERITY}):  (?:(?<=LOG:  ){USUAL})?{message}\n{absent}"
    return re.compile(rf"{entry}|(?P<other>[^\n]*)\n")


def _pattern(prefix: str) -> str:
    parts, position, optional = [], 0, 0
    for escape in _ESCAPE.finditer(prefix):
        parts.append(re.escape(prefix[position : escape.start()]))
        position = escape.end()
        padding, letter = escape.groups()
        if letter == "q":
            parts.append("(?:")
            optional += 1
        elif letter not in _ESCAPES:
            raise ValueError(f"log_line_prefix has no %{letter}")
        else:
            found = _once(_ESCAPES[letter], parts)
            parts.append(f" *{found} *" if padding else found)
    return "".join([*parts, re.escape(prefix[position:]), ")?" * optional])


def _once(pattern: str, parts: Sequence[str]) -> str:
    """A group may be named once; the same thing written twice is read once."""
    name = re.match(r"\(\?P<\w+>", pattern)
    return f"(?:{pattern[name.end() :]}" if name and any(name[0] in part for part in parts) else pattern


def detect(lines: Sequence[str]) -> str | None:
    """The prefix that most of these lines have, as PostgreSQL would write it; None where no line is PostgreSQL's.

    >>> detect(["2026-11-22 10:00:00.123 UTC [77]: [5-1] db=shop,user=api LOG:  duration: 1.000 ms"])
    '%m [%p]: [%l-%x] db=%d,user=%u '
    """
    guesses = Counter(_guess(head[1]) for line in lines if (head := _HEAD.match(line)))
    best, most = None, 0
    for guess in _with_short_ones([guess for guess, _ in guesses.most_common(8)]):
        pattern = entries(guess)
        fitting = sum(found["other"] is None for line in lines if (found := pattern.fullmatch(line + "\n")))
        if fitting > most:
            best, most = guess, fitting
    return best


def _guess(head: str) -> str:
    text = head.replace("%", "%%")
    for shape, escape in _SHAPES[:4]:
        text = shape.sub(escape, text, count=1) if "%m" not in text or escape not in ("%t", "%n") else text
    text = _PAIR.sub(lambda pair: f"{pair[1]}={_NAMES[pair[1]]}", text)
    for shape, escape in _SHAPES[4:]:
        is_first = escape == "%l" and "%p" not in text  # [77-1]: process and line
        text = shape.sub("%p" if is_first else escape, text, count=1)
    return _NUMBER.sub("%x", text)


def _with_short_ones(guesses: Sequence[str]) -> Iterable[str]:
    """Processes without a session stop at `%q`: a prefix that begins as another one goes on."""
    for long in guesses:
        for short in guesses:
            if long != short and long.startswith(short):
                yield f"{short}%q{long[len(short) :]}"
    yield from guesses
