"""Logs as files: compressed, cut, in folders, from standard input, and while they grow and are rotated."""

import gzip
import io
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from log_lines import FORMATS, FULL, Logged, csvlog, json_line, jsonlog, stderr, stderr_lines

from aiprod_ops.adapters import log_files
from aiprod_ops.adapters.log_files import Following, Reads, digest_of
from aiprod_ops.errors import ConfigurationError, UsageError
from aiprod_ops.logs.digester import Digester, Wanted
from aiprod_ops.logs.digests import workload
from aiprod_ops.logs.formats import LogReader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CALLS = [Logged(f"SELECT a FROM t WHERE b = '{n}'", n + 0.5, second=n, query_id=3) for n in range(4000)]


def squeezed(data: bytes) -> bytes:
    """Two members, as `cat a.gz b.gz` makes them."""
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


PACKINGS = {"plain": bytes, "gzip": squeezed, "zstd": zstd.compress}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["jsonlog", "stderr", "csvlog", "cloud array"])
def test_however_it_is_packed(packing: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "some.name"
    path.write_bytes(PACKINGS[packing](FORMATS[name](CALLS)))
    found = digest_of([path])
    assert (found.calls, found.total, found.notes) == (4000, sum(call.duration_ms for call in CALLS), ())


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_compressed_file_that_ends_early_is_read_as_far_as_it_goes(packing: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    squeeze = {"gzip": gzip.compress, "zstd": zstd.compress}[packing]
    packed = squeeze(jsonlog(CALLS))
    path.write_bytes(packed[: len(packed) * 9 // 10])
    found = digest_of([path])
    assert 2000 < found.calls < 4000
    assert any("1 compressed file ends in the middle" in note for note in found.notes)


@pytest.mark.parametrize("packing", PACKINGS)
def test_standard_input(packing: str) -> None:
    program = "from aiprod_ops.adapters.log_files import digest_of; print(digest_of(['-']).calls)"
    data = PACKINGS[packing](jsonlog(CALLS))
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
    assert done.stdout.decode().strip() == "4000", done.stderr


def test_of_a_folder_one_format_is_taken_and_the_oldest_first(tmp_path: Path) -> None:
    for age, (name, data) in enumerate(
        {"b.json": jsonlog(CALLS[:3]), "a.json.gz": gzip.compress(jsonlog(CALLS[3:5])), "a.csv": csvlog(CALLS),
         "a.log": stderr(CALLS[:1]), ".hidden": b"x", "empty.json": b""}.items()
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert [Path(path).name for path in log_files.find([tmp_path])] == ["empty.json", "a.json.gz", "b.json"]
    assert digest_of([tmp_path]).calls == 5
    assert digest_of([tmp_path / "a.csv", tmp_path / "b.json"]).calls == 4003


# Nothing parsed is an error that says why


@pytest.mark.parametrize(
    ("data", "wanted", "reads", "error", "says"),
    [
        (b"", Wanted(), Reads(), ConfigurationError, "is empty"),
        (b"\x00\x01\x02" * 1000, Wanted(), Reads(), ConfigurationError, "is no log of PostgreSQL"),
        (b'127.0.0.1 - - [22/Nov/2026] "GET / HTTP/1.1" 200\n', Wanted(), Reads(), ConfigurationError, "is no log of"),
        (b'{"level": "info", "msg": "x"}\n', Wanted(), Reads(), ConfigurationError, "is no log of PostgreSQL"),
        (
            json_line(CALLS[0], message="checkpoint starting: time").encode(),
            Wanted(), Reads(), ConfigurationError, "holds 1 entry of PostgreSQL and not one with a duration",
        ),
        (
            stderr_lines(CALLS[0])[0].replace("duration: ", "Dauer: ").encode(),
            Wanted(), Reads(), ConfigurationError, "holds 1 entry of PostgreSQL and not one with a duration",
        ),
        (
            json_line(CALLS[0], message="duration: 1.000 ms").encode(),
            Wanted(), Reads(), ConfigurationError, "1 duration and not one statement",
        ),
        (
            json_line(CALLS[0], message="duration: 1.000 ms  parse x: SELECT 1").encode(),
            Wanted(), Reads(), ConfigurationError, "durations of parse, bind and fetch",
        ),
        (
            json_line(CALLS[0], message="duration: 1.000 ms  plan:\nQuery Text: SELECT 1\nResult  (cost=0)").encode(),
            Wanted(), Reads(), ConfigurationError, "1 plan of auto_explain",
        ),
        (jsonlog(CALLS[:2]), Wanted("other"), Reads(), UsageError, "all 2 calls are on other databases: shop"),
        (stderr(CALLS[:2], "%m [%p] "), Wanted("shop"), Reads(), ConfigurationError, "log_line_prefix has no %d"),
        (
            jsonlog(CALLS[:2]), Wanted(since=datetime(2027, 1, 1, tzinfo=UTC)), Reads(),
            UsageError, "all 2 calls are outside of --since",
        ),
        (
            jsonlog([replace(CALLS[0], application="aiprod-ops")]), Wanted(), Reads(),
            ConfigurationError, "the only call is of aiprod-ops itself",
        ),
        (jsonlog(CALLS[:1])[:200], Wanted(), Reads(), ConfigurationError, "not one whole entry"),
        (b"[]", Wanted(), Reads("cloud"), ConfigurationError, "not one whole entry"),
        (stderr(CALLS[:1]), Wanted(), Reads("stderr", "%Y"), UsageError, "has no %Y"),
    ],
)  # fmt: skip
def test_nothing_parsed_says_why(
    data: bytes, wanted: Wanted, reads: Reads, error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "the.log"
    path.write_bytes(data)
    with pytest.raises(error, match=says) as caught:
        digest_of([path], wanted, reads)
    assert caught.value.hint


@pytest.mark.parametrize("asked", ["csvlog", "jsonlog", "cloud", "stderr"])
@pytest.mark.parametrize(
    ("name", "looks"), [("stderr", "stderr"), ("csvlog", "csvlog"), ("jsonlog with blanks", "jsonlog")]
)
def test_a_wrong_format_is_the_reason(asked: str, name: str, looks: str, tmp_path: Path) -> None:
    path = tmp_path / "the.log"
    path.write_bytes(FORMATS[name](CALLS))
    if asked == looks:
        assert digest_of([path], reads=Reads(asked)).calls == 4000
        return
    with pytest.raises(UsageError, match=f"cannot be read as {asked}: it looks like {looks}") as caught:
        digest_of([path], reads=Reads(asked))
    assert "leave --format out" in (caught.value.hint or "")


def test_foreign_objects_are_counted_where_the_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "the.json"
    path.write_bytes(b'{"level": "info"}\n' * 3)
    with pytest.raises(ConfigurationError, match="not one whole entry in 54 B; 3 lines are torn or foreign") as caught:
        digest_of([path], reads=Reads("cloud"))
    assert "leave --format" in (caught.value.hint or "")


def test_a_file_of_which_nothing_is_read_is_named(tmp_path: Path) -> None:
    files = {"a.log": stderr(CALLS[:3]), "b.json": b'{"level": "info"}\n' * 100, "c.json": jsonlog(CALLS[:2]), "d": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    places = [tmp_path / name for name in files]
    note = f"nothing of {tmp_path}/b.json could be read: all 1.80 kB are unread"
    assert (digest_of(places).calls, digest_of(places).notes) == (5, (note,))
    of_one = digest_of(places, reads=Reads("jsonlog"))
    assert of_one.calls == 2
    assert [note.partition(" could be read")[0] for note in of_one.notes[1:]] == [
        f"nothing of {tmp_path}/{name}" for name in ("a.log", "b.json")
    ]
    assert of_one.notes[1].endswith("; it looks like stderr")


def test_a_damaged_archive_of_which_nothing_is_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(stderr(CALLS[:3]))
    (tmp_path / "b.gz").write_bytes(b"\x1f\x8bgarbage")
    assert digest_of([tmp_path / "a.log", tmp_path / "b.gz"]).notes == (
        f"nothing of {tmp_path}/b.gz could be read",
        "1 compressed file ends in the middle",
    )


def test_a_few_files_are_named_and_the_others_counted(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.log").write_bytes(b"x\n")
    (tmp_path / "7.log").write_bytes(stderr(CALLS[:3]))
    assert digest_of([tmp_path]).notes[5:] == ("nothing of 2 further files could be read",)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        digest_of([tmp_path / "nothing"])
    with pytest.raises(ConfigurationError, match="holds no log"):
        digest_of([tmp_path])


def test_a_window(tmp_path: Path) -> None:
    path = tmp_path / "the.json"
    path.write_bytes(jsonlog(CALLS[:120]))
    since, until = (datetime(2026, 11, 22, 10, 0, second, tzinfo=UTC) for second in (30, 50))
    found = digest_of([path], Wanted(since=since, until=until))
    assert found.calls == 20
    assert (found.first, found.last) == (
        since.replace(microsecond=30_000),
        until.replace(second=49, microsecond=49_000),
    )


def test_a_digest_is_a_workload(tmp_path: Path) -> None:
    path = tmp_path / "the.json"
    path.write_bytes(jsonlog([*CALLS[:10], Logged("SELECT 1", 2.0, query_id=4)]))
    found = workload(digest_of([path], Wanted("shop")), ("why",))
    assert [(s.query_id, s.text, s.calls, s.total, s.source) for s in found.statements] == [
        (3, "SELECT a FROM t WHERE b = $1", 10, 50.0, "log"),
        (4, "SELECT $1", 1, 2.0, "log"),
    ]
    assert (found.total, found.window, found.missing) == (52.0, pytest.approx(9.009), ("why",))


# Rotation


class Followed:
    """A log that is being written, one look at a time."""

    def __init__(self, place: Path) -> None:
        self.following = Following(place)

    def look(self) -> int:
        """Read until there is nothing new; how many calls are counted then."""
        while self.following.read():
            pass
        return self.following.digest().calls

    def calls(self) -> int:
        self.look()
        return self.following.end().calls


def test_a_log_that_is_renamed_while_it_is_written(tmp_path: Path) -> None:
    """logrotate without copytruncate: the server writes into the renamed file until it is told."""
    path = tmp_path / "the.json"
    path.write_bytes(jsonlog(CALLS[:10]))
    followed = Followed(path)
    followed.look()
    with path.open("ab") as old:
        line = jsonlog(CALLS[10:11])
        old.write(line[:50])
        old.flush()
        followed.look()
        path.rename(tmp_path / "the.json.1")
        followed.look()
        old.write(line[50:] + jsonlog(CALLS[11:20]))
        old.flush()
        path.write_bytes(jsonlog(CALLS[20:30]))
    assert followed.calls() == 30


def test_a_log_that_is_cut_to_nothing(tmp_path: Path) -> None:
    """logrotate with copytruncate."""
    path = tmp_path / "the.json"
    path.write_bytes(jsonlog(CALLS[:10]))
    followed = Followed(path)
    followed.look()
    with path.open("wb") as file:
        followed.look()
        file.write(jsonlog(CALLS[10:15]))
    assert followed.calls() == 15


def test_a_folder_where_the_server_begins_new_files(tmp_path: Path) -> None:
    """logging_collector: postgresql-%H%M.json."""
    (tmp_path / "a.json").write_bytes(jsonlog(CALLS[:10]))
    followed = Followed(tmp_path)
    os.utime(tmp_path / "a.json", (1e9, 1e9))
    followed.look()
    (tmp_path / "b.json").write_bytes(jsonlog(CALLS[10:12]))
    with (tmp_path / "a.json").open("ab") as file:
        file.write(jsonlog(CALLS[12:13]))
    os.utime(tmp_path / "a.json", (1e9, 1e9))
    assert followed.calls() == 13


def test_two_new_files_between_two_looks(tmp_path: Path) -> None:
    followed = None
    for age, name in enumerate("abc"):
        (tmp_path / f"{name}.json").write_bytes(jsonlog(CALLS[:4]))
        os.utime(tmp_path / f"{name}.json", (1e9 + age, 1e9 + age))
        if followed is None:
            followed = Followed(tmp_path)
            assert followed.look() == 4
    assert followed is not None
    assert followed.calls() == 12


def test_a_log_that_comes_later(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "the.log")
    assert followed.look() == 0
    (tmp_path / "the.log").write_bytes(stderr(CALLS[:3], FULL))
    assert followed.calls() == 3


def test_a_log_that_never_comes_is_not_called_empty(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "the.log")
    with pytest.raises(ConfigurationError, match=r"the\.log does not exist"):
        followed.calls()


def test_a_compressed_log_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "the.json.gz"
    path.write_bytes(gzip.compress(jsonlog(CALLS[:3])))
    with pytest.raises(ConfigurationError, match="is compressed: nothing is added to it"):
        Following(path)
    path.write_bytes(b"")
    assert Followed(path).look() == 0


def test_memory_does_not_grow_with_the_log() -> None:
    """Every statement, application, session and text is new: what is held stays bounded."""
    digester = Digester(most=50)
    reader = LogReader(digester.reading)
    sizes = []
    for start in range(0, 30_000, 3_000):
        out = io.BytesIO()
        for n in range(start, start + 3_000):
            out.write(
                json_line(Logged(f"SELECT c{n} FROM t", 1.0, pid=n, application=f"a{n}", query_id=n + 1)).encode()
            )
        digester.add(reader.read(out.getvalue()))
        found = digester.digest()
        sizes.append((len(found.rows), len(found.applications)))
    assert max(sizes) <= (100, 201)
    assert found.calls == sum(row.calls for row in found.rows) + found.others_calls
    assert sum(one.calls for one in found.applications) == found.calls
