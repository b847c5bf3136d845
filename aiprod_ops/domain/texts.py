"""Text that strangers send: what must not be in it, and where it is. Pure, and linear in the length of the text.

Bidirectional overrides let a text read otherwise than it is stored (CVE-2021-42574, "Trojan Source"); PostgreSQL cannot
store NUL; the other control characters split log lines and confuse terminals. Tab, line feed and carriage return stay.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

#: Character classes, as they stand between the brackets of a regular expression. `\uXXXX` is read alike by Rust's,
#: Python's and ECMAScript's engines, and `\s` is not: the same pattern is in the OpenAPI document and in the check.
CONTROL = r"\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F"
BIDI = r"\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069"
BREAKS = r"\t\n\r\u2028\u2029"
#: Spaces, and what is as wide as one or as nothing: soft hyphen, zero width, Braille blank, Hangul fillers.
_BLANKS = r" \u00A0\u00AD\u115F\u1160\u1680\u2000-\u200D\u202F\u205F\u2060\u2800\u3000\u3164\uFEFF\uFFA0"
#: Text that may have several lines and is not blank, and such a one of a single line. What may follow what is told
#: apart by its first character, so that also a backtracking engine needs no more than one pass.
SAFE = rf"^[{_BLANKS}{BREAKS}]*[^{_BLANKS}{BREAKS}{CONTROL}{BIDI}][^{CONTROL}{BIDI}]*$"
SAFE_LINE = rf"^[{_BLANKS}]*[^{_BLANKS}{BREAKS}{CONTROL}{BIDI}][^{BREAKS}{CONTROL}{BIDI}]*$"

_BIDI = frozenset([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_KEPT = frozenset(map(ord, "\t\n\r"))
_BREAKS = frozenset(map(ord, "\t\n\r\u2028\u2029"))
_SPACE = " \t\n\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_SPACE += "\u2028\u2029\u202f\u205f\u3000\u00ad\u115f\u1160\u200b\u200c\u200d\u2060\u2800\u3164\ufeff\uffa0"


@dataclass(frozen=True, slots=True)
class Unsafe:
    """A character that must not be there: which rule names it, and where it stands (from 0)."""

    rule: str
    position: int
    character: str

    @property
    def name(self) -> str:
        """It, as Unicode writes it, so that a message never holds the character itself.

        >>> Unsafe("bidi_override", 3, chr(0x202E)).name
        'U+202E RIGHT-TO-LEFT OVERRIDE'
        """
        return f"U+{ord(self.character):04X} {unicodedata.name(self.character, 'CONTROL CHARACTER')}"


def unsafe(text: str, *, lines: bool = True) -> Iterator[Unsafe]:
    """What must not be in a text, in its order; with `lines` it may have several.

    >>> [(each.rule, each.position) for each in unsafe("a" + chr(0) + "b" + chr(0x202E))]
    [('control_character', 1), ('bidi_override', 3)]
    """
    for position, character in enumerate(text):
        code = ord(character)
        if code in _BIDI:
            yield Unsafe("bidi_override", position, character)
        elif 0xD800 <= code <= 0xDFFF:
            yield Unsafe("lone_surrogate", position, character)
        elif (code < 0x20 or 0x7F <= code <= 0x9F) and code not in _KEPT:
            yield Unsafe("control_character", position, character)
        elif not lines and code in _BREAKS:
            yield Unsafe("line_break", position, character)


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in it."""
    return not text.strip(_SPACE)
