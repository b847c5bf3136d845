"""Parts of a real value: an element of an array, an end of a range, a key or a member of a JSON object."""

import json
import re

_ELEMENT = re.compile(r'\{(?:"((?:[^"\\]|\\.)*)"|([^",{}]+))')
_ESCAPED = re.compile(r"\\(.)")
_BOUND = re.compile(r'[\[(](?:"((?:[^"\\]|\\.)*)"|([^",]+))')


def element(value: str) -> str | None:
    """The first element of an array, or the lower end of a range; None of an empty one.

    >>> element('{a,b}'), element('{"a \\\\"b\\\\"",c}'), element('[3,9)'), element('{}')
    ('a', 'a "b"', '3', None)

    Source: PostgreSQL manual, "Array Input and Output Syntax", "Range Types".
    """
    found = _ELEMENT.match(value) or _BOUND.match(value)
    if found is None:
        return None
    return _ESCAPED.sub(r"\1", found[1]) if found[1] is not None else found[2]


def json_key(value: str) -> str | None:
    """The first key of an object; of an array its first text."""
    parsed = _parsed(value)
    if isinstance(parsed, list):
        return next((each for each in parsed if isinstance(each, str)), None)
    return next(iter(parsed), None) if isinstance(parsed, dict) else None


def json_member(value: str, key: str = "") -> str | None:
    """The text of an object's member, as `->>` gives it: of the first one, if no key is named.

    >>> json_member('{"a": 1, "b": {"c": true}}', "b"), json_member('{"a": 1}'), json_member("[]")
    ('{"c": true}', '1', None)
    """
    parsed = _parsed(value)
    if not isinstance(parsed, dict) or not parsed:
        return None
    member = parsed.get(key, next(iter(parsed.values())))
    return member if isinstance(member, str) else json.dumps(member)


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return None
