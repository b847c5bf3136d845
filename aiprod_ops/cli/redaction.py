"""Secrets never leave: whatever is known to be one is replaced wherever text goes out."""

import re
import urllib.parse

_known: set[str] = set()
_IN_URL = re.compile(r"(\w+://[^:/@\s]*):[^@\s]+@")
_IN_KEYWORDS = re.compile(r"(password\s*=\s*)('[^']*'|\S+)", re.IGNORECASE)


def learn(dsn: str) -> None:
    """Remember the password of a DSN, so that it is replaced by value, wherever it turns up."""
    for pattern, group in ((r"\w+://[^:/@\s]*:([^@\s]+)@", 1), (r"password\s*=\s*('[^']*'|[^\s&]+)", 1)):
        for found in re.finditer(pattern, dsn, re.IGNORECASE):
            secret = found[group].strip("'")
            _known.update(s for s in (secret, urllib.parse.unquote(secret)) if len(s) > 2)


def learn_secret(secret: str) -> None:
    """Remember a secret that stands alone."""
    if len(secret) > 2:
        _known.add(secret)


def has_password(dsn: str) -> bool:
    """Whether a DSN carries a password in its text."""
    return bool(_IN_URL.search(dsn) or _IN_KEYWORDS.search(dsn))


def redact(text: str) -> str:
    """The text without secrets.

    >>> redact("postgresql://ops:hunter22@db/aiprod")
    'postgresql://ops:***@db/aiprod'
    """
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _IN_KEYWORDS.sub(r"\1***", _IN_URL.sub(r"\1:***@", text))
