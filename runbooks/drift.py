"""Is the instance still what was promised?

This asks Google's Admin API how the instance and each of its replicas are set up, and holds that against [cloudsql] and
[backups] in `service.toml`, from which Terraform made them: version, edition, tier, region, availability, growing disk,
backups and how many are kept, point-in-time recovery, flags, query insights, maintenance window, deletion protection,
addresses and TLS; which replicas are there, and which one a disaster promotes. A setting that somebody changed by hand
is a WARNING, CRITICAL where data may be lost by it or a stranger let in. What the API does not tell is UNKNOWN.

Elsewhere than on Cloud SQL nobody tells most of that. There the flags are read from the server, the replicas that
stream now are counted, and what was left out is named.

It needs to read the API (`roles/cloudsql.viewer`), and there not the database. To put things right: `terraform apply`
with what `schedule render --format terraform` writes, or another promise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aiprod_ops import api
from aiprod_ops.api import Context, Finding, Moving, Setups


@dataclass(frozen=True)
class Facts:
    """What is promised, and what the platform reports; where it reports nothing, what the server says itself.
    `streaming` counts the replicas; None where no primary answers."""

    promised: Setups
    told: Moving[Setups | None]
    flags: Moving[Mapping[str, str]]
    streaming: Moving[int | None]
    unread: Moving[str] = ""  #: why no primary answers


book = api.Runbook(
    symptom="Somebody has changed the instance by hand",
    risk="low",
    owner="database",
    check_every="1 h",
    alerts=("InstanceDrifted",),
)


@book.facts
def facts(ctx: Context, params: api.NoParams) -> Facts:  # noqa: ARG001
    """Needs to read the platform's API; elsewhere than on Cloud SQL pg_monitor."""
    told = ctx.platform.setups()
    promised = api.instance_promise(ctx.promises, told.name if told else ctx.target.name)
    if told is not None:
        return Facts(promised, told, {}, None)
    seen = api.topology(ctx)
    streaming = sum(each.state == "streaming" for each in seen.senders) if seen.primary else None
    unread = "" if seen.primary else "; ".join(seen.silent.values())
    return Facts(promised, None, api.settings_of(ctx.db, list(promised.main.flags or ())), streaming, unread)


@book.judge
def judge(facts: Facts, params: api.NoParams) -> Iterator[Finding]:  # noqa: ARG001
    """Each setting that is promised, then the replicas."""
    if facts.told is not None:
        yield from api.instance_drift(facts.promised, facts.told)
        return
    name, flags = facts.promised.name, facts.promised.main.flags or {}
    yield from api.instance_flags(name, flags, facts.flags, all_told=False)
    yield from _counted(len(facts.promised.replicas), facts.streaming, facts.unread)
    left_out = ", ".join(words for words, _ in api.SETTINGS.values())
    note = f"only flags and replicas: nobody tells {left_out} here, so they were not looked at"
    yield Finding("settings compared", float(len(flags)), "", note=note, id="compared")


def _counted(promised: int, streaming: int | None, unread: str) -> Iterator[Finding]:
    """Without the platform's names a replica is one that streams."""
    note = f"no primary answers: {unread}" if streaming is None else f"{streaming} stream, {promised} are promised"
    missing = None if streaming is None else float(max(0, promised - streaming))
    extra = None if streaming is None else float(max(0, streaming - promised))
    yield Finding("replicas missing", missing, "", crit=1, note=note if missing != 0 else "", id="missing")
    yield Finding("replicas not promised", extra, "", 1, None, note if extra != 0 else "", id="extra")
