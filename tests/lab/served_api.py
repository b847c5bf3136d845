"""The API as it runs: `aiprod-ops serve` on a PostgreSQL of its own, and clients that speak HTTP with it."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from aiprod_ops.adapters.local import scratch
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.lab import ports, postgres
from aiprod_ops.service.issuing import issue
from aiprod_ops.service.settings import Settings

ROLES = """
    CREATE ROLE aiprod_owner; CREATE ROLE aiprod_app LOGIN;
    CREATE DATABASE aiprod OWNER aiprod_owner;
"""
GRANTS = "ALTER DEFAULT PRIVILEGES FOR ROLE aiprod_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aiprod_app"
TIERS = "".join(
    f"[tiers.{name}]\nrequests_per_minute = 1000000\nrequests_per_day = 10000000\nconcurrent_jobs = 100000\n"
    "batch_size = 100000\nmonthly_cost_units = 1000000000\n"
    for name in ("free", "pro", "enterprise", "premium")
)
JOB = {"preset": "quick_social", "prompt": "A ceramic coffee cup in morning light."}


@dataclass
class Api:
    """A database with the API's schema, and maybe a server on it. `admin` is a superuser's DSN."""

    server: PostgresServer
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    log: Any = field(default_factory=tempfile.TemporaryFile)

    @property
    def admin(self) -> str:
        return self.server.dsn("postgres", postgres.DATABASE)

    @property
    def dsn(self) -> str:
        return self.server.dsn("aiprod_app", postgres.DATABASE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sql(self, text: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return postgres.rows(self.admin, text, values)

    def key(self, email: str, *scopes: str, tier: str = "pro") -> str:
        return asyncio.run(issue(Settings(dsn=self.dsn), email, email, tier, "test", scopes or ("jobs",)))

    def client(self, key: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30)

    def start(self) -> None:
        """Serve, and wait until it answers."""
        self.port = self.port or ports.free(self.server.data)[0]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AIPROD", "REDIS", "PG"))}
        words = [sys.executable, "-m", "aiprod_ops", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            words,
            env={**env, "AIPROD_OPS_APP_DSN": self.dsn, **self.environment},
            stdout=self.log,
            stderr=self.log,
            cwd="/",
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, f"it does not start: {self.said()}"
            assert time.monotonic() < deadline, f"it does not answer: {self.said()}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v1/docs", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """What it has logged."""
        self.log.seek(0)
        return bytes(self.log.read()).decode()

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0, self.said()

    def complete(self, job_id: str) -> str:
        """What a worker will do: end a job with a result; answers the result's id."""
        self.sql("UPDATE jobs SET status = 'completed', completed_at = now() WHERE id = %(id)s", {"id": job_id})
        [(result,)] = self.sql(
            "INSERT INTO results (id, job_id, video_url, thumbnail_url, duration_seconds, size_bytes, quality_score) "
            "VALUES (gen_random_uuid(), %(id)s, 'https://cdn.example.org/v.mp4', 'https://cdn.example.org/t.jpg', "
            "15, 1000, 0.9) RETURNING id::text",
            {"id": job_id},
        )
        return str(result)

    def used(self, user_id: str, job_id: str) -> None:
        """What a worker enters into the ledger when a job has ended: 30 cost units."""
        values = {"user": user_id, "job": job_id}
        self.sql(
            "WITH entry AS (INSERT INTO usage (user_id, job_id, preset, seconds, cost_units, moment) "
            "VALUES (%(user)s, %(job)s, 'quick_social', 15, 30, now())) "
            "INSERT INTO usage_months VALUES (%(user)s, date_trunc('month', now() AT TIME ZONE 'UTC'), 30) "
            "ON CONFLICT (user_id, month) DO UPDATE SET cost_units = usage_months.cost_units + 30",
            values,
        )

    def stage(self, job_id: str) -> str:
        """One stage of a job; answers its id."""
        [(pipeline,)] = self.sql(
            "INSERT INTO pipeline_jobs (id, job_id, status, stage, worker, parameters) "
            "VALUES (gen_random_uuid(), %(id)s, 'processing', 'storyboard', 'w1', '{}') RETURNING id::text",
            {"id": job_id},
        )
        return str(pipeline)


@contextmanager
def database() -> Iterator[Api]:
    """A PostgreSQL with the API's schema, and nothing that serves it."""
    with scratch.scratch(find(None)) as server:
        for statement in ROLES.strip().split(";")[:-1]:
            postgres.rows(server.dsn("postgres", "postgres"), statement)
        generous = server.data / "service.toml"  # one test asks more than a tier allows
        generous.write_text(TIERS)
        made = Api(
            server, {"AIPROD_OPS_SERVICE": str(generous), "AIPROD_OPS_VIDEOS": "aiprod_ops.lab.rendering:Videos"}
        )
        made.sql(GRANTS)
        postgres.migrate(made.admin, "head")
        with made.log:
            yield made


@contextmanager
def served(environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[Api]:
    """The same with the API on it. Without a word in its environment it finds no Redis."""
    with database() as made:
        made.environment |= environment
        try:
            made.start()
            yield made
        finally:
            made.stop()
