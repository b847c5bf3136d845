"""Operations: they are answered at once, take time, and one at a time may change an instance."""

import subprocess
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import psycopg2

from aiprod_ops.errors import OpsError
from aiprod_ops.lab.cloudsql.documents import timestamp
from aiprod_ops.lab.cloudsql.faults import Fault, Faults
from aiprod_ops.lab.cloudsql.ledger import Ledger, Operation
from aiprod_ops.lab.cloudsql.refusals import in_progress
from aiprod_ops.units import Seconds

PENDING_SHARE = 0.2  #: of an operation's time
LOST = "The operation was lost: the service was restarted while it was under way."

Work = Callable[[], None]


class Operations:
    """Begins operations and runs each in a thread of its own."""

    def __init__(self, ledger: Ledger, faults: Faults, duration: Seconds, log: Path) -> None:
        self._ledger = ledger
        self._faults = faults
        self._duration = duration
        self._log = log
        self._stop = Event()
        self._threads: list[Thread] = []

    def check(self, *names: str) -> None:
        """Raises Refusal (409) while another operation changes one of these instances."""
        touched = set(names)
        for each in self._ledger.now.operations:
            if each.status != "DONE" and touched & set(each.touches):
                raise in_progress()

    def begin(
        self,
        kind: str,
        target: str,
        touches: tuple[str, ...],
        work: Work,
        *,
        failed: Work = lambda: None,
        spoil: Work = lambda: None,
        backup_id: str = "",
    ) -> Operation:
        """Write an operation down and start it; the caller holds the ledger and has checked that nobody else does.

        `work` does it and raises when it cannot; then `failed` says so in the ledger. `spoil` breaks what was made,
        when a fault asks for that.
        """
        name, now = str(uuid.uuid4()), timestamp(datetime.now(UTC))
        operation = Operation(name, kind, target, touches, now, backup_id=backup_id)
        self._ledger.put(operation)
        fault = self._faults.of_operation(kind)
        thread = Thread(target=self._run, args=(operation, work, failed, spoil, fault), daemon=True, name=kind)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return operation

    def stop(self, patience: Seconds = Seconds(60)) -> None:
        """Let what is under way come to its end, without further waiting."""
        self._stop.set()
        for thread in self._threads:
            thread.join(patience)

    def _run(self, operation: Operation, work: Work, failed: Work, spoil: Work, fault: Fault | None) -> None:
        cleared = self._faults.until_cleared()
        kind = fault.kind if fault else ""
        duration = fault.seconds if fault and kind == "slow" else self._duration
        began = time.monotonic()
        self._stop.wait(duration * PENDING_SHARE)
        operation = replace(operation, status="RUNNING", started=timestamp(datetime.now(UTC)))
        self._ledger.put(operation)
        code, error = "", ""
        if fault and kind == "fail":
            code, error = fault.code, fault.message
        else:
            error = self._attempt(work)
            if not error and kind == "broken-copy":
                error = self._attempt(spoil)
            code = "INTERNAL_ERROR" if error else ""
        if code:
            self._attempt(failed)
        while kind == "never-end" and not cleared.is_set() and not self._stop.is_set():
            cleared.wait(0.2)
        self._stop.wait(duration - (time.monotonic() - began))
        ended = timestamp(datetime.now(UTC))
        self._ledger.put(replace(operation, status="DONE", ended=ended, error_code=code, error=error))

    def _attempt(self, work: Work) -> str:
        """Do it, and answer what went wrong: whoever waits for the operation has to learn of it."""
        try:
            work()
        except (OpsError, OSError, psycopg2.Error, subprocess.SubprocessError) as error:
            return str(error).strip() or type(error).__name__
        except Exception:  # noqa: BLE001 a bug must end the operation, too, or its waiters wait for ever
            with self._log.open("a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
            return f"a bug in the emulator; see {self._log}"
        return ""


def lose(ledger: Ledger) -> None:
    """End what was under way when the emulator was killed, as an operation that Google lost."""
    now = timestamp(datetime.now(UTC))
    for each in ledger.now.operations:
        if each.status != "DONE":
            lost = replace(each, status="DONE", started=each.started or now, ended=now)
            ledger.put(replace(lost, error_code="INTERNAL_ERROR", error=LOST))
