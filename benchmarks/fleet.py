"""A lab for one benchmark, below build/bench, gone afterwards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiprod_ops.lab import fleet


@contextmanager
def lab(rows: int, *, workload: bool, postgres_bin: Path | None = None, name: str = "lab") -> Iterator[fleet.Fleet]:
    """A fleet with so many jobs; `AIPROD_OPS_CONFIG` names it while it is up."""
    folder = Path("build/bench").absolute() / name
    fleet.down(folder)
    before = os.environ.get("AIPROD_OPS_CONFIG")
    made = fleet.up(folder, rows, postgres_bin, workload=workload)
    os.environ["AIPROD_OPS_CONFIG"] = str(made.config)
    try:
        yield made
    finally:
        fleet.down(folder)
        os.environ.pop("AIPROD_OPS_CONFIG")
        if before is not None:
            os.environ["AIPROD_OPS_CONFIG"] = before
