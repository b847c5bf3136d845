"""What a service imports: parts of an API that are kept right by the same rules as its operations.

Names are looked up when they are first used, so that this import stays cheap and needs nothing of the extra `service`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiprod_ops.service.app import create_app as create_app
    from aiprod_ops.service.app import init_phase2_features as init_phase2_features
    from aiprod_ops.service.app import register_phase2_router as register_phase2_router
    from aiprod_ops.service.cache import DEFAULT_TTL as DEFAULT_TTL
    from aiprod_ops.service.cache import LONG_TTL as LONG_TTL
    from aiprod_ops.service.cache import MEDIUM_TTL as MEDIUM_TTL
    from aiprod_ops.service.cache import SHORT_TTL as SHORT_TTL
    from aiprod_ops.service.cache import RedisCache as RedisCache
    from aiprod_ops.service.cache import cache_delete as cache_delete
    from aiprod_ops.service.cache import cache_get as cache_get
    from aiprod_ops.service.cache import cache_health as cache_health
    from aiprod_ops.service.cache import cache_set as cache_set
    from aiprod_ops.service.cache import cached_endpoint as cached_endpoint
    from aiprod_ops.service.cache import invalidate_job_cache as invalidate_job_cache
    from aiprod_ops.service.cache import invalidate_user_cache as invalidate_user_cache
    from aiprod_ops.service.caching.place import RedisPlace as RedisPlace
    from aiprod_ops.service.caching.routes import stored_routes as stored_routes
    from aiprod_ops.service.caching.stored import Caller as Caller
    from aiprod_ops.service.caching.stored import StoredResponses as StoredResponses
    from aiprod_ops.service.webhooks import emit_webhook_event as emit_webhook_event

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
    "emit_webhook_event": "webhooks",
    "stored_routes": "caching.routes",
    "create_app": "app",
    "init_phase2_features": "app",
    "register_phase2_router": "app",
    "limited": "limits",
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
