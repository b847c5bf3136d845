"""Health: side by side, each with a deadline, at most one look a second; what nobody knows is never OK."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiprod_ops.domain.findings import Finding
from aiprod_ops.domain.health import Health
from aiprod_ops.service import parts
from aiprod_ops.service.health import Check, HealthReport
from aiprod_ops.service.parts import Thresholds
from aiprod_ops.units import Seconds

LIMITS = Thresholds(Seconds(5), Seconds(300), 0.85, Seconds(60), Seconds(93600))
Look = Callable[[], Awaitable[list[Finding]]]


def fine(value: float = 0.0) -> Look:
    async def look() -> list[Finding]:
        return [Finding("wrong", value, crit=1)]

    return look


def hanging(until: asyncio.Event, asked: list[int]) -> Look:
    async def look() -> list[Finding]:
        asked.append(1)
        await until.wait()
        return []

    return look


def broken() -> Look:
    async def look() -> list[Finding]:
        raise ConnectionError("password=hunter2")

    return look


def seen(*checks: Check) -> Health:
    return asyncio.run(HealthReport(checks).now())


@pytest.mark.parametrize(
    ("vital", "other", "status", "ready"),
    [
        (fine(), fine(), "healthy", True),
        (fine(), fine(1), "degraded", True),
        (fine(), broken(), "degraded", True),
        (fine(1), fine(), "unhealthy", False),
        (broken(), fine(), "unhealthy", False),
    ],
)
def test_what_is_wrong_and_what_of_it_counts(vital: Look, other: Look, status: str, ready: bool) -> None:
    health = seen(Check("database", vital, is_vital=True), Check("cache", other))
    assert (health.status, health.is_ready) == (status, ready)


def test_an_error_tells_no_secret() -> None:
    assert "hunter2" not in str(seen(Check("database", broken(), is_vital=True)).as_json())


def test_parts_are_looked_at_side_by_side_and_one_that_hangs_holds_up_nobody() -> None:
    asked: list[int] = []

    async def go() -> None:
        end = asyncio.Event()
        report = HealthReport(
            [Check("a", hanging(end, asked), Seconds(0.05)), *(Check(f"b{n}", fine()) for n in range(20))], Seconds(0)
        )
        for _ in range(3):
            health = await report.now()
            assert [each.status.name for each in health.parts] == ["UNKNOWN", *["OK"] * 20]
            assert "no answer within 0.05 s" in str(health.as_json())
        assert len(asked) == 1, "what hangs is not asked again"
        end.set()
        await asyncio.sleep(0)
        await report.now()
        await report.now()
        assert len(asked) == 2, "once it has answered it is"

    asyncio.run(go())


def test_a_thousand_probes_are_one_look() -> None:
    looks: list[int] = []

    async def look() -> list[Finding]:
        looks.append(1)
        await asyncio.sleep(0.01)
        return [Finding("wrong", 0.0, crit=1)]

    async def go() -> None:
        now = [0.0]
        report = HealthReport([Check("database", look)], clock=lambda: now[0])
        await asyncio.gather(*(report.now() for _ in range(1000)))
        assert len(looks) == 1
        now[0] = 0.9
        await report.now()
        assert len(looks) == 1
        now[0] = 1.1
        await report.now()
        assert len(looks) == 2

    asyncio.run(go())


def test_a_probe_that_goes_away_ends_nobody_elses_look() -> None:
    async def go() -> None:
        end = asyncio.Event()

        async def look() -> list[Finding]:
            await end.wait()
            return [Finding("wrong", 0.0, crit=1)]

        report = HealthReport([Check("database", look)])
        first, second = asyncio.create_task(report.now()), asyncio.create_task(report.now())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        end.set()
        assert (await second).status == "healthy"

    asyncio.run(go())


@pytest.mark.parametrize(
    ("ago", "status"), [(None, "UNKNOWN"), (timedelta(hours=1), "OK"), (timedelta(hours=30), "WARNING")]
)
def test_the_last_backup_that_was_verified(ago: timedelta | None, status: str) -> None:
    last = datetime.now(UTC) - ago if ago else None
    assert seen(parts.backups(lambda: last, LIMITS)).parts[0].status.name == status


def test_a_disk_and_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert seen(parts.disk(tmp_path, LIMITS)).parts[0].findings[0].value is not None
    assert seen(parts.disk(tmp_path / "gone", LIMITS)).parts[0].status.name == "UNKNOWN"
