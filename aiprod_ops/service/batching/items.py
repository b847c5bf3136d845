"""Items out of a body that comes in pieces: a JSON array, or JSON lines. Memory holds one item.

Each reader is fed bytes and answers what is complete. A line that is no JSON is told as Unreadable, and the next one is
read; in an array nobody knows where the next item begins, so that it ends the batch.
Sources: RFC 8259; jsonlines.org.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from aiprod_ops.service.http.problems import Problem
from aiprod_ops.units import Bytes

LONGEST_ITEM = Bytes(256 * 1024)  #: as long as the body of a single job may be
MOST_BLANK_LINES = 1000
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that is no JSON."""

    why: str


class Reader(Protocol):
    """Reads one kind of body."""

    def feed(self, data: bytes) -> Iterator[Any]:
        """The items that are complete with these bytes; raises Problem where the body cannot be gone on with."""
        ...

    def close(self) -> Iterator[Any]:
        """What is left when the body has ended; raises Problem where it ended too early."""
        ...


class Lines:
    """JSON lines. Empty ones are passed over, but not without end."""

    def __init__(self) -> None:
        self._rest, self._blank = b"", 0

    def feed(self, data: bytes) -> Iterator[Any]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_ITEM:
            raise _too_long()
        for line in lines:
            if line.strip():
                yield _item_of(line)
            else:
                self._pass_over()

    def close(self) -> Iterator[Any]:
        rest, self._rest = self._rest, b""
        if rest.strip():
            yield _item_of(rest)

    def _pass_over(self) -> None:
        self._blank += 1
        if self._blank > MOST_BLANK_LINES:
            detail = f"There are more than {MOST_BLANK_LINES:,} empty lines, expected a job a line."
            raise Problem("INVALID_JSON", detail, headers={"Connection": "close"})


def _item_of(line: bytes) -> Any:
    if len(line) > LONGEST_ITEM:
        raise _too_long()
    try:
        return json.loads(line.decode())
    except json.JSONDecodeError as error:
        return Unreadable(f"It does not parse as JSON at character {error.pos}.")
    except (ValueError, RecursionError):
        return Unreadable("It is not UTF-8, is nested too deeply, or has a number that is too long.")


_GOES_ON = ("", ".", "e", "E", "+", "-")


class Array:
    """A JSON array. An item is decoded when all of it is there; until then it is looked at with each piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._state, self._why = "", "[", ""

    def feed(self, data: bytes) -> Iterator[Any]:
        try:
            self._text += self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise Problem("INVALID_JSON", "The body is not UTF-8.") from error
        position = 0
        try:
            while (position := self._skip(position)) < len(self._text):
                if self._state == "first":
                    self._state = "end" if self._text[position] == "]" else "item"
                    position += self._state == "end"
                elif self._state == "item":
                    found = self._item(position)
                    if found is None:
                        break
                    value, position = found
                    self._state = ",]"
                    yield value
                else:
                    self._mark(self._text[position])
                    position += 1
        finally:
            self._text = self._text[position:]
        if len(self._text) > LONGEST_ITEM:
            raise Problem("INVALID_JSON", self._why) if self._why else _too_long()

    def close(self) -> Iterator[Any]:
        if self._state != "end":
            raise Problem("INVALID_JSON", self._why or "The array does not end: the body is not whole.")
        yield from ()

    def _skip(self, position: int) -> int:
        space = _SPACE.match(self._text, position)
        return space.end() if space else position

    def _mark(self, mark: str) -> None:
        following = {("[", "["): "first", (",]", ","): "item", (",]", "]"): "end"}
        if (self._state, mark) not in following:
            expected = {"[": "an array: [", ",]": "a comma or ]", "end": "nothing more"}[self._state]
            raise Problem("INVALID_JSON", f"There is {mark!r} where {expected} was expected.")
        self._state = following[self._state, mark]

    def _item(self, position: int) -> tuple[Any, int] | None:
        try:
            value, end = _DECODER.raw_decode(self._text, position)
        except json.JSONDecodeError as error:
            self._why = f"{error.msg}, {error.pos - position} characters after the beginning of an item."
            return None  # not all of it may be there
        except (ValueError, RecursionError) as error:
            raise Problem("INVALID_JSON", "An item is nested too deeply, or has a number that is too long.") from error
        if not isinstance(value, (dict, list, str)) and self._text[end : end + 1] in _GOES_ON:
            self._why = "A number is not whole."
            return None  # a number may go on: 1, 1.5, 1.5e3
        self._why = ""
        return value, end


class Either:
    """An array or lines: the first character tells."""

    def __init__(self) -> None:
        self._reader: Reader | None = None

    def feed(self, data: bytes) -> Iterator[Any]:
        if self._reader is None:
            data = data.lstrip()
            if not data:
                return
            self._reader = Array() if data.startswith(b"[") else Lines()
        yield from self._reader.feed(data)

    def close(self) -> Iterator[Any]:
        if self._reader is not None:
            yield from self._reader.close()


def _too_long() -> Problem:
    detail = f"An item has more than {LONGEST_ITEM} bytes, the most that is read."
    return Problem("PAYLOAD_TOO_LARGE", detail, headers={"Connection": "close"})
