"""One form for all results: JSON for machines below build/bench, a table for people."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

OUT = Path("build/bench")


@dataclass(frozen=True)
class Row:
    """One figure of ours beside one of the peer, measured in the same run. `spread` is (max − min) / median of ours.

    `ratio` is ours / peer. `limit` is what the ratio must keep, in the direction that `better` names.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    n: int
    spread: float
    ratio: float = field(init=False)
    limit: float | None = None
    better: str = "lower"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", self.ours / self.peer if self.peer else float("nan"))


def spread(values: Sequence[float]) -> float:
    """(max − min) / median; 0 of a single value."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def write(name: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Write build/bench/NAME.json and print the table. A ratio beyond its limit is marked, never an error."""
    OUT.mkdir(parents=True, exist_ok=True)
    body = {"name": name, "machine": _machine(), "rows": [_plain(row) for row in rows], "notes": list(notes)}
    (OUT / f"{name}.json").write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    print(f"\n{name}\n")
    print(f"{'what':<72} {'unit':<8} {'ours':>12} {'peer':>12} {'ratio':>8} {'n':>3} {'spread':>7}  peer")
    for row in rows:
        mark = "" if row.limit is None else f"  limit {row.limit:g}" + ("" if _holds(row) else " EXCEEDED")
        figures = f"{row.ours:>12,.4g} {row.peer:>12,.4g} {row.ratio:>8.3g} {row.n:>3} {row.spread:>7.0%}"
        print(f"{row.what[:72]:<72} {row.unit:<8} {figures}  {row.peer_name}{mark}")
    for note in notes:
        print(f"  {note}")


def _plain(row: Row) -> dict[str, object]:
    plain = asdict(row)
    if row.limit is None:
        del plain["limit"], plain["better"]
    return plain


def _holds(row: Row) -> bool:
    limit = row.limit if row.limit is not None else float("inf")
    return row.ratio <= limit if row.better == "lower" else row.ratio >= limit


def _machine() -> dict[str, object]:
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
