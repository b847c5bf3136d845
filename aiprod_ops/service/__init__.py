"""What a service imports: parts of an API that are kept right by the same rules as its operations.

Names are looked up when they are first used, so that this import stays cheap and needs nothing of the extra `service`.
"""

from importlib import import_module
from typing import Any

#: name → module. Source of the mechanism: PEP 562.
_NAMES = {
    "Caller": "caching.stored",
    "DEFAULT_TTL": "cache",
    "LONG_TTL": "cache",
    "Limiter": "limiting.decisions",
    "MEDIUM_TTL": "cache",
    "RateLimits": "limits",
    "RedisCache": "cache",
    "RedisPlace": "caching.place",
    "SHORT_TTL": "cache",
    "StoredResponses": "caching.stored",
    "cache_delete": "cache",
    "cache_get": "cache",
    "cache_health": "cache",
    "cache_set": "cache",
    "cached_endpoint": "cache",
    "invalidate_job_cache": "cache",
    "invalidate_user_cache": "cache",
    "limited": "limits",
    "stored_routes": "caching.stored",
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
