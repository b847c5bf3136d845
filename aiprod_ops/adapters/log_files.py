"""Log files as blocks of bytes: plain or compressed, one or a folder of them, standard input, and as they grow."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.logs import absence
from aiprod_ops.logs.digester import EVERYTHING, Digester, Wanted
from aiprod_ops.logs.digests import Digest
from aiprod_ops.logs.formats import LogReader
from aiprod_ops.units import Bytes

STDIN = "-"
BLOCK = Bytes(1024 * 1024)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: log_destination may name several: they say the same. The first kind that is there has the most to tell.
_KINDS = (".json", ".csv", "")


@dataclass(frozen=True, slots=True)
class Reads:
    """How to read logs: one of `formats.FORMATS`, and `log_line_prefix` where it cannot be told."""

    format: str = "auto"
    prefix: str = ""


AS_FOUND = Reads()


def digest_of(places: Sequence[str | Path], wanted: Wanted = EVERYTHING, reads: Reads = AS_FOUND) -> Digest:
    """The digest of all logs at these places: files, folders, `-`.

    Raises ConfigurationError for what cannot be read, and the error that says why when there is no call in them.
    """
    digester = Digester(wanted)
    files = find(places)
    known = [add(digester, file, reads) for file in files]
    if not digester.calls:
        raise absence.why(digester, named(files), reads.format, is_known=any(known))
    return digester.digest()


def add(digester: Digester, file: str | Path, reads: Reads) -> bool:
    """Read one log; whether it is one of PostgreSQL's."""
    reader = LogReader(digester.reading, reads.format, reads.prefix)
    for block in blocks(file, digester):
        digester.add(reader.read(block))
    return _end(digester, reader, named([file]))


def _end(digester: Digester, reader: LogReader, name: str) -> bool:
    digester.add(reader.end())
    if unread := reader.unread(name):
        digester.reading.unread_files.append(unread)
    return bool(reader.found)


def named(files: Sequence[str | Path]) -> str:
    """What to call these files in a message."""
    if len(files) != 1:
        return f"the log ({len(files)} files)"
    return "standard input" if str(files[0]) == STDIN else str(files[0])


def find(places: Sequence[str | Path]) -> list[str | Path]:
    """The files at these places, oldest first. Of a folder that holds the same log in several formats one is taken."""
    found: list[str | Path] = []
    for place in places:
        if str(place) == STDIN:
            found.append(STDIN)
            continue
        path = Path(place)
        try:
            found += _of_folder(path) if path.is_dir() else [path]
        except OSError as error:
            raise _unreadable(path, error) from error
    return found


def _of_folder(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise ConfigurationError(f"the folder {folder} holds no log", hint="name the folder that log_directory says")
    kind = next((kind for kind in _KINDS if any(_is(path, kind) and path.stat().st_size for path in files)), "")
    return sorted((path for path in files if _is(path, kind)), key=lambda path: (path.stat().st_mtime, path.name))


def _is(path: Path, kind: str) -> bool:
    return kind in path.suffixes if kind else not any(other in path.suffixes for other in _KINDS if other)


def blocks(place: str | Path, digester: Digester) -> Iterator[bytes]:
    """The bytes of one log, uncompressed. Compressed data that end too early are read as far as they go, and counted.

    Raises ConfigurationError.
    """
    try:
        with closing(_opened(place)) as file:
            yield from _uncompressed(file, digester)
    except OSError as error:
        raise _unreadable(place, error) from error


def _opened(place: str | Path) -> io.BufferedReader:
    if place == STDIN:
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), BLOCK)
    return io.BufferedReader(io.FileIO(place), BLOCK)


def _uncompressed(file: io.BufferedReader, digester: Digester) -> Iterator[bytes]:
    start = file.peek(4)
    if not start.startswith((_GZIP, _ZSTD)):
        while block := file.read(BLOCK):  # whole blocks, also from a pipe
            yield block
        return
    zstd = _zstd()
    opened = gzip.GzipFile(fileobj=file) if start.startswith(_GZIP) else zstd.ZstdFile(file)
    parts: list[bytes] = []
    while True:
        try:
            part = opened.read1(BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError):
            digester.reading.cut_files += 1
            part = b""
        parts.append(part)
        if not part or sum(map(len, parts)) >= BLOCK:  # small reads as one block
            yield b"".join(parts)
            parts = []
        if not part:
            return


