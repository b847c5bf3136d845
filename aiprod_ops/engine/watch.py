"""Watching an action while it runs: invariants, its time-out, the wish to stop. A breach cancels it."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.plans import Action, Plan
from aiprod_ops.engine.runbook import Amount, Runbook
from aiprod_ops.engine.world import World
from aiprod_ops.errors import OpsError
from aiprod_ops.ports import Database

_INTERVAL = 1.0  # seconds; replication lag and blocked writers are seen within two of these
_BLIND = 5  # readings in a row that may fail before acting without sight counts as a breach


class Watch:
    """A thread beside one action.

    After it, `reason` says why the action was cancelled, if it was, and `worst` the worst value of each invariant.
    """

    def __init__(self, world: World, book: Runbook, plan: Plan, params: Any, action: Action, actor: Database) -> None:
        self._world, self._book, self._plan, self._params = world, book, plan, params
        self._action, self._actor = action, actor
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._failures = 0
        self.reason = ""
        self.timed_out = False
        self.worst: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        clock = self._world.context.clock
        started = clock.monotonic()
        eyes = self._world.open_probe()
        try:
            while not self._over.wait(_INTERVAL if clock.monotonic() - started > _INTERVAL else 0.1):
                self.reason = self.reason or self._look(eyes, clock.monotonic() - started)
                if self.reason:
                    # Again and again until the action is over: a cancel that came between two statements is lost.
                    self._cancel()
        finally:
            eyes.close()
            if not self._over.is_set():  # a bug in a runbook's watch: nobody acts unwatched
                self.reason = self.reason or "the watch over the action broke down"
                self._cancel()

    def _cancel(self) -> None:
        with suppress(OpsError):  # no contact: then the action itself learns it
            self._actor.cancel()

    def _look(self, eyes: Database, elapsed: float) -> str:
        if self._world.stop.signal:
            return f"asked to stop (signal {self._world.stop.signal})"
        if elapsed > self._action.timeout:
            self.timed_out = True
            return f"{self._action.name} took longer than its time-out of {self._action.timeout:.0f} s"
        try:
            return self._read(eyes)
        except OpsError as error:
            self._failures += 1
            return f"the invariants cannot be read: {error.message}" if self._failures >= _BLIND else ""

    def _read(self, eyes: Database) -> str:
        context = self._world.acting(eyes)
        kind = self._book.kinds[self._action.kind]
        amount = kind.amount(context, kind.subject(self._action))
        if amount is not None:
            context.report(_words(amount))
        findings: list[Finding] = []
        if "watch" in self._book.phases:
            findings = list(self._book.phases["watch"](context, self._plan, self._params))
        self._failures = 0
        for finding in findings:
            if finding.value is not None and finding.value >= self.worst.get(finding.metric, (float("-inf"), ""))[0]:
                self.worst[finding.metric] = (finding.value, finding.unit)
        breach = [finding for finding in findings if finding.status is Status.CRITICAL]
        return "; ".join(f"{f.metric} is {f.shown}{f' ({f.note})' if f.note else ''}" for f in breach)


def _words(amount: Amount) -> str:
    if amount.total <= 0:
        return amount.phase
    return f"{amount.phase}: {100 * amount.done / amount.total:.0f} %"
