"""Which paths are stored, for whom, and what their entries belong to."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints
from uuid import UUID

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service.caching.keys import NONE, Tags
from aiprod_ops.service.caching.responses import WHOSE
from aiprod_ops.service.caching.values import Lifetime

_PLACE = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """GET of a path is stored: "/api/v1/jobs/{job_id}". Its tags may name the places in the path, and `user`.

    `is_public` says that everybody gets the same, whoever asks, without being known. `varies` are the request headers
    that decide the response, and so are a part of the key. `kinds` read what stands in a place: 007 and 7 are one job,
    and have one tag. `endpoint` is the policy of a cached endpoint, so that its answer is not stored twice.
    """

    path: str
    lifetime: Lifetime
    tags: Tags = NONE
    is_public: bool = False
    varies: tuple[str, ...] = ()
    kinds: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    endpoint: object = None

    def __post_init__(self) -> None:
        given = self.places | (frozenset() if self.is_public else {"user"})
        if wrong := sorted(self.tags.names - given):
            raise ConfigurationError(
                f"the stored route {self.path} has tags of {', '.join(wrong)}; known from a request are "
                f"{', '.join(sorted(given)) or 'none'}",
                hint="name places of the path, or user",
            )

    @property
    def places(self) -> frozenset[str]:
        return frozenset(_PLACE.findall(self.path))

    @property
    def pattern(self) -> re.Pattern[str]:
        """
        >>> jobs = Route("/jobs/{job_id}", Lifetime(60)).pattern
        >>> jobs.fullmatch("/jobs/7").groupdict(), jobs.fullmatch("/jobs/7/result")
        ({'job_id': '7'}, None)
        """
        parts = enumerate(_PLACE.split(self.path))
        return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in parts))

    def read(self, places: Mapping[str, str]) -> dict[str, object] | None:
        """What stands in the places of a path; None where it is not what it should be.

        >>> Route("/jobs/{job_id}", Lifetime(60), kinds={"job_id": int}).read({"job_id": "007"})
        {'job_id': 7}
        """
        try:
            return {name: self.kinds.get(name, str)(text) for name, text in places.items()}
        except ValueError:
            return None


def stored_routes(routes: Iterable[Any], *, public: Iterable[str] = ()) -> tuple[Route, ...]:
    """The GET routes (of a FastAPI or Starlette application) whose endpoint is cached; `public` are paths of those that
    give everybody the same. Headers and cookies that FastAPI hands to the endpoint are a part of the key; what an
    endpoint reads of the request by itself, it has to name in `Vary`: then nothing is stored."""
    open_to_all, found = set(public), []
    for each in _flat(routes):
        policy = getattr(getattr(each, "endpoint", None), "cache_policy", None)
        if policy is None or "GET" not in (each.methods or ()):
            continue
        is_public = each.path in open_to_all
        if is_public and policy.user:
            raise ConfigurationError(
                f"the route {each.path} is public, and its answer is for {policy.user}", hint="leave it out of `public`"
            )
        hints = get_type_hints(each.endpoint)
        kinds = {name: hints[name] for name in _PLACE.findall(each.path) if hints.get(name) in (int, UUID)}
        varies = tuple(sorted(set(_headers(getattr(each, "dependant", None))) - {one.decode() for one in WHOSE}))
        found.append(Route(each.path, policy.lifetime, policy.tags, is_public, varies, kinds, policy))
    if not found:
        raise ConfigurationError(
            "no route is stored: there is no GET route whose endpoint is cached",
            hint="put @cached_endpoint below the route's decorator, and call stored_routes when all routes are there",
        )
    return tuple(found)


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    """With those of included routers, which FastAPI keeps as routers; older versions copy their routes."""
    from fastapi import routing

    each: Callable[[Iterable[Any]], Iterable[Any]] = getattr(routing, "iter_route_contexts", iter)
    return each(routes)


def _headers(dependant: Any) -> Iterator[str]:
    """Of a FastAPI endpoint and of what it depends on."""
    if dependant is None:
        return
    for each in dependant.header_params:
        yield each.alias.lower()
    if dependant.cookie_params:
        yield "cookie"
    for each in dependant.dependencies:
        yield from _headers(each)
