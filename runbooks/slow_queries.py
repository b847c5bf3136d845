"""See which statements cost most, and which became slower.

The counters of `pg_stat_statements` only grow: a mean of weeks hides what began this morning. So each check keeps a
snapshot, and the next one shows what happened since. `--over 30s` takes two snapshots that far apart instead. The first
check of a target has nothing to compare with: it shows all since the last reset, and says so.

A statement over the objective raises the status whether an index would help or not. `add-missing-index` tells whether
one does; the others need a better statement, fewer calls, or more memory: temporary files and WAL are shown beside.
Utility statements (CREATE INDEX, VACUUM, COPY) are listed and not judged: they are long by nature.

`BREAKS` names the promises that a statement does not keep: `mean ≤ …` of one call, `load ≤ …` of a core that all its
calls together keep busy. `VS BEFORE` is the mean, as a multiple of the day before the window.

A statement is called slower when its mean is `--regression` times that of the day before the window. Run times vary up
to 2 times from run to run on a busy machine, so a mean of fewer than 20 calls says nothing, and neither does less than
2 ms: the same 2 ms by which a proof calls a statement worse. Look at the blocks of a call beside it. If they grew as
well, the plan or the data changed; if they did not, the machine was busy.

Where the counters cannot be read the server's JSON log is: only calls over `log_min_duration_statement` are in it, so
its figures are lower bounds. Values that users sent are shown with `--show-parameters` and kept nowhere.

Source: PostgreSQL manual, appendix F, "pg_stat_statements"; "Resource Consumption", `work_mem`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aiprod_ops import api
from aiprod_ops.api import (
    Context,
    Cores,
    Counters,
    Finding,
    Logged,
    Milliseconds,
    Sample,
    Seconds,
    StatementsSnapshot,
    Window,
    Workload,
)

_BY: Mapping[str, Callable[[Counters], float]] = {
    "total": lambda counters: counters.total,
    "mean": lambda counters: counters.mean,
    "calls": lambda counters: counters.calls,
    "temp": lambda counters: counters.temp,
    "wal": lambda counters: counters.wal,
}
_KEPT = "statements"
_MOST_KEPT = 500  #: 60 kB a snapshot
_LEAST_CALLS = 20
_LEAST_GROWTH = Milliseconds(2)
_LEAST_PROMISE = 1e-6  #: a promise of nothing at all (`--load 0`) is counted as this much


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    objective: Milliseconds = api.promise("database.statement_mean", least=0.001)  #: mean of one call; above it is slow
    load: Cores = api.promise("database.statement_load")  #: part of one core that one statement may keep busy
    by: str = "total"  #: what the list is sorted by: total, mean, calls, temp, wal
    top: int = 10  #: statements that are listed in any case; those over the objective always are
    over: Seconds = api.limited(Seconds(0), most=86400)  #: take two snapshots that far apart, now, and compare these
    least: Seconds = Seconds(60)  #: a check younger than this is not compared with: so short a time says little
    regression: float = api.limited(2.0, least=1)  #: mean of one call, as a multiple of what it was the day before
    show_parameters: bool = False  #: show the newest logged call of each statement with its values

    def __post_init__(self) -> None:
        if self.by not in _BY:
            raise ValueError(f"--by is {self.by!r}, expected one of {', '.join(_BY)}")


@dataclass(frozen=True)
class Facts:
    """The counters as they are, what happened since when, and what was usual before that."""

    seen: StatementsSnapshot
    window: Window
    basis: str  #: what the window is, in words
    usual: Window | None
    texts: dict[int, str]
    logged: dict[int, Logged]
    unlogged: str  #: why the log could not be read
    examples: tuple[Sample, ...]


book = api.Runbook(
    params=Params,
    symptom="The database is busy, or pages are slow, and nobody knows which statement it is",
    risk="low",
    owner="database",
    check_every="1 h",
    alerts=("SlowQueries",),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:
    """Needs `pg_monitor`, and pg_stat_statements in the database."""
    before = ctx.db.statements() if params.over else _kept(ctx, params.least)
    if params.over:
        ctx.report(f"looking for {api.show(params.over, 's')}")
        ctx.clock.sleep(params.over)
    seen = ctx.db.statements()
    if _is_unread(seen):
        return _logged(ctx, seen, params)
    window = api.delta(before, seen) if before else api.since_reset(seen)
    listed = _listed(window, params)
    usual = _usual(ctx, before) if before else None
    facts = Facts(seen, window, _basis(before, window, params), usual, ctx.db.texts(listed), {}, "", ())
    return _with_log(ctx, facts, params)


def _is_unread(seen: StatementsSnapshot) -> bool:
    return not seen.entries and bool(seen.missing)


def _kept(ctx: Context, age: float) -> StatementsSnapshot | None:
    """The newest snapshot of a former check that is at least so old, in seconds."""
    found = ctx.history.last(_KEPT, before=ctx.clock.now() - timedelta(seconds=age))
    return api.read_snapshot(found.value) if found else None


def _usual(ctx: Context, before: StatementsSnapshot) -> Window:
    """The day before the window, or all before it where no check is that old."""
    earlier = _kept(ctx, (ctx.clock.now() - before.taken + timedelta(days=1)).total_seconds())
    return api.delta(earlier, before) if earlier else api.since_reset(before)


def _basis(before: StatementsSnapshot | None, window: Window, params: Params) -> str:
    reset = f"since the counters were reset at {window.begins:%Y-%m-%d %H:%M} UTC"
    if before is None:
        return f"{reset}: no check that is {api.show(params.least, 's')} old or older is kept to compare with"
    if window.is_reset:
        return f"{reset}, or another server answers than at the last check"
    return "just now" if params.over else f"since the check at {window.begins:%Y-%m-%d %H:%M} UTC"


def _logged(ctx: Context, seen: StatementsSnapshot, params: Params) -> Facts:
    """Figures of the log, in place of the counters that cannot be read."""
    workload: Workload = ctx.db.workload()
    seen = replace(seen, missing=workload.missing)
    found = {each.query_id: Counters(each.calls, each.total, rows=each.rows or 0) for each in workload.statements}
    begins = seen.taken - timedelta(seconds=workload.window)
    window = Window(begins, seen.taken, found, frozenset(), frozenset(found), 0, is_reset=True)
    texts = {each.query_id: each.text for each in workload.statements}
    facts = Facts(seen, window, "in the server's log, where only slow calls are", None, texts, {}, "", ())
    return _with_log(ctx, facts, params)


def _with_log(ctx: Context, facts: Facts, params: Params) -> Facts:
    """The facts with what the log says of the statements that are listed."""
    listed = _listed(facts.window, params)
    examples = ctx.db.samples(listed, 1) if params.show_parameters else ()
    logged, unlogged = ctx.db.logged(listed, facts.window.begins)
    return replace(facts, logged=logged, unlogged=unlogged, examples=tuple(examples))


def _listed(window: Window, params: Params) -> list[int]:
    """Query ids of the first few, and of all that are over the objective; in order."""
    shown = {query_id: each for query_id, each in window.statements.items() if query_id != api.NOT_SHOWN}
    ranked = sorted(shown, key=lambda query_id: (-_BY[params.by](shown[query_id]), query_id))
    over = {query_id for query_id in ranked if _is_judged(window, query_id) and _over(window, query_id, params) >= 1}
    return [query_id for place, query_id in enumerate(ranked) if place < params.top or query_id in over]


def _is_judged(window: Window, query_id: int) -> bool:
    return query_id not in window.utilities


def _over(window: Window, query_id: int, params: Params) -> float:
    """How many times over what is promised, at worst."""
    return max(_promises(window, query_id, params).values())


def _promises(window: Window, query_id: int, params: Params) -> dict[str, float]:
    """Each promise in words, and how many times over it a statement is: the mean of one call, the load of all."""
    counters = window.statements[query_id]
    promised = {
        f"mean ≤ {api.show(params.objective, 'ms')}": (float(counters.mean), float(params.objective)),
        f"load ≤ {float(params.load):g}": (window.load(counters), float(params.load)),
    }
    return {promise: seen / max(most, _LEAST_PROMISE) for promise, (seen, most) in promised.items()}


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """The load, the statements that cost most, those that became slower, and what could not be seen."""
    window = facts.window
    if window.statements or not _is_unread(facts.seen):
        number, length = len(window.statements), api.show(window.seconds, "s")
        yield Finding(
            "cores kept busy", window.load(window.everything),
            note=f"{number} statements in {length}, {facts.basis}", id="load",
        )  # fmt: skip
    for query_id in _listed(window, params):
        yield _statement(facts, query_id, params)
    yield from _slower(facts, params)
    yield from _examples(facts, params)
    yield from _blind(facts, params)


def _statement(facts: Facts, query_id: int, params: Params) -> Finding:
    window = facts.window
    counters, usual = window.statements[query_id], _before(facts, query_id)
    at_least = "≥ " if query_id in window.lower else ""
    cells = {
        "statement": _text(facts, query_id),
        "calls": f"{at_least}{counters.calls:,}",
        "mean": api.show(counters.mean, "ms") if counters.calls else "–",
        **({"p95 logged": _p95(facts, query_id)} if facts.logged else {}),
        "total": at_least + api.show(counters.total, "ms"),
        "share": api.show(counters.total / max(window.everything.total, _LEAST_PROMISE), "ratio"),
        "temp": api.show(counters.temp, "B"),
        "wal": api.show(counters.wal, "B"),
        "vs before": api.show(counters.mean / usual.mean, "×") if counters.calls and usual.mean else "–",
    }
    warn, crit = (1.0, 4.0) if _is_judged(window, query_id) else (None, None)
    broken = [promise for promise, times in _promises(window, query_id, params).items() if times >= (warn or math.inf)]
    cells["breaks"] = ", ".join(broken) or "–"
    return Finding(
        "times over the objective", _over(window, query_id, params), "×", warn, crit,
        columns=cells, id=f"statement:{query_id}",
    )  # fmt: skip


def _before(facts: Facts, query_id: int) -> Counters:
    return facts.usual.statements.get(query_id, Counters()) if facts.usual else Counters()


def _p95(facts: Facts, query_id: int) -> str:
    """Of the calls that are logged: of all where log_min_duration_statement is 0, else of slow ones."""
    found = facts.logged.get(query_id)
    return api.show(found.p95, "ms") if found and found.calls else "–"


def _text(facts: Facts, query_id: int) -> str:
    return facts.texts.get(query_id, f"(its text is gone; query id {query_id})")


def _slower(facts: Facts, params: Params) -> Iterator[Finding]:
    """Statements whose mean grew by so much, and by enough to be more than noise."""
    for query_id, now in sorted(facts.window.statements.items(), key=lambda item: (-item[1].total, item[0])):
        usual = _before(facts, query_id)
        if min(now.calls, usual.calls) < _LEAST_CALLS or not _is_judged(facts.window, query_id):
            continue
        if now.mean < usual.mean * params.regression or now.mean - usual.mean < _LEAST_GROWTH:
            continue
        cells = {
            "became slower": _text(facts, query_id),
            "mean before": api.show(usual.mean, "ms"),
            "mean": api.show(now.mean, "ms"),
            "blocks a call before": f"{usual.blocks / usual.calls:,.0f}",
            "blocks a call": f"{now.blocks / now.calls:,.0f}",
            "calls": f"{now.calls:,}",
        }
        factor = now.mean / max(usual.mean, _LEAST_PROMISE)
        yield Finding(
            "times slower", factor, "×", params.regression, columns=cells, id=f"regression:{query_id}"
        )  # fmt: skip


def _examples(facts: Facts, params: Params) -> Iterator[Finding]:
    """Calls with their values, for those who asked to see them."""
    for example in facts.examples:
        values = ", ".join(f"${n} = {value}" for n, value in enumerate(example.parameters, start=1))
        yield Finding(
            "a call", example.duration_ms, "ms",
            note=f"{example.text}; {values}" if values else example.text, id=f"example:{example.query_id}",
        )  # fmt: skip
    for query_id, logged in sorted(facts.logged.items()):
        if params.show_parameters and logged.plan:
            yield Finding("a plan", float(logged.calls), "calls", note=logged.plan, id=f"plan:{query_id}")
    if params.show_parameters and not facts.examples:
        yield Finding("calls with their values", 0.0, note="none of these statements is in a log that can be read")


def _blind(facts: Facts, params: Params) -> Iterator[Finding]:
    """What is missing makes the check UNKNOWN, not OK."""
    for missing in dict.fromkeys((*facts.seen.missing, *filter(None, [facts.unlogged]))):
        yield Finding("not everything could be read", None, note=missing)
    window = facts.window
    if _is_unread(facts.seen):
        return
    if not window.seconds or window.seconds < 0.9 * (params.over or params.least):
        yield Finding(
            "window", None,
            note=f"the figures are of {api.show(window.seconds, 's')} only: check again in a minute, or look for "
            "that long: `aiprod-ops check slow-queries --over 60s`",
        )  # fmt: skip
    if window.evicted is None:
        yield Finding(
            "evictions", None,
            note="this version of pg_stat_statements tells neither resets nor evictions, so all figures are lower "
            "bounds; from PostgreSQL 14 on: `ALTER EXTENSION pg_stat_statements UPDATE;`",
        )  # fmt: skip
    elif window.evicted:
        yield Finding(
            "evictions", None,
            note=f"pg_stat_statements was full and threw statements out {window.evicted:,} times, so figures are lower "
            "bounds: `ALTER SYSTEM SET pg_stat_statements.max = 20000;` as a superuser, then restart the server",
        )  # fmt: skip


@book.keep
def keep(facts: Facts, params: Params) -> Mapping[str, Any]:  # noqa: ARG001
    """Counters only: no text of a statement and no value goes into the history."""
    return {_KEPT: facts.seen.largest(_MOST_KEPT)} if facts.seen.entries else {}
