"""Which statement a text is, whatever its values, and how it is shown without them: PostgreSQL's own parser decides."""

import re
from hashlib import blake2b

from pglast.parser import ParseError, fingerprint, normalize, parse_sql_json, scan

MOST_TEXT = 8192  #: characters of a text that are looked at
MOST_SHAPES = 4096
_SHORT = 1024  # characters of a key; of a longer one the hash is kept

_STRING = re.compile(r"'(?:[^']|'')*'")
_ALIASED = re.compile(r'"relname":"((?:[^"\\]|\\.)*)"[^{}]*"alias":\{"aliasname"')
_NAME_OR_STRING = re.compile(r"""("[^"]*")|'(?:[^']|'')*'""")
_NUMBER = re.compile(r"[0-9](?<![\w$].)[0-9.]*")  # begins with a set, which is looked for quickly
_QUOTE = re.compile(r"'|\$\w*\$|--|/\*")
_DIGITS = re.compile(r"\b\d[\w.]*")
_DML = re.compile(r"(?is)\s*(?:select|insert|update|delete|merge|with|values|table)\b")
_STRINGS = frozenset({"SCONST", "USCONST", "BCONST", "XCONST"})
_NUMBERS = frozenset({"ICONST", "FCONST"})
_COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})


class Shapes:
    """Identities of texts. A text costs one look at a dictionary when only its literals are new."""

    def __init__(self, most: int = MOST_SHAPES) -> None:
        self._most = most
        self._known: dict[str, int] = {}

    def identity(self, text: str) -> int:
        """A query id of our own, signed 64 bit, where the server gives none; the same for all values of a statement."""
        is_prepared = "$1" in text and len(text) <= _SHORT
        known = self._known
        found = known.get(text) if is_prepared else None
        if found is None:
            key = text if is_prepared else _key(text)
            if len(key) > _SHORT:
                key = blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest()
            found = known.get(key)
            if found is None:
                found = identity(text)
                if len(known) >= self._most:
                    known.clear()
                known[key] = found
        return found


def identity(text: str) -> int:
    """The fingerprint of a text; of one that does not parse a hash of it without what looks like a literal."""
    return fingerprinted(text[:MOST_TEXT]) or _hash(text[:MOST_TEXT])


def fingerprinted(text: str) -> int:
    """The fingerprint as a signed number of 64 bit; 0 of what does not parse.

    libpg_query looks at a table's alias and then not at the table: `FROM jobs t` and `FROM results t` would be one
    statement. So the names of tables that have an alias are added.
    """
    try:
        digest = bytes.fromhex(fingerprint(text))
        if aliased := _ALIASED.findall(parse_sql_json(text)):
            digest = blake2b(digest + "\0".join(aliased).encode("utf-8", "replace"), digest_size=8).digest()
    except (ParseError, ValueError):
        return 0
    return int.from_bytes(digest, "big", signed=True)


def _hash(text: str) -> int:
    plain = " ".join(_NUMBER.sub("0", _STRING.sub("''", text)).split())
    digest = blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def _key(text: str) -> str:
    """The text without literals, where that is cheap and safe; else the text itself.

    A quote in a comment, between dollars or behind a backslash could hide a part of the statement.
    """
    text = text[:MOST_TEXT]
    if "'" in text:
        if "--" in text or "/*" in text or "\\" in text or "$" in text:
            return text
        text = _NAME_OR_STRING.sub(_emptied, text) if '"' in text else _STRING.sub("''", text)
    return _NUMBER.sub("0", text)


def _emptied(token: re.Match[str]) -> str:
    return token[1] or "''"


def normalised(text: str) -> str:
    """The text with `$1`, `$2`, … for its constants, without comments: no value of a user is in it.

    >>> normalised("SELECT a1 /* for ann */ FROM t WHERE b = 'it''s' AND c > 2.5 ORDER BY 1")
    'SELECT a1 FROM t WHERE b = $1 AND c > $2 ORDER BY 1'

    What does not parse shows `?` for its literals; what was cut short ends where its first string begins.
    """
    text = text[:MOST_TEXT]
    try:
        return _without_values(str(normalize(text)), keeps_numbers=bool(_DML.match(text)))
    except (ParseError, ValueError):
        return _unparsed(text)


def is_dml(text: str) -> bool:
    """Whether a text begins as one that pg_stat_statements normalises: what any other holds is shown there as it was
    typed, a password of CREATE ROLE among it."""
    return _DML.match(text) is not None


def _unparsed(text: str) -> str:
    try:
        return _without_values(text, keeps_numbers=False)
    except (ParseError, ValueError):
        begun = _QUOTE.search(text)
        plain = _DIGITS.sub("?", text[: begun.start()] if begun else text)
        return " ".join(plain.split()) + (" …" if begun else "")


def _without_values(text: str, *, keeps_numbers: bool) -> str:
    """What `normalize` leaves: comments, the constants of some utility statements. Numbers of DML are structure."""
    for token in reversed(scan(text)):
        if token.name in _COMMENTS:
            text = f"{text[: token.start]} {text[token.end + 1 :]}"
        elif token.name in _STRINGS or (token.name in _NUMBERS and not keeps_numbers):
            text = f"{text[: token.start]}?{text[token.end + 1 :]}"
    return " ".join(text.split())
