"""Webhooks in a lab: endpoints with failed deliveries, and somebody who marks what is due as a pump would."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from command_line import Bench

from aiprod_ops.lab import postgres
from aiprod_ops.service.ids import uuid7

SECRET, PATH, PAYLOAD = "whsec_never_shown", "never-shown-path", "never-shown-payload"

_ENDPOINT = """
INSERT INTO webhook_endpoints (id, user_id, url, events, state, why_disabled, disabled_at)
SELECT %(id)s, (SELECT min(id::text)::uuid FROM users), %(url)s, '{}', %(state)s, %(why)s,
       CASE WHEN %(state)s = 'disabled' THEN now() END
"""
_SECRET = "INSERT INTO webhook_secrets (id, endpoint_id, secret) VALUES (%(id)s, %(endpoint)s, %(secret)s)"
_ENDED = """
WITH event AS (INSERT INTO webhook_events (id, user_id, type, payload)
               SELECT %(event)s, (SELECT min(id::text)::uuid FROM users), %(type)s, %(payload)s RETURNING id)
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, state, attempts, ended_at)
SELECT %(id)s, id, %(endpoint)s, %(state)s, 5, now() FROM event
"""
_ATTEMPTS = """
INSERT INTO webhook_attempts (delivery_id, number, began_at, milliseconds, status)
SELECT %(id)s, n, now() - interval '1 minute' + n * interval '1 second', 3, %(status)s FROM generate_series(1, 5) n
"""
_TAKE = """
UPDATE webhook_deliveries SET lease_until = now() + interval '10 s', leased_by = 'a test', attempts = attempts + 1
WHERE id IN (SELECT id FROM webhook_deliveries
             WHERE state = 'pending' AND due_at <= now() AND (lease_until IS NULL OR lease_until < now())
             ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING id::text, endpoint_id::text
"""
_ANSWERED = """
WITH ended AS (UPDATE webhook_deliveries SET state = %(state)s, ended_at = clock_timestamp(), lease_until = NULL
               WHERE id = %(id)s RETURNING id)
INSERT INTO webhook_attempts (delivery_id, number, began_at, milliseconds, status)
SELECT id, 1 + coalesce((SELECT max(number) FROM webhook_attempts WHERE delivery_id = %(id)s), 0), clock_timestamp(),
       3, %(status)s
FROM ended
"""


@dataclass
class Hooks:
    """What a lab's webhooks are; `sent` are the ids that somebody sent, in their order."""

    bench: Bench
    sent: list[str] = field(default_factory=list)

    def endpoint(self, host: str, state: str = "enabled", url: str = "") -> str:
        made = str(uuid7())
        url = url or f"https://{host}/{PATH}"
        why = "failing" if state == "disabled" else None
        self.bench.sql(_ENDPOINT, {"id": made, "url": url, "state": state, "why": why})
        self.bench.sql(_SECRET, {"id": str(uuid7()), "endpoint": made, "secret": SECRET.encode()})
        return made

    def ended(
        self, endpoint: str, count: int, state: str = "failed", status: int = 503, event: str = "job.completed"
    ) -> list[str]:
        """So many deliveries that have ended like this, oldest first."""
        ids = sorted(str(uuid7()) for _ in range(count))
        with postgres.session(self.bench.admin) as session, session.cursor() as cursor:
            for each in ids:
                payload = f'{{"about": "{PAYLOAD}"}}'.encode()
                values = {"id": each, "event": str(uuid7()), "endpoint": endpoint, "type": event, "payload": payload}
                cursor.execute(_ENDED, {**values, "state": state})
                cursor.execute(_ATTEMPTS, {"id": each, "status": status})
        return ids

    def states(self, ids: list[str]) -> Counter[str]:
        found = self.bench.sql("SELECT state FROM webhook_deliveries WHERE id = ANY(%(ids)s::uuid[])", {"ids": ids})
        return Counter(state for (state,) in found)

    def rows(self, ids: list[str]) -> list[tuple[object, ...]]:
        """All that tells how they had ended."""
        text = "SELECT id, state, attempts, ended_at, lease_until, leased_by FROM webhook_deliveries"
        return self.bench.sql(f"{text} WHERE id = ANY(%(ids)s::uuid[]) ORDER BY id", {"ids": ids})

    def attempts(self, ids: list[str]) -> list[int]:
        """How many attempts were made at each since it had failed with five."""
        found = self.bench.sql(
            "SELECT count(*) - 5 FROM webhook_attempts WHERE delivery_id = ANY(%(ids)s::uuid[]) "
            "GROUP BY delivery_id ORDER BY delivery_id",
            {"ids": ids},
        )
        return [count for (count,) in found]

    def clear(self) -> None:
        self.bench.sql("DELETE FROM webhook_events; DELETE FROM webhook_endpoints")

    @contextmanager
    def pump(
        self, answers: Mapping[str, int] | None = None, most: int = 100, after: Callable[[str], None] = lambda _: None
    ) -> Iterator[None]:
        """Somebody who sends what is due and gets these answers by endpoint, else 200; `after` is told each id."""
        over = threading.Event()
        thread = threading.Thread(target=self._work, args=(answers or {}, most, after, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)

    def _work(self, answers: Mapping[str, int], most: int, after: Callable[[str], None], over: threading.Event) -> None:
        with postgres.session(self.bench.admin) as session, session.cursor() as cursor:
            while not over.wait(0.02):
                cursor.execute(_TAKE, {"most": most})
                for each, endpoint in cursor.fetchall():
                    status = answers.get(endpoint, 200)
                    state = "delivered" if status < 300 else "failed"
                    cursor.execute(_ANSWERED, {"id": each, "state": state, "status": status})
                    self.sent.append(each)
                    after(each)
