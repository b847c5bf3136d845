"""`@cached_endpoint`: what a function returned is returned again, to whoever asks for the same.

The key holds the function and all its arguments. One that cannot be a part of it is refused, never left out: whose data
an answer is might hang on it.
"""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, get_type_hints

import msgspec
from anyio import to_thread

from aiprod_ops.service.caching import keys
from aiprod_ops.service.caching.computing import Computed, Wanted
from aiprod_ops.service.caching.keys import Tags
from aiprod_ops.service.caching.metrics import Counted, Result
from aiprod_ops.service.caching.values import Lifetime
from aiprod_ops.units import Ratio, Seconds

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NEGATIVE_TTL = Seconds(15)  #: of an answer that says that there is nothing
STALE = Ratio(0.1)  #: of its time to live an entry may be served after that, while it is renewed

#: The endpoint whose whole response is being computed to be stored: it is not stored a second time.
answering: ContextVar[object] = ContextVar("answering", default=None)


class Answers(Protocol):
    """A cache, as an endpoint needs it."""

    async def answer(self, wanted: Wanted[T], counted: Counted) -> tuple[T, Result]: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How an endpoint is cached: under which name, for how long, as what belongs to what. `user` is the template of
    whom an answer is for, of the endpoint's arguments."""

    prefix: str
    lifetime: Lifetime
    tags: Tags
    user: str = ""


def _shared() -> Answers:
    from aiprod_ops.service.cache import RedisCache

    return RedisCache()


def cached_endpoint(
    ttl: float = 300,
    key_prefix: str = "",
    *,
    tags: tuple[str, ...] = (),
    user: str = "",
    ignore: tuple[str, ...] = (),
    negative_ttl: float = NEGATIVE_TTL,
    stale: float | None = None,
    cache: Callable[[], Answers] = _shared,
) -> Callable[[Callable[P, Any]], Callable[P, Coroutine[Any, Any, Any]]]:
    """Store what a function returns, sync or async, for `ttl` seconds (10 % more or less); None for `negative_ttl`.

    The answer is awaited, of a sync function too: that runs in a thread. What comes back is what msgpack keeps, as the
    annotation of what it returns says. What it raises is not stored. For `stale` seconds more, a tenth of `ttl` unless
    it is said, it is served while a new one is computed.

    `tags` say what invalidates it, with arguments in them: `("job:{job_id}",)`. `user` is whom it is for, of an
    argument that is no part of the key itself: `"{user.id}"`; `invalidate_user_cache` removes it. `ignore` names
    arguments that do not decide the answer: a session, a connection. All other arguments are a part of the key.

    FastAPI: below the route's decorator, so that the route gets the cached function.
    """
    lifetime = Lifetime(Seconds(ttl), Seconds(ttl * STALE if stale is None else stale), Seconds(negative_ttl))

    def decorate(function: Callable[P, Any]) -> Callable[P, Coroutine[Any, Any, Any]]:
        policy = Policy(key_prefix or function.__name__, lifetime, Tags(tags), user)
        known, counted, codec = _Arguments.of(function, policy, ignore), Counted.of(policy.prefix), _Codec.of(function)
        calls = _async(function)

        @functools.wraps(function)
        async def cached(*args: P.args, **kwargs: P.kwargs) -> Any:
            if answering.get() is policy:
                return await calls(*args, **kwargs)

            async def compute() -> Computed[Any]:
                value = await calls(*args, **kwargs)
                return Computed(value, codec.payload(value), _nothing(lifetime) if value is None else None)

            key, found = known.key(args, kwargs)
            wanted = Wanted(key, found, lifetime, compute, compute, codec.value)
            return (await cache().answer(wanted, counted))[0]

        cached.cache_policy = policy  # type: ignore[attr-defined]
        return cached

    return decorate


def _nothing(lifetime: Lifetime) -> Lifetime:
    return Lifetime(lifetime.nothing)


def _async(function: Callable[P, Any]) -> Callable[P, Awaitable[Any]]:
    if inspect.iscoroutinefunction(function):
        return function

    async def in_thread(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await to_thread.run_sync(functools.partial(function, *args, **kwargs))

    return in_thread


@dataclass(frozen=True, slots=True)
class _Arguments:
    """How the arguments of one function become a key and tags."""

    name: str
    signature: inspect.Signature
    policy: Policy
    left_out: frozenset[str]
    positional: tuple[str, ...] | None

    @classmethod
    def of(cls, function: Callable[..., Any], policy: Policy, ignore: tuple[str, ...]) -> "_Arguments":
        signature = inspect.signature(function)
        whose = Tags((policy.user,)).roots
        allowed = set(signature.parameters)
        if wrong := sorted((set(ignore) | whose | policy.tags.roots - ({"user"} if policy.user else set())) - allowed):
            raise TypeError(
                f"{function.__qualname__} has no argument {', '.join(wrong)}, which its cache names; it has "
                f"{', '.join(allowed) or 'none'}"
            )
        left_out = frozenset({*ignore, *whose})
        positional = _positional(signature)
        return cls(f"{function.__module__}.{function.__qualname__}", signature, policy, left_out, positional)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        given = self._given(args, kwargs)
        whose = self.policy.user.format_map(given) if self.policy.user else ""
        parts = {name: value for name, value in given.items() if name not in self.left_out}
        try:
            key = keys.key_of(self.policy.prefix, self.name, whose, parts)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"{self.name}: an argument cannot be a part of a cache key ({error}); name it in `ignore` if it does "
                "not decide the answer, or in `user` if it says whose the answer is"
            ) from error
        tags = self.policy.tags.of({**given, "user": whose} if self.policy.user else given)
        return key, (*tags, keys.user(whose)) if self.policy.user else tags

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name, with those that were left out. As `bind` tells, which takes ten times as long."""
        if self.positional is not None and len(args) <= len(self.positional):
            given = {**dict(zip(self.positional, args, strict=False)), **kwargs}
            if len(given) == len(args) + len(kwargs) and given.keys() == self.signature.parameters.keys():
                return given
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _positional(signature: inspect.Signature) -> tuple[str, ...] | None:
    """Names of the arguments that may be given by position and by name; None where some take any number."""
    kinds = {name: each.kind for name, each in signature.parameters.items()}
    if inspect.Parameter.VAR_POSITIONAL in kinds.values() or inspect.Parameter.VAR_KEYWORD in kinds.values():
        return None
    return tuple(name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class _Codec:
    """Values of one function as msgpack. pydantic's models are known by what they can do."""

    name: str
    decoder: msgspec.msgpack.Decoder[Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "_Codec":
        try:
            hint = get_type_hints(function).get("return", Any)
            return cls(function.__qualname__, msgspec.msgpack.Decoder(hint, dec_hook=_model))
        except (NameError, TypeError):  # an annotation that is not there at run time, or that msgspec does not know
            return cls(function.__qualname__, msgspec.msgpack.Decoder(Any))

    def payload(self, value: Any) -> bytes | None:
        """None of what cannot be stored, a response of a framework for example."""
        try:
            return msgspec.msgpack.encode(value, enc_hook=keys.plain)
        except (TypeError, ValueError, OverflowError) as error:
            log.warning("an answer is not cached", extra={"endpoint": self.name, "why": str(error)})
            return None

    def value(self, payload: bytes) -> Any:
        return self.decoder.decode(payload)


def _model(kind: Any, plain: Any) -> Any:
    """What the annotation says beyond msgspec's types: a model of pydantic is made, of all else comes what it is."""
    return kind.model_validate(plain) if hasattr(kind, "model_validate") else plain
