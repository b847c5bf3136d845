"""The values of a call's parameters, as the log's DETAIL tells them."""

import re

_PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')(?:, (?=\$)|\Z)", re.DOTALL)


def parameters(detail: str) -> tuple[str, ...] | None:
    """SQL literals from `Parameters: $1 = 'x', $2 = NULL` (`parameters:` up to PostgreSQL 15); None if cut short.

    >>> parameters("Parameters: $1 = 'it''s, $2 = 3', $2 = NULL")
    ("'it''s, $2 = 3'", 'NULL')
    >>> parameters("parameters: $1 = 'abc...'"), parameters("")
    (None, ())

    Source: postgres.c, errdetail_params.
    """
    if not detail.lower().startswith("parameters: "):
        return ()
    found: list[str] = []
    position, text = 0, detail[len("parameters: ") :]
    while match := _PARAMETER.match(text, position):
        if int(match[1]) != len(found) + 1 or match[2].endswith("...'"):
            return None
        found.append(match[2])
        position = match.end()
    return tuple(found) if position == len(text) else None
