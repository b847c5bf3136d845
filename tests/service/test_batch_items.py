"""Items of a batch come out whole however the body was cut; an archive's bytes are those that zipfile reads."""

import io
import itertools
import json
import zipfile
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain import archives
from aiprod_ops.domain.archives import File
from aiprod_ops.service.batching.bodies import reader_of
from aiprod_ops.service.batching.items import Lines, Reader, Unreadable
from aiprod_ops.service.http.problems import Problem

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ITEMS = st.lists(VALUES, max_size=6)
BOUNDARY = b"0123456789"


def read(reader: Reader, body: bytes, cuts: list[int]) -> list[Any]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    found: list[Any] = []
    for begin, end in itertools.pairwise(places):
        found += reader.feed(body[begin:end])
    return [*found, *reader.close()]


def form(body: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="%s"%s\r\n\r\n'
    parts = (head % (b"note", b"") + b"[1]", head % (b"items", b'; filename="jobs"') + body)
    return b"".join(b"--" + BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + BOUNDARY + b"--\r\n"


def test_a_second_file_is_refused_and_named() -> None:
    head = b'Content-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n[1]\r\n'
    parts = [b"--" + BOUNDARY + b"\r\n" + head % each for each in ((b"a", b"one"), (b"b\xe2\x80\xae", b"two.jsonl"))]
    body = b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"
    with pytest.raises(Problem, match=r"VALIDATION_FAILED.*one file.*b.u202e \(two\.jsonl\)") as refused:
        read(reader_of(f"multipart/form-data; boundary={BOUNDARY.decode()}"), body, [])
    [error] = refused.value.errors
    assert (error.field, error.rule) == ("b\\u202e", "max_items")


KINDS = ("application/json", "application/x-ndjson", f"multipart/form-data; boundary={BOUNDARY.decode()}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("charset", ["utf-16", "latin1", '"utf-16"', "", "x\x00"])
def test_what_is_not_utf_8_is_refused_by_its_type(kind: str, charset: str) -> None:
    with pytest.raises(Problem, match=r"UNSUPPORTED_MEDIA_TYPE.*charset.*expected utf-8"):
        reader_of(f"{kind}; charset={charset}")
    for name in ("utf-8", "UTF-8", '"utf-8"', "utf8"):
        reader_of(f"{kind}; charset={name}")


def test_a_file_that_is_not_utf_8_is_refused_by_its_type() -> None:
    head = b'Content-Type: application/json; charset=utf-16\r\nContent-Disposition: form-data; name="a"; filename="b"'
    body = b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n[1]\r\n--" + BOUNDARY + b"--\r\n"
    with pytest.raises(Problem, match=r"UNSUPPORTED_MEDIA_TYPE.*charset.*expected utf-8"):
        read(reader_of(KINDS[2]), body, [3, 50, 60])


@given(ITEMS, st.lists(st.integers(0, 10_000), max_size=8), st.sampled_from([None, 1]))
def test_an_array_is_read_however_it_is_cut(items: list[Any], cuts: list[int], indent: int | None) -> None:
    body = json.dumps(items, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert read(reader_of("application/json"), body, cuts) == items
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    assert read(reader_of(kind), form(body), cuts) == items


@given(ITEMS, st.lists(st.integers(0, 10_000), max_size=8))
def test_lines_are_read_however_they_are_cut(items: list[Any], cuts: list[int]) -> None:
    body = "\n\n".join(json.dumps(item) for item in items).encode()
    assert read(reader_of("application/x-ndjson"), body, cuts) == items


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_whatever_comes_breaks_nothing(body: bytes, cuts: list[int]) -> None:
    for kind in ("application/json", "application/x-ndjson", "multipart/form-data; boundary=a"):
        with suppress(Problem):
            read(reader_of(kind), body, cuts)


def test_empty_lines_are_passed_over_but_not_without_end() -> None:
    assert list(Lines().feed(b"\n \n1\n\r\n" * 300)) == [1] * 300
    with pytest.raises(Problem, match="more than 1,000 empty lines"):
        list(Lines().feed(b"\n" * 1001))


def test_a_bad_line_does_not_end_the_batch() -> None:
    found = read(reader_of("application/x-ndjson"), b'{"a": 1}\n{"a": \n\xff\n' + b"[" * 100_000 + b"\n3", [])
    assert (found[0], found[4]) == ({"a": 1}, 3)
    assert [type(each) for each in found[1:4]] == [Unreadable] * 3


@pytest.mark.parametrize("body", [b"", b"[1", b"[1]]", b"[1,]", b"1", b"[1 2]", b"[" * 100_000])
def test_what_is_no_array(body: bytes) -> None:
    with pytest.raises(Problem):
        read(reader_of("application/json"), body, [1])


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_an_archive_is_one(contents: list[bytes]) -> None:
    made, directory = b"", b""
    for number, content in enumerate(contents):
        file = File(f"{number}.bin", len(content), zlib.crc32(content))
        directory += archives.central_header(file, len(made))
        made += archives.local_header(file) + content
    made += directory + archives.ending(len(contents), len(directory), len(made))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == contents


class Sparse(io.RawIOBase):
    """A file that is mostly zeros, and has these pieces."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self._size, self._pieces, self._at = size, pieces, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        found = bytearray(end - self._at)
        for place, piece in self._pieces.items():
            for index, byte in enumerate(piece):
                if self._at <= place + index < end:
                    found[place + index - self._at] = byte
        self._at = end
        return bytes(found)


def test_a_large_archive_has_the_long_fields() -> None:
    large, last = File("large.mp4", 5 * 2**30, 1), File("last.mp4", 3, zlib.crc32(b"abc"))
    first = archives.local_header(large)
    offset = len(first) + large.size_bytes
    tail = archives.local_header(last) + b"abc"
    at = offset + len(tail)
    directory = archives.central_header(large, 0) + archives.central_header(last, offset)
    end = archives.ending(2, len(directory), at)
    file = Sparse(at + len(directory) + len(end), {0: first, offset: tail, at: directory + end})
    with zipfile.ZipFile(file) as archive:  # type: ignore[arg-type]
        assert [(each.file_size, each.header_offset) for each in archive.infolist()] == [(5 * 2**30, 0), (3, offset)]
        assert archive.read("last.mp4") == b"abc"


def test_a_hundred_thousand_files_have_the_long_fields() -> None:
    assert archives.ending(100_000, 10, 10).startswith(b"PK\x06\x06")
    assert archives.ending(100, 10, 10).startswith(b"PK\x05\x06")
