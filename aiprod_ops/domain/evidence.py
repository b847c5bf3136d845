"""Evidence: one sealed record a run, each carrying the seal of the one before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiprod_ops.domain.plans import digest


@dataclass(frozen=True, slots=True)
class Sealed:
    """One record of evidence. `n` counts from 1 without gaps; `seal` is the digest of all else, `previous` included."""

    n: int
    previous: str
    body: dict[str, Any]
    seal: str

    @classmethod
    def following(cls, last: "Sealed | None", body: dict[str, Any]) -> "Sealed":
        n, previous = (last.n + 1, last.seal) if last else (1, "")
        return cls(n, previous, body, digest({"n": n, "previous": previous, "body": body}))

    @property
    def holds(self) -> bool:
        return self.seal == digest({"n": self.n, "previous": self.previous, "body": self.body})

    @property
    def run(self) -> str:
        return str(self.body.get("run", "?"))


def faults(chain: Sequence[tuple[str, Sealed | None]], head: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with a chain of evidence, naming the record; nothing when it holds.

    `chain` are (file name, record or None if it cannot be read) in order. `head` is what was written beside it when
    the last record was sealed; it may be one record behind, as after a crash between the two writes.
    """
    found: list[str] = []
    last: Sealed | None = None
    for name, record in chain:
        if record is None:
            found.append(f"{name}: cannot be read as evidence")
            continue
        if not record.holds:
            found.append(f"{name}: was altered after it was sealed")
        expected = last.n + 1 if last else 1
        if record.n != expected:
            found.append(f"{name}: is number {record.n}, expected {expected}: a record before it is gone")
        elif record.previous != (last.seal if last else ""):
            found.append(f"{name}: does not carry the seal of the record before it")
        last = record
    found.extend(_head_faults(last, head))
    return found


def _head_faults(last: Sealed | None, head: Mapping[str, Any] | None) -> list[str]:
    if last is None:
        return [f"evidence: all {head['n']} records are gone"] if head else []
    if head is None:
        return [] if last.n == 1 else ["evidence: the head mark is gone; records at the end may be missing"]
    at_head = (head["n"], head["seal"]) == (last.n, last.seal)
    one_behind = (head["n"], head["seal"]) == (last.n - 1, last.previous)
    if at_head or one_behind:
        return []
    return [f"evidence: the head mark names record {head['n']}, the last one here is {last.n}: records were removed"]
