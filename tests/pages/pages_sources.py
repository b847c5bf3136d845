"""What the tests of the pages share."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.domain.evidence import Sealed

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
Seal = Callable[..., Sealed]


def comparison(unit: str, gain: float) -> dict[str, Any]:
    """As `prove` seals it."""
    sampled = {"median": 100.0, "low": 90.0, "high": 110.0, "n": 5}
    return {"what": "select 1", "unit": unit, "before": sampled, "after": sampled, "gain": gain, "columns": {}}
