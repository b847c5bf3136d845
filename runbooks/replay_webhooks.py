"""Send failed deliveries of webhooks again, once their endpoints take them.

A delivery that has used up its attempts has failed: its event is kept, and nobody sends it any more. This is for
afterwards, when a receiver was down, or our own network was. It makes the deliveries due again, so many a second, and
the workers send them as they send any other: signed anew, with the id that the receiver knows them by, and with the
attempts of a new one. What was delivered is not sent again, unless `--delivered` asks for it.

The plan names each delivery, oldest first, in three waves: one of each endpoint, a tenth, the rest. A wave waits until
its deliveries were sent, and until they have ended, or `--patience` has passed. Of an endpoint that takes less than
`--success` of what it was sent, no more is sent, and the others go on; where all of them fail again the run stops, and
what was not sent is put back as it had ended. So is everything when nobody sends: that ends with 20.

A wave is one action that holds the ids of its deliveries. A selection by time and endpoint would be shorter, but what
it selects changes while others replay, end and remove deliveries; with the ids the plan stays what its digest says. An
id takes 39 bytes, twice for the undo, so one plan has `--most` of them; the next run takes the rest.

No other runbook acts on the instance meanwhile. Ctrl-C stops it, and what was not sent is put back.

Each statement touches a delivery only as it was planned: one that somebody else replayed meanwhile, or that was sent
before this was killed, is left alone. Nothing is sent twice because a run was resumed. So is a delivery that
moved between the plan and the run: the others are sent.

To an endpoint that is disabled nothing is sent. One that failed is probed, after a minute, later every six hours, and
is enabled when it takes the probe; its owner enables any (`POST /api/v1/webhooks/ID/enable`), we do not. What was on
its way to it when it was disabled waits until then; what came since has failed, and is sent again by the next plan.
The share of deliveries that failed is of endpoints that are enabled or failed: not of those that answered 410, nor of
those that their owners disabled.

Of a URL only the host is read and shown, and of an event its type: neither payloads nor secrets.

Source: Standard Webhooks, "Delivery"; Google, "Site Reliability Workbook", "Canarying Releases".
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiprod_ops import api
from aiprod_ops.api import Backlog, Context, Ended, Estimate, Finding, Lab, Moving, Plan, Ratio, Seconds

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CRITICAL_BACKLOG, _CRITICAL_FAILED = 5, 10  #: times what is promised
_TOLD = 10  #: endpoints that stand in a table
_BY_OWNER = "its owner enables it (POST /api/v1/webhooks/ID/enable)"
#: By why an endpoint is disabled: who enables it.
_ENABLES = {
    "failing": f"it is disabled for failing; {_BY_OWNER}, or the next probe that it takes does",
    "gone": f"it answered 410; {_BY_OWNER}",
    "owner": f"its owner disabled it; {_BY_OWNER}",
}


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    since: Seconds = Seconds(86_400)  #: deliveries that came into being so long ago at most
    endpoint: str = ""  #: of this endpoint alone: its id, or its host
    event: str = ""  #: of this type of event alone, or of this one event
    delivered: bool = False  #: also what was delivered
    most: int = api.limited(10_000, least=1, most=100_000)  #: deliveries in one run, oldest first
    rate: float = api.promise("webhooks.replay_rate", least=0.01)  #: deliveries made due in a second
    success: Ratio = api.promise("webhooks.replay_success")  #: share of what was sent that an endpoint has to take
    patience: Seconds = api.limited(Seconds(60), least=1)  #: so long due and not sent: nobody sends
    backlog: Seconds = api.promise("webhooks.backlog")  #: so long a delivery that is due may wait
    failed: Ratio = api.promise("webhooks.failed")  #: share of deliveries that may fail

    def __post_init__(self) -> None:
        if self.event and self.event not in api.WEBHOOK_EVENTS and not _ID.fullmatch(self.event):
            raise ValueError(
                f"--event is {self.event}: expected the id of an event, or {', '.join(api.WEBHOOK_EVENTS)}"
            )


@dataclass(frozen=True)
class Facts:
    """What has ended stays; what waits moves."""

    is_there: bool
    is_endpoint_known: bool
    is_event_known: bool
    ended: tuple[Ended, ...]
    moment: Moving[datetime]
    backlog: Moving[Backlog]
    disabled: Moving[tuple[api.DisabledEndpoint, ...]]


book = api.Runbook(
    params=Params,
    symptom="Customers miss webhooks; deliveries have failed, and their endpoints are back",
    risk="moderate",
    owner="api",
    check_every="5 min",
    alerts=("WebhooksFailed",),
    actions=(api.replay_wave, api.take_back),
    exports=("oldest delivery that is due",),
    drill_with={"patience": "20s", "rate": "200", "endpoint": api.REHEARSAL_HOST},
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs to read the tables of webhooks, but for their secrets."""
    now = ctx.clock.now()
    nothing = Backlog(0, 0, 0, Seconds(0), "", 0, 0, None)
    if not api.has_webhooks(ctx.db):
        return Facts(False, True, True, (), now, nothing, ())
    since = now - timedelta(seconds=params.since)
    states = ("failed", "delivered") if params.delivered else ("failed",)
    # What was young enough when it was planned has to be seen again when it is applied, hours later.
    seen = api.ended_deliveries(
        ctx.db, since - api.approval_time(ctx.promises), states, endpoint=params.endpoint, event=params.event
    )
    return Facts(
        is_there=True,
        is_endpoint_known=not params.endpoint or api.knows_endpoint(ctx.db, params.endpoint),
        is_event_known=not _ID.fullmatch(params.event) or api.knows_event(ctx.db, params.event),
        ended=seen,
        moment=api.moment_of(ctx.db),
        backlog=api.webhook_backlog(ctx.db, since, endpoint=params.endpoint, event=params.event)
        if ctx.wants_moving
        else nothing,
        disabled=api.disabled_endpoints(ctx.db, since) if ctx.wants_moving else (),
    )


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """What waits, what failed, who is sent nothing; then a row for each endpoint with failed deliveries, most first."""
    if not facts.is_there:
        yield Finding("webhooks", None, note="this schema has none: their migration is missing (alembic upgrade head)")
        return
    if not facts.is_endpoint_known:
        yield Finding(f"no endpoint {params.endpoint}", 1.0, "", crit=1, note="its id, or its host", id="endpoint")
    if not facts.is_event_known:
        yield Finding(f"no event {params.event}", 1.0, "", crit=1, note="its id, or its type", id="event")
    yield _oldest(facts.backlog, params)
    failed = [each for each in _recent(facts, params) if each.state == "failed"]
    counted = [each for each in failed if each.counts]
    told = f"; {api.by_why(counted)}; {api.by_age(counted, facts.moment)}" if counted else ""
    waits = facts.backlog
    share = Finding(
        "share of deliveries that failed", float(waits.failing), "ratio", params.failed,
        min(1.0, _CRITICAL_FAILED * params.failed),
        f"{waits.failed:,} of {waits.failed + waits.delivered:,} in {api.show(params.since, 's')}{told}", id="failed",
    )  # fmt: skip
    yield share
    ready = sum(each.is_enabled for each in failed)
    note = "aiprod-ops plan replay-webhooks" if ready else ""
    yield Finding("failed deliveries that can be sent again", float(ready), "", note=note, id="ready")
    note = "sent when their endpoint is enabled, if that is within their 30 days" if waits.held else ""
    yield Finding("deliveries that wait for disabled endpoints", float(waits.held), "", note=note, id="held")
    note = "; ".join(map(str, facts.disabled[:_TOLD]))
    yield Finding("endpoints disabled for failing", float(len(facts.disabled)), "", warn=1, note=note, id="disabled")
    counts = Counter(each.endpoint for each in failed)
    for endpoint, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TOLD]:
        its = [each for each in failed if each.endpoint == endpoint]
        cells = {
            "host": its[0].host,
            "endpoint": endpoint,
            "failed": f"{count:,}",
            "why": api.by_why(its),
            "oldest": f"{its[0].created_at:%Y-%m-%d %H:%M} UTC",
            "state": f"disabled: {its[0].disabled}" if its[0].disabled else "enabled",
        }
        warn = 1 if share.judged is not api.Status.OK else None  # as many as may fail are no fault of an endpoint's
        yield Finding("failed deliveries", float(count), "", warn, columns=cells, id=f"endpoint:{endpoint}")


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[api.Action]:
    """The waves; nothing where nothing failed. Raises UsageError for an endpoint or an event that nobody
    knows."""
    if not facts.is_there:
        raise api.Refused("this schema has no webhooks", hint="their migration is missing: alembic upgrade head")
    if not facts.is_endpoint_known:
        raise api.UsageError(f"there is no endpoint {params.endpoint}", hint="--endpoint takes its id, or its host")
    if not facts.is_event_known:
        raise api.UsageError(f"there is no event {params.event}", hint="--event takes its id (webhook-id), or its type")
    chosen = api.chosen_deliveries(facts.ended, facts.moment, params.since)[: params.most]
    for wave in api.replay_waves(chosen, facts.moment, params.rate, params.patience, params.success):
        yield api.replay_wave(
            wave,
            undo=api.take_back(api.Unsent.of(wave)),
            irreversible="what was sent cannot be taken back: the receiver has it",
            lock="ROW EXCLUSIVE",
            estimate=Estimate(wave.lasts),
            timeout=api.LONGEST,
        )


