"""The Content-Type of what is sent."""

from python_multipart.multipart import parse_options_header

from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.validation import shown

_UTF_8 = ("utf-8", "utf8")


def require_utf8(content_type: str) -> None:
    """Raise Problem UNSUPPORTED_MEDIA_TYPE where another charset is named; without one it is UTF-8 (RFC 8259, 8.1)."""
    _, options = parse_options_header(content_type)
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _UTF_8:
        raise Problem("UNSUPPORTED_MEDIA_TYPE", f"The charset is '{shown(charset)}', expected utf-8.")
