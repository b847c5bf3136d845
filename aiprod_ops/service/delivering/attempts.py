"""One attempt: signed, sent, and what follows from the answer."""

import random
import time
from datetime import UTC, datetime

from aiprod_ops.domain.exchanges import Exchange, NoAnswer, Outgoing
from aiprod_ops.domain.webhooks import Answer, State, after_attempt, probe_after, signed
from aiprod_ops.ports import Sender
from aiprod_ops.service.delivering.leases import Due
from aiprod_ops.service.delivering.outcomes import Outcome
from aiprod_ops.units import Milliseconds, Seconds

AGENT = "aiprod-webhooks/1"
_NOW = Seconds(0)


async def attempt(sender: Sender, due: Due) -> Outcome:
    """Send a delivery once."""
    if due.keys:
        headers = signed(due.event_id, datetime.now(UTC), due.payload, due.keys)
        headers["Content-Type"], headers["User-Agent"] = "application/json", AGENT
        exchange = await sender.send(Outgoing(due.url, headers, due.payload))
    else:
        exchange = Exchange(Milliseconds(0), error=NoAnswer.UNSIGNED)
    return outcome_of(due, exchange)


def outcome_of(due: Due, exchange: Exchange) -> Outcome:
    """What follows from an answer that has just come."""
    state, pause = judged(due, exchange, datetime.now(UTC), random.random())  # noqa: S311  # jitter
    return Outcome(due, exchange, state, pause, time.monotonic())


def judged(due: Due, exchange: Exchange, now: datetime, draw: float) -> tuple[State, Seconds]:
    """What a delivery is after an attempt, and the pause until the next. A probe goes on until it is taken."""
    answer = Answer(exchange.status, exchange.retry_after)
    if due.is_probe and not answer.is_delivered:
        return State.PENDING, probe_after(due.attempts + 1)
    follows = after_attempt(answer, due.attempts + 1, now, draw=draw, long_tail=due.long_tail)
    if follows.due_at is None:
        return follows.state, _NOW
    return follows.state, Seconds((follows.due_at - now).total_seconds())