def _zstd() -> Any:
    """Imported only where it is needed. Since Python 3.14 it is in the standard library."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def follow(place: Path) -> Generator[bytes | None]:
    """A log as it grows, as `tail -F` reads it: a file, or the newest one of a folder.

    Empty bytes: there is nothing new, wait a little. None: another file begins, because the log was rotated (renamed,
    replaced, cut to nothing, or a newer one appeared in the folder); what was still in the old one has been read.
    """
    file, position = None, 0
    try:
        while True:
            now = _now(place, file)
            if file is None and now is not None:
                file, position = _begun(now), 0
            if file is None:
                yield b""
                continue
            if os.fstat(file.fileno()).st_size < position:
                file.seek(0)
                position = 0
                yield None
            if block := file.read(BLOCK):
                position += len(block)
                yield block
            elif now is not None and not _same(file, now):
                while block := file.read(BLOCK):  # written between the last look and the rename
                    yield block
                file.close()
                file, position = _begun(now), 0
                yield None
            else:
                yield b""
    except OSError as error:
        raise _unreadable(place, error) from error
    finally:
        if file is not None:
            file.close()


class Following:
    """The digest of a log that grows, over all rotations."""

    def __init__(self, place: Path, wanted: Wanted = EVERYTHING, reads: Reads = AS_FOUND) -> None:
        self._digester = Digester(wanted)
        self._place, self._reads = place, reads
        self._is_known = False
        _refuse_compressed(place)
        for earlier in find([place])[:-1] if place.is_dir() else []:
            self._is_known |= add(self._digester, earlier, reads)
        self._blocks = follow(place)
        self._begin()

    def read(self) -> bool:
        """Read what is there, at the most a block; whether there was anything."""
        block = next(self._blocks)
        if block is None:
            self._end()
            self._begin()
        else:
            self._digester.add(self._reader.read(block) if block else self._reader.settle())
        return block != b""

    def digest(self) -> Digest:
        """What is known so far, which may be nothing."""
        return self._digester.digest()

    def end(self) -> Digest:
        """The digest of all that was read. Raises the error that says why when there is no call in it."""
        self._blocks.close()
        self._end()
        if not self._digester.reading.size_bytes and not self._place.exists():
            raise ConfigurationError(f"{self._place} does not exist", hint="name the file that the server writes to")
        if not self._digester.calls:
            raise absence.why(self._digester, str(self._place), self._reads.format, is_known=self._is_known)
        return self._digester.digest()

    def _end(self) -> None:
        self._is_known |= _end(self._digester, self._reader, str(self._place))

    def _begin(self) -> None:
        self._reader = LogReader(self._digester.reading, self._reads.format, self._reads.prefix)


def _refuse_compressed(place: Path) -> None:
    """Raises ConfigurationError for a file that nobody adds to. One that is not there yet may come."""
    try:
        if not place.is_file():
            return
        with place.open("rb") as file:
            is_compressed = file.read(4).startswith((_GZIP, _ZSTD))
    except OSError as error:
        raise _unreadable(place, error) from error
    if is_compressed:
        raise ConfigurationError(f"{place} is compressed: nothing is added to it", hint="read it without --follow")


def _now(place: Path, file: BinaryIO | None) -> Path | None:
    """Where to read on: in a folder, the file after the one that is read, if there is one; at first the newest."""
    try:
        if not place.is_dir():
            return place if place.exists() else None
        files = _of_folder(place)
        read = [number for number, path in enumerate(files) if file is not None and _same(file, path)]
        return files[min(read[-1] + 1, len(files) - 1)] if read else files[-1]
    except FileNotFoundError:  # rotated away while we looked
        return None
    except OSError as error:
        raise _unreadable(place, error) from error


def _begun(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:  # rotated again
        return None


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True  # not there yet: the old one goes on


def _unreadable(place: str | Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The log {place} cannot be read: {error.strerror or error}",
        hint="name a file or folder that this user can read, or - for standard input",
    )
