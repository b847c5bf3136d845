"""Cursors and keys: what was altered is refused, and what is secret is not stored."""

import doctest
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.service import settings, validation
from aiprod_ops.service.http import credentials, etags
from aiprod_ops.service.http.credentials import Caller, Verified, make, presented
from aiprod_ops.service.http.pagination import Listing
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.ids import uuid7
from aiprod_ops.units import Seconds

LISTING = Listing(b"s" * 32, "u1", "jobs", {"status": "queued", "preset": None})


@pytest.mark.parametrize("module", [etags, settings, validation])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(st.uuids())
def test_a_cursor_is_opened_by_its_own_list(name: object) -> None:
    cursor = LISTING.sealed(str(name))
    assert LISTING.opened(cursor) == str(name)
    for other in (
        Listing(b"t" * 32, "u1", "jobs", LISTING.filters),
        Listing(b"s" * 32, "u2", "jobs", LISTING.filters),
        Listing(b"s" * 32, "u1", "results", LISTING.filters),
        Listing(b"s" * 32, "u1", "jobs", {"status": "failed"}),
    ):
        with pytest.raises(Problem, match="INVALID_CURSOR"):
            other.opened(cursor)


def test_every_altered_character_is_noticed() -> None:
    cursor = LISTING.sealed(str(uuid7()))
    for position in range(len(cursor) - 1):  # the last one has two bits that mean nothing
        altered = cursor[:position] + ("A" if cursor[position] != "A" else "B") + cursor[position + 1 :]
        with pytest.raises(Problem, match="INVALID_CURSOR"):
            LISTING.opened(altered)
    for wrong in ("", "A", cursor[:-4], cursor + "AAAA", "é" * 43):
        with pytest.raises((Problem, ValueError)):
            LISTING.opened(wrong)


def test_keys_are_unlike_each_other() -> None:
    made = [make() for _ in range(200)]
    assert len({each.key for each in made}) == len({each.prefix for each in made}) == 200
    for each in made:
        assert credentials._KEY.fullmatch(each.key)
        assert each.digest == hashlib.sha256(each.key.encode()).hexdigest()
        assert each.key not in each.digest


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], ""),
        ([b"Bearer k"], "k"),
        ([b"bearer  k "], "k"),
        ([b"Basic k"], ""),
        ([b"Bearer"], ""),
        ([b"Bearer a", b"Bearer b"], ""),
    ],
)
def test_the_key_of_a_request(headers: list[bytes], key: str) -> None:
    assert presented({"headers": [(b"authorization", value) for value in headers]}) == key


def test_keys_that_were_verified_lately() -> None:
    def scope(key: str) -> dict[str, object]:
        return {"headers": [(b"authorization", f"Bearer {key}".encode())]}

    def caller(user_id: str) -> Caller:
        return Caller(user_id, "k", "free", frozenset({"jobs"}))

    table = Verified(most=2)
    for number in range(3):
        table.add(f"k{number}", caller(f"u{number}"), time.monotonic())
    assert [table.identify(scope(f"k{number}")) for number in range(3)] == [None, caller("u1"), caller("u2")]
    before = time.monotonic()
    table.forget("u2")
    assert table.identify(scope("k2")) is None
    table.add("k2", caller("u2"), before)  # whoever was looked at before that key ended
    assert table.identify(scope("k2")) is None
    table.add("k3", caller("u2"), time.monotonic())
    assert table.identify(scope("k3")) == caller("u2")
    assert table.identify(scope("")) is None
    assert table.identify({"headers": []}) is None
    short = Verified(lasts=Seconds(0))
    short.add("k", caller("u"), time.monotonic())
    assert short.identify(scope("k")) is None


def test_ids_grow_with_time() -> None:
    made = [uuid7() for _ in range(50)]
    assert all(each.version == 7 for each in made)
    assert [each.int >> 80 for each in made] == sorted(each.int >> 80 for each in made)
    assert len(set(made)) == 50