@book.bears
def bears(plan: Plan, now: Plan, params: Params) -> bool:  # noqa: ARG001
    """While something of it is still as it was planned: each statement leaves alone what has moved."""
    planned, left = ({each for wave in _waves(one) for each in wave.deliveries} for one in (plan, now))
    return bool(planned & left)


@book.omits
def omits(facts: Facts, params: Params) -> dict[str, str]:
    """What is more than one run takes, and what belongs to endpoints that are disabled."""
    more = len(api.chosen_deliveries(facts.ended, facts.moment, params.since)) - params.most
    left = {f"{more:,} more deliveries": f"one run takes {params.most:,} (--most); plan again afterwards"}
    idle: dict[str, list[Ended]] = {}
    for each in _recent(facts, params):
        if not each.is_enabled:
            idle.setdefault(f"{each.host} ({each.endpoint})", []).append(each)
    return (left if more > 0 else {}) | {
        name: f"{len(its):,} deliveries: {_ENABLES.get(its[0].disabled, _ENABLES['owner'])}; then plan again"
        for name, its in sorted(idle.items())
    }


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again before each wave: some endpoint takes what it was sent, and somebody sends."""
    yield _refusing(api.replayed(ctx.db, _waves(plan)), params.success, 1)
    since = ctx.clock.now() - timedelta(seconds=params.since)
    yield _oldest(api.webhook_backlog(ctx.db, since), params)


@book.watch
def watch(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """While a wave is under way: some endpoint takes what it is sent."""
    yield _refusing(api.replayed(ctx.db, _waves(plan)), params.success, api.LEAST_SENT)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """What became of them, in all and of each endpoint."""
    became = api.replayed(ctx.db, _waves(plan))
    planned = sum(len(wave.deliveries) for wave in _waves(plan))
    sent, delivered = sum(each.sent for each in became), sum(each.delivered for each in became)
    lost = 1 - delivered / sent if sent else 0.0
    note = f"{planned:,} planned, {api.replayed_words(became)}"
    crit = 1 - params.success + 1e-9 if params.success > 0 else None
    yield Finding("share of what was sent again that is not delivered", lost, "ratio", None, crit, note, id="failed")
    waits = sum(each.unsent for each in became)
    yield Finding("planned deliveries that wait to be sent", float(waits), "", crit=1, id="unsent")
    left = planned - sent - waits
    held = api.refusing(became, params.success)
    again = "; when they take what they are sent: aiprod-ops plan replay-webhooks"
    note = f"failing again: {', '.join(each.host for each in held)}{again}" if held else ""
    yield Finding("planned deliveries that were not sent", float(left), "", warn=1, note=note, id="left")
    for each in became:
        told = f"{each.host}: {each.planned:,} planned, {api.replayed_words([each])}"
        yield Finding("sent again", float(each.sent), "", note=told, id=f"endpoint:{each.endpoint}")


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """Two endpoints whose deliveries failed and that are back. Only theirs are planned; what waits is marked as sent,
    and nothing leaves the machine. Needs a lab with the tables of webhooks: `lab up --revision head`."""
    with api.failed_deliveries(lab):
        yield


def _oldest(waits: Backlog, params: Params) -> Finding:
    """It is critical where nobody sends: one customer who is slow lets his own deliveries wait, and no others."""
    limit = Seconds(_CRITICAL_BACKLOG * params.backlog)
    note = f"{waits.waiting:,} wait, {waits.due:,} of them are due, {waits.taken:,} are being sent"
    note += f"; the oldest goes to {waits.host}" if waits.host else ""
    is_still = waits.is_still(limit)
    note += "; nobody sends: does a worker run? aiprod-ops worker" if is_still else ""
    crit = limit if is_still else None
    return Finding("oldest delivery that is due", float(waits.oldest), "s", params.backlog, crit, note, id="backlog")


def _recent(facts: Facts, params: Params) -> list[Ended]:
    first = facts.moment - timedelta(seconds=params.since)
    return [each for each in facts.ended if each.created_at > first]


def _waves(plan: Plan) -> list[api.Wave]:
    return [api.replay_wave.subject(action) for action in plan.actions if action.kind == api.replay_wave.name]


def _refusing(became: tuple[api.Replayed, ...], success: Ratio, least: int) -> Finding:
    """All of them is critical: one that fails is left out of the next wave."""
    failing = api.refusing(became, success, least)
    told = (f"{each.host} took {each.delivered:,} of {each.sent:,}" for each in failing)
    note = "; ".join([*told, *(["mend the receiver, then: aiprod-ops plan replay-webhooks"] if failing else [])])
    return Finding(
        "endpoints that fail again", float(len(failing)), "", crit=max(1, len(became)), note=note, id="failing"
    )
