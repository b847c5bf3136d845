"""What a service imports: parts of an API that are kept right by the same rules as its operations.

Names are looked up when they are first used, so that this import stays cheap and needs nothing of the extra `service`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiprod_ops.service.app import create_app as create_app
    from aiprod_ops.service.app import init_phase2_features as init_phase2_features
    from aiprod_ops.service.app import register_phase2_router as register_phase2_router

#: name → module. Source of the mechanism: PEP 562.
_NAMES = {
    "create_app": "app",
    "init_phase2_features": "app",
    "register_phase2_router": "app",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_NAMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("aiprod_ops"):
            raise
        needs = f"{__name__}.{name} needs {error.name}, which is not installed"
        raise ImportError(f"{needs}: pip install 'aiprod-ops[service]'", name=error.name) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
