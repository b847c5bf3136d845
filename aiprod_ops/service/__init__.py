"""What a service imports: parts of an API that are kept right by the same rules as its operations.

Names are looked up when they are first used, so that this import stays cheap and needs nothing of the extra `service`.
"""

from importlib import import_module
from typing import Any

#: name → module. Source of the mechanism: PEP 562.
_NAMES = {
    "create_app": "app",
    "init_phase2_features": "app",
    "register_phase2_router": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
