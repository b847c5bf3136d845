"""A world in memory for the engine's tests."""

from pathlib import Path

import pytest
from memory_world import Bench, Light, MemoryPlatform, MemoryStore, Tick

from aiprod_ops.engine.registry import find


@pytest.fixture
def bench() -> Bench:
    light = Light()
    entry = find([Path(__file__).parent / "books"])["switch-lamps"]
    return Bench(MemoryStore(), light, Tick(), MemoryPlatform(light), entry)
