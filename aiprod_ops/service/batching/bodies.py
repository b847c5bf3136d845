"""Which bodies a batch may come in: an array or lines as they are, or a form with a file of either.

Source of forms: RFC 7578.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from python_multipart.multipart import MultipartParser, parse_options_header

from aiprod_ops.service.batching.items import Array, Either, Lines, Reader
from aiprod_ops.service.http.media_types import require_utf8
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.validation import Violation, shown


def reader_of(content_type: str) -> Reader:
    """What reads a body of this type; raises Problem UNSUPPORTED_MEDIA_TYPE."""
    require_utf8(content_type)
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data" and 0 < len(options.get(b"boundary", b"")) <= 70:
        return Form(options[b"boundary"])
    if kind in (b"application/x-ndjson", b"application/jsonl"):
        return Lines()
    if kind == b"application/json" or kind.endswith(b"+json"):
        return Array()
    raise Problem(
        "UNSUPPORTED_MEDIA_TYPE",
        f"The Content-Type is {kind.decode('latin-1')[:100]!r}, expected application/json (an array), "
        "application/x-ndjson, or multipart/form-data with a file of either.",
    )


class Form:
    """The file of a multipart form; other fields are passed over. A second file is refused: half a batch is none."""

    def __init__(self, boundary: bytes) -> None:
        self._inner, self._pieces = Either(), list[bytes]()
        self._header, self._headers = b"", dict[bytes, bytes]()
        self._is_file, self._seen, self._ended = False, False, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._name(data[start:end]),
                "on_header_value": lambda data, start, end: self._value(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_part_data": lambda data, start, end: self._piece(data[start:end]),
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> Iterator[Any]:
        try:
            self._parser.write(data)
        except ValueError as error:
            raise Problem("INVALID_JSON", "The form does not follow RFC 7578.") from error
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            yield from self._inner.feed(piece)

    def close(self) -> Iterator[Any]:
        if not self._ended:
            raise Problem("INVALID_JSON", "The form does not end: the body is not whole.")
        yield from self._inner.close()

    def _begin(self) -> None:
        self._header, self._headers, self._is_file = b"", {}, False

    def _name(self, data: bytes) -> None:
        self._header += data

    def _value(self, data: bytes) -> None:
        name = self._header.lower()
        if name in (b"content-disposition", b"content-type"):
            self._headers[name] = self._headers.get(name, b"") + data

    def _header_end(self) -> None:
        self._header = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._is_file = b"filename" in options
        if self._is_file and self._seen:
            raise _second(options)
        if self._is_file:
            require_utf8(self._headers.get(b"content-type", b"").decode("latin-1"))
        self._seen = self._seen or self._is_file

    def _piece(self, data: bytes) -> None:
        if self._is_file:
            self._pieces.append(data)

    def _end(self) -> None:
        self._ended = True


def _second(options: Mapping[bytes, bytes]) -> Problem:
    name, file = (shown(options.get(each, b"").decode(errors="replace")) for each in (b"name", b"filename"))
    seen = f"The form has more than one file: the second one is {name} ({file})."
    error = Violation(name, "max_items", 1, seen, "Send one file with all items, or one batch for each file.")
    return Problem("VALIDATION_FAILED", seen, errors=[error], headers={"Connection": "close"})
