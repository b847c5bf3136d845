"""Plans that auto_explain logged: which statement they are of, and how they are shown without values."""

import json
import re
from typing import Any

_TEXT = re.compile(r"\s*Query Text: (.*?)\n(?=[^\n]*\(cost=)", re.DOTALL)
_NAMED = re.compile(r'\s*\{\s*"Query Text": ("(?:[^"\\]|\\.)*")')
_STRING = re.compile(r"'(?:[^']|'')*'?")
_NUMBER = re.compile(r"(?<![\w.$])-?\d[\d.]*(?:e[+-]?\d+)?\b")
_VALUED = re.compile(r"^\s*(?:[\w -]*(?:Cond|Filter|Key|Output|Call|Order By|Limit))\b[^:\n]*: ")
_STATEMENTS = ("Query Text", "Query Parameters")


def text_of(plan: str) -> str:
    """The text of the query in a plan, text or JSON; empty where it cannot be told."""
    if named := _NAMED.match(plan):
        return str(json.loads(named[1], strict=False))
    found = _TEXT.match(plan)
    return found[1].rpartition("\nQuery Parameters: ")[0] or found[1] if found else ""


def without_values(plan: str) -> str:
    """A plan with `?` for the values in its conditions, and without the text of its query.

    >>> without_values("Query Text: SELECT 'x'\\nSeq Scan on t  (cost=0.00..1.05 rows=1)\\n  Filter: (a = 'x'::text)")
    'Seq Scan on t  (cost=0.00..1.05 rows=1)\\n  Filter: (a = ?::text)'

    What cannot be read as text or JSON (cut short, YAML, XML) is not shown.
    """
    if not plan:
        return ""
    if plan.lstrip().startswith("{"):
        try:
            return json.dumps(_plain(json.loads(plan)), indent=2, ensure_ascii=False)
        except ValueError:
            return ""
    found = _TEXT.match(plan)
    if found is None:
        return ""
    return "\n".join(_line(line) for line in plan[found.end() :].splitlines()).rstrip()


def _line(line: str) -> str:
    line = _STRING.sub("?", line)
    return _NUMBER.sub("?", line) if _VALUED.match(line) else line


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if name not in _STATEMENTS}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _NUMBER.sub("?", _STRING.sub("?", value)) if isinstance(value, str) else value
