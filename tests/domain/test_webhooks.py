"""Signatures that the reference libraries take, and when something is sent again."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from aiprod_ops.domain.webhooks import (
    JITTER,
    LONG_TAIL,
    LONGEST_RETRY_AFTER,
    MOST_SECRETS,
    PAUSES,
    Answer,
    State,
    after_attempt,
    key_of,
    new_key,
    probe_after,
    retry_after,
    shown,
    signature,
    signed,
)

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
ID = "0197a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"
BODY = '{"type":"job.created","data":{"title":"Größe 東京"}}'.encode()


@given(key=st.binary(min_size=24, max_size=64), content=st.text())
def test_the_reference_library_takes_what_is_signed(key: bytes, content: str) -> None:
    body = content.encode(errors="replace")
    headers = signed(ID, datetime.now(UTC), body, [key])
    standardwebhooks.Webhook(shown(key)).verify(body, headers, json_parse=False)
    assert key_of(shown(key)) == key


def test_the_reference_library_of_npm_signs_the_same() -> None:
    # standardwebhooks 1.1.1 of npm: new Webhook(SECRET).sign(ID, new Date(1795867200 * 1000), BODY)
    key = key_of("whsec_YSBrZXkgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz")
    assert signature(key, ID, 1795867200, BODY) == "v1,mr2jky2oyaPPH3ZMrsS8QeANzQcijWZASxr8JVYCdTE="


def test_while_rotations_overlap_each_secret_verifies_and_an_old_receiver_notices_nothing() -> None:
    new, *between, old, other = (new_key() for _ in range(MOST_SECRETS + 1))
    headers = signed(ID, datetime.now(UTC), BODY, [new, *between, old])
    for key in (new, *between, old):
        standardwebhooks.Webhook(shown(key)).verify(BODY, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(shown(other)).verify(BODY, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(shown(new)).verify(BODY + b" ", headers)
    assert headers["X-Webhook-Signature"] == hmac.new(old, BODY, hashlib.sha256).hexdigest()


def test_what_was_recorded_is_not_taken_again_later() -> None:
    key = new_key()
    headers = signed(ID, datetime.now(UTC) - timedelta(minutes=6), BODY, [key])
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        standardwebhooks.Webhook(shown(key)).verify(BODY, headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "a key of more than 24 bytes", "whsec_" + "A" * 33, "whsec_" + "!" * 32]
)
def test_a_secret_of_another_form_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes as base64") as error:
        key_of(secret)
    assert not secret or secret == "whsec_" or secret not in str(error.value)


def pauses(*, long_tail: bool, draw: float) -> list[float]:
    """How long each pause is of an endpoint that never answers, until its delivery has failed."""
    found = []
    while (
        due := after_attempt(Answer(None), len(found) + 1, NOON, draw=draw, long_tail=long_tail)
    ).state is State.PENDING:
        assert due.due_at is not None
        found.append((due.due_at - NOON).total_seconds())
    assert due == after_attempt(Answer(500), len(found) + 1, NOON, draw=draw, long_tail=long_tail)
    return found


def test_retries_are_those_of_the_seeds() -> None:
    assert pauses(long_tail=False, draw=0) == [1, 2, 5, 10, 30]
    assert pauses(long_tail=True, draw=0) == [*PAUSES, *LONG_TAIL]
    assert timedelta(days=3) < timedelta(seconds=sum(LONG_TAIL)) < timedelta(days=4)


@given(draw=st.floats(0, 1))
def test_a_pause_is_never_shorter_than_promised(draw: float) -> None:
    for told, seen in zip(PAUSES, pauses(long_tail=False, draw=draw), strict=True):
        assert told <= seen <= told * (1 + JITTER) + 1e-6


@pytest.mark.parametrize("status", [None, 100, 301, 302, 307, 400, 401, 404, 408, 429, 500, 502, 503, 599])
def test_what_is_no_success_is_tried_again(status: int | None) -> None:
    assert after_attempt(Answer(status), 1, NOON, draw=0).state is State.PENDING


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_is_the_end(status: int) -> None:
    assert after_attempt(Answer(status, "60"), 1, NOON, draw=0).state is State.DELIVERED


@given(header=st.text())
def test_no_retry_after_breaks_anything_or_lasts_for_ever(header: str) -> None:
    assert 0 <= retry_after(header, NOON) <= LONGEST_RETRY_AFTER
    assert 0 <= retry_after(header.strip() + "GMT", NOON) <= LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Sat, 28 Nov 2026 12:00:30 GMT", 30),
        ("Saturday, 28-Nov-26 12:00:30 GMT", 30),
        ("Sat, 28 Nov 2026 12:00:30 -0000", 30),
        ("Sat, 28 Nov 2099 12:00:30 GMT", LONGEST_RETRY_AFTER),
        ("Sat, 28 Nov 2026 11:00:30 GMT", 0),
        ("Sat, 28 Nov 99999 12:00:30 GMT", 0),
        ("-5", 0),
        ("1.5", 0),
        ("٣", 0),
        (" 12 ", 12),
    ],
)
def test_retry_after_is_read(header: str, expected: float) -> None:
    assert retry_after(header, NOON) == expected


def test_probes_become_rarer() -> None:
    waits = [probe_after(number) for number in range(9)]
    assert waits == sorted(waits)
    assert sum(waits[:5]) < timedelta(days=1).total_seconds()
