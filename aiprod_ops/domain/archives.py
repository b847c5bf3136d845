"""A ZIP archive whose every byte is known before a file is read: sizes and checksums suffice. Pure.

Files are stored, not deflated (videos are compressed), dates are fixed: the same files give the same bytes, so that a
download can be gone on with from any byte. ZIP64 fields stand where a number does not fit, and only there.
Source: PKWARE, APPNOTE.TXT 6.3.10, 4.3 and 4.5.3.
"""

import struct
from dataclasses import dataclass

_DATE = 0x21  #: 1980-01-01, the first one
_FIT, _FIT_FILES = 0xFFFF_FFFF, 0xFFFF
_STORED, _UTF8, _PLAIN, _ZIP64 = 0, 0x800, 20, 45


@dataclass(frozen=True, slots=True)
class File:
    """A file of an archive; `crc32` and `size_bytes` are of its content."""

    name: str
    size_bytes: int
    crc32: int


def local_header(file: File) -> bytes:
    """What stands before a file's content."""
    name, is_long = file.name.encode(), file.size_bytes >= _FIT
    extra = struct.pack("<HHQQ", 1, 16, file.size_bytes, file.size_bytes) if is_long else b""
    size = _FIT if is_long else file.size_bytes
    return struct.pack(
        "<IHHHHHIIIHH", 0x04034B50, _ZIP64 if is_long else _PLAIN, _UTF8, _STORED, 0, _DATE, file.crc32, size, size,
        len(name), len(extra),
    ) + name + extra  # fmt: skip


def central_header(file: File, offset: int) -> bytes:
    """A file's entry in the directory; its local header begins at `offset`."""
    name, sizes = file.name.encode(), (file.size_bytes, file.size_bytes)
    long = (sizes if file.size_bytes >= _FIT else ()) + ((offset,) if offset >= _FIT else ())
    extra = struct.pack(f"<HH{len(long)}Q", 1, 8 * len(long), *long) if long else b""
    size = min(file.size_bytes, _FIT)
    version = _ZIP64 if long else _PLAIN
    return struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, version, version, _UTF8, _STORED, 0, _DATE, file.crc32, size, size,
        len(name), len(extra), 0, 0, 0, 0, min(offset, _FIT),
    ) + name + extra  # fmt: skip


def ending(files: int, size: int, offset: int) -> bytes:
    """What stands after the directory, which has so many entries and bytes and begins at `offset`."""
    made = b""
    if files >= _FIT_FILES or size >= _FIT or offset >= _FIT:
        made = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, _ZIP64, _ZIP64, 0, 0, files, files, size, offset)
        made += struct.pack("<IIQI", 0x07064B50, 0, offset + size, 1)
    few = min(files, _FIT_FILES)
    return made + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, few, few, min(size, _FIT), min(offset, _FIT), 0)
