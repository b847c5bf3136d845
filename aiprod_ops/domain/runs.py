"""The journal's records, what they add up to, and the one next move. A run is a resume from an empty journal.

Nothing here touches the world: `kill -9` anywhere leaves a journal, and from the journal alone follows what to do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from aiprod_ops.domain.plans import canonical, digest
from aiprod_ops.errors import Broken, Exit


class State(StrEnum):
    """What became of a step."""

    PENDING = "pending"
    INTENDED = "intended"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"


class Move(Enum):
    """What a run does next."""

    ACT = "act"  #: write the intent, then do it
    SETTLE = "settle"  #: an intent has no outcome: look before anything else
    UNDO = "undo"
    COMPARE = "compare"  #: after undoing: are the facts those from before?
    VERIFY = "verify"
    SEAL = "seal"
    END = "end"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal. `seal` covers everything else, `previous` included: the records form a chain."""

    n: int
    at: str
    kind: str
    data: dict[str, Any]
    previous: str
    seal: str

    @classmethod
    def following(cls, last: "Record | None", at: str, kind: str, data: dict[str, Any]) -> "Record":
        """The next record of a chain."""
        n, previous = (last.n + 1, last.seal) if last else (1, "")
        seal = digest({"n": n, "at": at, "kind": kind, "data": data, "previous": previous})
        return cls(n, at, kind, data, previous, seal)

    @property
    def line(self) -> bytes:
        return canonical(self) + b"\n"


def read_journal(content: bytes) -> tuple[list[Record], int]:
    """Read a journal; answers its records and how many bytes of it are good.

    Only an unterminated last line is dropped: it was being written when the process died. Anything else that does
    not fit the chain raises Broken, naming the line; nothing is repaired.
    """
    good = content.rfind(b"\n") + 1
    records: list[Record] = []
    for number, line in enumerate(content[:good].splitlines(), start=1):
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise Broken(f"line {number} of the journal is not a record: {error}") from error
        expected = Record.following(records[-1] if records else None, record.at, record.kind, record.data)
        if record != expected:
            raise Broken(f"line {number} of the journal was altered: its seal does not follow from the line before")
        records.append(record)
    return records, good


@dataclass(slots=True)
class Progress:
    """What a journal adds up to."""

    steps: list[State]
    abandoned: str = ""  #: why the run undoes what it did; empty while it goes forward
    signal: int = 0  #: the signal that asked for it, if one did
    refusal: int = Exit.REFUSED  #: the exit code if it was abandoned before anything was touched
    verified: bool = False
    restored: bool | None = None
    undo_failed: bool = False
    sealed: bool = False
    ended: int | None = None

    @property
    def touched(self) -> bool:
        """Whether anything in the world may have been changed."""
        return any(state not in (State.PENDING, State.UNCHANGED) for state in self.steps)

    @property
    def exit_code(self) -> Exit:
        """The exit code of a run that has come to its end."""
        if not self.abandoned:
            return Exit.DONE
        if not self.touched:
            return Exit(128 + self.signal) if self.signal else Exit(self.refusal)
        return Exit.UNDONE if self.restored and not self.undo_failed else Exit.PARTLY


def replay(records: Sequence[Record], steps: int) -> Progress:
    """Add up a journal for a plan of so many steps."""
    progress = Progress([State.PENDING] * steps)
    for record in records:
        data = record.data
        match record.kind:
            case "intended":
                progress.steps[data["step"]] = State.INTENDED
            case "outcome":
                progress.steps[data["step"]] = State(data["state"])
                progress.undo_failed |= data["state"] == State.UNDO_FAILED
            case "undoing":
                progress.steps[data["step"]] = State.UNDOING
            case "abandoned":
                if not progress.abandoned:
                    progress.refusal = data["exit"]
                    progress.signal = data["signal"]
                progress.abandoned = progress.abandoned or data["reason"]
                progress.verified = False
            case "verified":
                progress.verified = True
            case "compared":
                progress.restored = data["equal"]
            case "sealed":
                progress.sealed = True
            case "ended":
                progress.ended = data["exit"]
    return progress


def next_move(progress: Progress) -> tuple[Move, int]:
    """The one next move, and the step it is for.

    Forward: settle what is open, act on the first pending step, then verify and seal. Once abandoned: settle nothing,
    undo last-first whatever was intended (undoing is repeatable), compare the facts, seal.
    """
    if progress.ended is not None:
        return Move.END, 0
    if progress.sealed:
        return Move.SEAL, 0
    if progress.abandoned:
        return _backward(progress)
    for step, state in enumerate(progress.steps):
        if state is State.INTENDED:
            return Move.SETTLE, step
        if state is State.PENDING:
            return Move.ACT, step
    return (Move.SEAL, 0) if progress.verified else (Move.VERIFY, 0)


def _backward(progress: Progress) -> tuple[Move, int]:
    open_states = (State.INTENDED, State.CHANGED, State.FAILED, State.UNDOING)
    for step in reversed(range(len(progress.steps))):
        if progress.steps[step] in open_states:
            return Move.UNDO, step
    if progress.touched and progress.restored is None:
        return Move.COMPARE, 0
    return Move.SEAL, 0
