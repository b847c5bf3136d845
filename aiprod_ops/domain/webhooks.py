"""Webhooks: which events there are, how a message is signed, when it is sent again, and which endpoint is left alone.
Pure: whoever sends hands in the time, and the drawn numbers.

Source: Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

from aiprod_ops.units import Bytes, Seconds

#: What may be told. Source of the first seven: the seeds, "7 event types".
EVENTS = {
    "job.created": "A job was submitted.",
    "job.started": "A worker has taken a job.",
    "job.progress": "A job's progress has changed.",
    "job.completed": "A job is completed: its result can be downloaded.",
    "job.failed": "A job has failed: `data.failure` tells why.",
    "batch.created": "A batch was submitted.",
    "batch.completed": "Every job of a batch has ended.",
    "quota.warning": "A share of the month's cost units is used up.",
    "endpoint.disabled": "An endpoint of yours is sent nothing any more: `data.why` tells why.",
    "endpoint.test": "You asked for it.",
}
#: Sent to one endpoint, whatever it asks for and whatever its state: not to be subscribed to.
TEST = "endpoint.test"
#: To the owner's other endpoints; and, as the probe, to the endpoint itself: see `probe_after`.
DISABLED = "endpoint.disabled"

LARGEST_PAYLOAD = Bytes(64 * 1024)  #: a job with the longest prompt and all its references, as UTF-8, fits
LARGEST_ANSWER = Bytes(2048)  #: so much of an answer's body is kept

PREFIX = "whsec_"
SHORTEST_KEY, LONGEST_KEY = Bytes(24), Bytes(64)  #: Source: Standard Webhooks, "Signature scheme"
_NEW_KEY = Bytes(32)
#: That sign at the same time: the newest, and those whose overlap has not ended. Each is a signature of every request.
MOST_SECRETS = 5
_FOUR = "([A-Za-z0-9+/]{4})"
#: A secret: `whsec_`, and from 24 to 64 bytes as base64.
SECRET = rf"^whsec_({_FOUR}{{8,20}}([A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?|{_FOUR}{{21}}([A-Za-z0-9+/]{{2}}==)?)$"

#: After the first attempt so many seconds to the next, and so on. Source: the seeds, "1s, 2s, 5s, 10s, 30s", "5 max
#: retries". With the first one that is six attempts: of five, the last pause would never be.
PAUSES = tuple(map(Seconds, (1, 2, 5, 10, 30)))
#: What follows these where an endpoint asks for it: three days. Source: Standard Webhooks, "Retry schedule".
LONG_TAIL = tuple(Seconds(hours * 3600) for hours in (1 / 12, 1 / 2, 2, 5, 10, 14, 20, 24))
#: A pause becomes longer by up to this share of it, so that what failed together is not sent together again.
JITTER = 0.2
LONGEST_RETRY_AFTER = Seconds(3600)  #: what an endpoint may ask for
MOST_FAILURES = 10  #: deliveries in a row that failed: then the endpoint is disabled. Source: the seeds
#: Pauses between the probes of a disabled endpoint; the last one again and again.
_PROBES = tuple(map(Seconds, (60, 300, 1800, 7200, 21_600)))


class State(StrEnum):
    """Of a delivery: an event on its way to an endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WhyDisabled(StrEnum):
    """Why an endpoint is sent nothing."""

    FAILING = "failing"  #: too many deliveries failed in a row; it is probed, and enabled when it takes something
    GONE = "gone"  #: it answered 410
    OWNER = "owner"  #: its owner wants it
    DELETED = "deleted"  #: its owner sees it no more; its history goes piece by piece


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt. `status` is HTTP's, None where there was no answer; `retry_after` is the header."""

    status: int | None
    retry_after: str = ""

    @property
    def is_delivered(self) -> bool:
        """2xx, and nothing else: a redirect is not followed, since it leads where nobody has looked."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """410: the receiver wants nothing any more."""
        return self.status == 410


@dataclass(frozen=True, slots=True)
class Next:
    """What a delivery is after an attempt. `due_at` is there where it is sent again."""

    state: State
    due_at: datetime | None = None


def after_attempt(answer: Answer, attempts: int, now: datetime, *, draw: float, long_tail: bool = False) -> Next:
    """What follows from an answer. `attempts` counts those of this round, with the one that was answered; `draw` is
    from 0 to 1, and makes the jitter.

    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> after_attempt(Answer(204), 1, noon, draw=0.5).state.value
    'delivered'
    >>> (after_attempt(Answer(503), 3, noon, draw=0).due_at - noon).total_seconds()
    5.0
    >>> (after_attempt(Answer(429, "120"), 1, noon, draw=0).due_at - noon).total_seconds()
    120.0
    >>> [after_attempt(*each, noon, draw=0).state.value for each in ((Answer(None), 6), (Answer(410), 1))]
    ['failed', 'failed']
    """
    if answer.is_delivered:
        return Next(State.DELIVERED)
    pauses = PAUSES + LONG_TAIL if long_tail else PAUSES
    if answer.is_gone or attempts > len(pauses):
        return Next(State.FAILED)
    pause = pauses[attempts - 1] * (1 + JITTER * draw)
    wait = max(pause, retry_after(answer.retry_after, now))
    return Next(State.PENDING, now + timedelta(seconds=wait))


def retry_after(header: str, now: datetime) -> Seconds:
    """Seconds to wait: of a number of them, or of a date; 0 for what is neither. LONGEST_RETRY_AFTER at the most.

    Source: RFC 9110, section 10.2.3.

    >>> noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    >>> retry_after("7", noon), retry_after("Sat, 28 Nov 2026 12:01:00 GMT", noon), retry_after("soon", noon)
    (7.0, 60.0, 0.0)
    >>> retry_after("9" * 5000, noon), retry_after("Sat, 28 Nov 2020 12:01:00 GMT", noon)
    (3600, 0.0)
    """
    header = header.strip()
    if header.isascii() and header.isdecimal():
        wait = float(header) if len(header) < 10 else LONGEST_RETRY_AFTER
    else:
        try:
            until = parsedate_to_datetime(header)
            wait = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, OverflowError):
            wait = 0.0
    return Seconds(min(max(wait, 0.0), LONGEST_RETRY_AFTER))


def why_disabled(answer: Answer, failures_in_a_row: int) -> WhyDisabled | None:
    """Whether an endpoint is sent nothing any more, after a delivery that has failed; it is among `failures_in_a_row`.

    >>> why_disabled(Answer(410), 1).value, why_disabled(Answer(500), 9), why_disabled(Answer(None), 10).value
    ('gone', None, 'failing')
    """
    if answer.is_gone:
        return WhyDisabled.GONE
    return WhyDisabled.FAILING if failures_in_a_row >= MOST_FAILURES else None


def probe_after(probes: int) -> Seconds:
    """How long a disabled endpoint is left alone after so many probes. A probe is the delivery of `endpoint.disabled`
    to the endpoint itself; when that takes it, it is enabled, and what waits for it goes on.

    >>> probe_after(0), probe_after(1), probe_after(99)
    (60, 300, 21600)
    """
    return _PROBES[min(probes, len(_PROBES) - 1)]


def new_key() -> bytes:
    """The key of a new secret."""
    return secrets.token_bytes(_NEW_KEY)


def shown(key: bytes) -> str:
    """A key as its owner sees it, and as the reference libraries take it.

    >>> shown(b"a key of more than 24 bytes")
    'whsec_YSBrZXkgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz'
    """
    return PREFIX + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """The key of a secret. Raises ValueError, which does not quote it.

    >>> key_of("whsec_YSBrZXkgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz")
    b'a key of more than 24 bytes'
    """
    if not re.fullmatch(SECRET, secret):
        raise ValueError(
            f"the secret has another form than {PREFIX} and {SHORTEST_KEY} to {LONGEST_KEY} bytes as base64"
        )
    return base64.b64decode(secret.removeprefix(PREFIX))


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature of a message; `timestamp` is in seconds since 1970. Source: Standard Webhooks, "Signature scheme".

    The example is the specification's own.

    >>> key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    >>> body = b'{"test": 2432232314}'
    >>> signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()


def plain_signature(key: bytes, body: bytes) -> str:
    """What old receivers look at: the hexadecimal HMAC of the body alone. It does not keep a message from being sent to
    them again by somebody else. Source: the seeds, "HMAC-SHA256 signature verification".

    >>> plain_signature(b"webhook_secret", b"{}")[:16]
    '5ca154a7bca48ffe'
    """
    return hmac.digest(key, body, "sha256").hex()


def signed(message_id: str, at: datetime, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers of an attempt. `keys` are those that count, the newest first: several while rotations overlap.

    `message_id` is the event's id, the same in each attempt and each replay. Old receivers know one signature only:
    they are sent that of the oldest key, so that nothing changes for them before its overlap ends.
    """
    timestamp = int(at.timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, message_id, timestamp, body) for key in keys),
        "X-Webhook-Signature": plain_signature(keys[-1], body),
    }
