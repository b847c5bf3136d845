"""The response fields `RateLimit` and `RateLimit-Policy`, and the problem of a request that is refused.

Source: draft-ietf-httpapi-ratelimit-headers-11, sections 3 to 5. Both fields are Lists of Strings with parameters
(RFC 9651): of a policy `q` is the quota and `w` its window in seconds; of a limit `r` is what remains, and `t` are the
seconds until more is made available. `t` is rounded up: who waits so long finds it.
"""

import math
from collections.abc import Sequence
from typing import Any

from aiprod_ops.domain.quotas import Decision, Quota, Standing

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def response_fields(decision: Decision) -> dict[str, str]:
    """By name; with `Retry-After` where the request was refused and waiting helps.

    >>> from aiprod_ops.units import Seconds
    >>> standing = Standing(Quota("minute", 10, Seconds(60)), 0, 1500)
    >>> for name, value in response_fields(Decision(False, 1, (standing,), 1500)).items(): print(f"{name}: {value}")
    RateLimit-Policy: "minute";q=10;w=60
    RateLimit: "minute";r=0;t=2
    Retry-After: 2
    """
    fields = {
        "RateLimit-Policy": policy([each.quota for each in decision.standings]),
        "RateLimit": ", ".join(_limit(each) for each in decision.standings),
    }
    if not decision.is_allowed and decision.retry_after is not None:
        fields["Retry-After"] = str(decision.retry_after)
    return fields


def policy(quotas: Sequence[Quota]) -> str:
    """The value of RateLimit-Policy."""
    return ", ".join(f"{string(each.name)};q={each.limit};w={math.ceil(each.window)}" for each in quotas)


def string(text: str) -> str:
    r"""A String of structured fields; raises ValueError for what is not printable ASCII. Source: RFC 9651, 4.1.6.

    >>> print(string('a "b"'))
    "a \"b\""
    """
    if not all(" " <= each <= "~" for each in text):
        raise ValueError(f"{text!r} cannot stand in a field, expected printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def problem(decision: Decision) -> dict[str, Any]:
    """The members of the problem of a request that was refused. Source of type and title: section 5.1 of the draft."""
    violated = [each for each in decision.standings if each.quota.name in decision.violated]
    limits = " and ".join(f"{each.quota.limit:,} requests in {each.quota.window:,.0f} s" for each in violated)
    seen = (
        f"The limit of {limits} is used up"
        if decision.cost <= 1
        else (
            f"This request counts as {decision.cost:,}, and of the limit of {limits} "
            f"{min((each.remaining for each in violated), default=0):,} are left"
        )
    )
    hint = (
        f"Send it again in {decision.retry_after} s."
        if decision.retry_after is not None
        else "It never fits: send it in smaller parts."
    )
    return {
        "type": QUOTA_EXCEEDED,
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "code": "RATE_LIMITED",
        "detail": f"{seen}. {hint}",
        "violated-policies": list(decision.violated),
    }


def _limit(standing: Standing) -> str:
    more = f";t={math.ceil(standing.more_ms / 1000)}" if standing.more_ms else ""
    return f"{string(standing.quota.name)};r={standing.remaining}{more}"
