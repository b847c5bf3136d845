"""A durable PostgreSQL with the tables of webhooks, an nginx that answers 204, and deliveries that are due."""

import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local import scratch
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.lab import ports, postgres

TOOLS = Path("build/tools")
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on",
           "shared_buffers": "128MB", "max_connections": "60"}  # fmt: skip
ROLES = "CREATE ROLE aiprod_owner; CREATE ROLE aiprod_app LOGIN; CREATE DATABASE aiprod OWNER aiprod_owner"
GRANTS = "ALTER DEFAULT PRIVILEGES FOR ROLE aiprod_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aiprod_app"
PAYLOAD_BYTES = 1000
NGINX = """
worker_processes 1; daemon off; error_log {folder}/error.log; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 204; }} }} }}
"""
_EVENTS = """
WITH made AS (INSERT INTO webhook_events (id, user_id, type, payload)
  SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1), 'job.completed', convert_to(repeat('x', %(bytes)s), 'UTF8')
  FROM generate_series(1, %(events)s) RETURNING id)
INSERT INTO webhook_deliveries (id, event_id, endpoint_id)
SELECT gen_random_uuid(), made.id, e.id FROM made, webhook_endpoints e WHERE e.description = %(group)s
"""
_LATE = """
SELECT extract(epoch FROM a.began_at - d.created_at)::float8 * 1000 + a.milliseconds
FROM webhook_deliveries d JOIN webhook_attempts a ON a.delivery_id = d.id
JOIN webhook_endpoints e ON e.id = d.endpoint_id
WHERE e.description = %(group)s ORDER BY 1
"""


@dataclass(frozen=True)
class Rows:
    """One database; a group is endpoints with one description."""

    admin: str
    dsn: str

    def sql(self, text: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return postgres.rows(self.admin, text, values)

    def endpoints(self, group: str, count: int, url: str) -> None:
        """So many endpoints."""
        self.sql(
            "WITH made AS (INSERT INTO webhook_endpoints (id, user_id, url, events, description) "
            "SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1), %(url)s, '{}', %(group)s "
            "FROM generate_series(1, %(count)s) RETURNING id) "
            "INSERT INTO webhook_secrets (id, endpoint_id, secret) SELECT gen_random_uuid(), id, %(key)s FROM made",
            {"url": url, "group": group, "count": count, "key": b"k" * 32},
        )

    def deliver(self, group: str, events: int = 1) -> None:
        """So many events for each endpoint of a group, and a notice in the same transaction."""
        values = {"group": group, "events": events, "bytes": PAYLOAD_BYTES}
        self.sql(f"{_EVENTS}; NOTIFY aiprod_webhooks", values)

    def wait(self, seconds: float = 300) -> None:
        """Until nothing waits."""
        deadline = time.monotonic() + seconds
        while self.sql("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'")[0][0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"deliveries still wait after {seconds:g} s")
            time.sleep(0.1)

    def rate(self) -> float:
        """Deliveries a second, by the database's clock: from the first attempt's begin to the last one written."""
        [(rate,)] = self.sql(
            "SELECT (SELECT count(*) FROM webhook_attempts) / extract(epoch FROM "
            "(SELECT max(ended_at) FROM webhook_deliveries) - (SELECT min(began_at) FROM webhook_attempts))::float8"
        )
        return float(rate)

    def late_ms(self, group: str) -> list[float]:
        """From the event's transaction to the endpoint's answer."""
        return [float(late) for (late,) in self.sql(_LATE, {"group": group})]

    def clear(self) -> None:
        self.sql("TRUNCATE webhook_endpoints, webhook_events, webhook_deliveries CASCADE; CHECKPOINT")


@contextmanager
def rows() -> Iterator[Rows]:
    with scratch.scratch(find(None)) as server:
        server.stop()
        server.configure(scratch.SETTINGS | DURABLE, scratch.HBA)
        server.start()
        for statement in ROLES.split("; "):
            postgres.rows(server.dsn("postgres", "postgres"), statement)
        made = Rows(server.dsn("postgres", postgres.DATABASE), server.dsn("aiprod_app", postgres.DATABASE))
        made.sql(GRANTS)
        postgres.migrate(made.admin, "head")
        made.sql(
            "INSERT INTO users (id, email, name, tier, created_at) "
            "VALUES (gen_random_uuid(), 'bench@example.org', 'b', 'pro', now())"
        )
        yield made


@contextmanager
def nginx() -> Iterator[str]:
    """The URL of an nginx that answers 204 to everything. Debian's package is unpacked, not installed."""
    program = TOOLS / "usr/sbin/nginx"
    if not program.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "nginx"], check=True, cwd=TOOLS)
        package = next(TOOLS.glob("nginx_*.deb")).name
        subprocess.run(["dpkg", "-x", package, "."], check=True, cwd=TOOLS)
    with tempfile.TemporaryDirectory(prefix="ops-", dir="/tmp") as name:
        folder = Path(name).resolve()
        port = ports.free(folder)[0]
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port), encoding="utf-8")
        running = subprocess.Popen([program.resolve(), "-c", folder / "nginx.conf", "-p", folder])
        try:
            url = f"http://127.0.0.1:{port}/"
            _await(url)
            yield url
        finally:
            running.terminate()
            running.wait()


def _await(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise TimeoutError(f"nginx does not answer at {url}")
