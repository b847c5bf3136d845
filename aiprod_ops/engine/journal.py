"""The journal of one run: written and made durable before and after each act."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiprod_ops.domain.runs import Record, read_journal
from aiprod_ops.errors import Broken, UsageError
from aiprod_ops.ports import Clock, Store


class Journal:
    """An append-only chain of records in the store. Reading one changes nothing: another process may be writing it."""

    def __init__(self, store: Store, clock: Clock, run: str) -> None:
        self._store, self._clock, self.run = store, clock, run
        self.records, _ = read_journal(store.get(self.name) or b"")

    def recover(self) -> None:
        """Read it again and drop an unterminated last line; only for the holder of the run's lease."""
        content = self._store.get(self.name) or b""
        self.records, good = read_journal(content)
        if good < len(content):
            self._store.truncate(self.name, good)

    @classmethod
    def of(cls, store: Store, clock: Clock, run: str) -> "Journal":
        """The journal of a run that exists; raises UsageError when there is none."""
        journal = cls(store, clock, run)
        if not journal.records:
            raise UsageError(f"there is no run {run!r}", hint="aiprod-ops runs list")
        return journal

    @property
    def name(self) -> str:
        return f"runs/{self.run}/journal.jsonl"

    @property
    def opening(self) -> dict[str, Any]:
        """What the first record says: runbook, target, digest, by whom and why."""
        return self.records[0].data

    @property
    def ended(self) -> int | None:
        """The exit code the run ended with; None while it is unfinished."""
        return next((int(record.data["exit"]) for record in self.records if record.kind == "ended"), None)

    @property
    def open_operations(self) -> list[str]:
        """The platform's operations that were begun, and of which nobody saw the end; oldest first."""
        ended = {record.data["operation"] for record in self.records if record.kind == "operation-ended"}
        begun = [record.data["operation"] for record in self.records if record.kind == "operation"]
        return [name for name in begun if name not in ended]

    def write(self, kind: str, /, **data: Any) -> None:
        """Append one record; durable when this returns. Raises OSError when it cannot be made so."""
        record = Record.following(self.records[-1] if self.records else None, self._clock.now().isoformat(), kind, data)
        self._store.append(self.name, record.line)
        self.records.append(record)


class OperationLog:
    """Writes the platform's operations to the journal that is open; outside of one they are not kept."""

    def __init__(self) -> None:
        self._journal: Journal | None = None

    @contextmanager
    def kept_in(self, journal: Journal) -> Iterator[None]:
        """While this lasts, they are written there."""
        self._journal = journal
        try:
            yield
        finally:
            self._journal = None

    def begun(self, what: str, operation: str) -> None:
        if self._journal is not None:
            self._journal.write("operation", what=what, operation=operation)

    def ended(self, operation: str) -> None:
        if self._journal is not None:
            self._journal.write("operation-ended", operation=operation)


def runs(store: Store) -> list[str]:
    """Ids of all runs, oldest first."""
    return sorted({name.split("/")[1] for name in store.names("runs/") if name.endswith("journal.jsonl")})


def unfinished(store: Store, clock: Clock, system_identifier: str) -> list[Journal]:
    """Runs and proofs of an instance that wait for `resume`, oldest first. One that cannot be read is named by
    `runs list`."""
    found: list[Journal] = []
    for name in runs(store):
        with suppress(Broken):
            found.append(Journal(store, clock, name))
    waiting = (journal for journal in found if journal.records and journal.ended is None)
    return [each for each in waiting if each.opening["target"]["system_identifier"] == system_identifier]
