"""Prometheus' text format, and handing it to a Pushgateway or another HTTP endpoint."""

import http.client
import urllib.error
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_client import CollectorRegistry, generate_latest, pushadd_to_gateway
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, basic_auth_handler, default_handler
from prometheus_client.registry import Collector

from aiprod_ops.domain.results import Family, Result, families
from aiprod_ops.errors import ConfigurationError, Unreachable
from aiprod_ops.units import Seconds, show

_JOB = "aiprod-ops"
_GATEWAY = "/metrics/job/"


class _Told(Collector):
    """Families as the client library collects them."""

    def __init__(self, told: Iterable[Family]) -> None:
        self.told = list(told)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for family in self.told:
            metric = GaugeMetricFamily(family.name, family.help)
            for labels, value in family.samples:
                metric.add_sample(family.name, dict(labels), value)
            yield metric


def text(results: Iterable[Result]) -> str:
    """The metrics of some results in the text format: HELP, TYPE, samples without a timestamp."""
    return generate_latest(_registry(results)).decode()


def push(url: str, results: Iterable[Result], timeout: Seconds) -> None:
    """Hand results over. A URL without a path is a Pushgateway, one with `/metrics/job/…` a job of one; any other gets
    the whole text by POST.

    A Pushgateway keeps a group for each runbook and target; what a result does not tell (the last success, on a
    machine that forgot it) stays there as it was. Raises Unreachable, ConfigurationError.
    """
    base, handler = _credentials(url)
    try:
        if urlsplit(base).path.rstrip("/") and _GATEWAY not in urlsplit(base).path:
            told = generate_latest(_registry(results))
            handler(base, "POST", timeout, [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)], told)()
            return
        gateway, _, job = base.partition(_GATEWAY)
        for result in results:
            labels = {"runbook": result.subject.runbook, "target": result.subject.target, "work": result.work}
            registry = _registry([result])
            pushadd_to_gateway(gateway, unquote(job.strip("/")) or _JOB, registry, labels, timeout, handler)
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace").strip()
        raise Unreachable(f"{base} refused the metrics: {error.code} {error.reason}{f': {said}' if said else ''}",
                          hint="look at the address: a Pushgateway's has no path") from error  # fmt: skip
    except TimeoutError as error:
        raise Unreachable(f"{base} did not take the metrics within {show(timeout, 's')}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"{base} could not be reached, so the metrics were not handed over: {reason}") from error


def _registry(results: Iterable[Result]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(families(results)))
    return registry


def _credentials(url: str) -> tuple[str, Callable[..., Callable[[], None]]]:
    """The URL without the user and the password that it may carry, and how to send to it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url!r} is no address to push metrics to", hint="expected http://HOST:PORT")
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is None:
        return bare, default_handler
    user, password = unquote(parts.username), unquote(parts.password or "")
    return bare, partial(_authenticated, user, password)


def _authenticated(
    user: str, password: str, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    return basic_auth_handler(url, method, timeout, headers, data, user, password)
