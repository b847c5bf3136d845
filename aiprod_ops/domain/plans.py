"""A plan is data: what will be done to which target, and the digest that an approval names."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from aiprod_ops.units import Bytes, Seconds


def canonical(value: object) -> bytes:
    """The one way to write a value as JSON: keys sorted, no white space, UTF-8, no NaN.

    >>> canonical({"b": 1.0, "a": ("x", 2.5)})
    b'{"a":["x",2.5],"b":1}'

    Source: RFC 8785, JSON Canonicalization Scheme: a whole number is written without a fraction, so that what was
    read back has the digest of what was written.
    """
    plain = _whole(msgspec.to_builtins(value))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _whole(value: Any) -> Any:
    match value:
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list() | tuple():
            return [_whole(item) for item in value]
        case float() if value.is_integer() and abs(value) < 1e15:
            return int(value)
    return value


def digest(value: object) -> str:
    """SHA-256 over the canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an action is expected to take. It moves with the data, so it is shown but not part of the digest."""

    duration: Seconds
    size: Bytes = Bytes(0)


@dataclass(frozen=True, slots=True)
class Action:
    """One change: a kind that is registered (`create-index`), and the subject it is done to.

    `basis` are the stable facts it rests on (a table's definition): when they change, the digest changes.
    `undo` takes it back; where nothing can, `irreversible` says why, and beside an undo what that leaves. `lock` is the
    strongest lock it takes, in PostgreSQL's words. `timeout` bounds the action; one that ran out is unknown until
    somebody looked. `name` identifies the action within its plan (for `--without`), by default the subject as text.
    `answers` is the id of the finding that it repairs: where that is waived the action is left out.
    """

    kind: str
    subject: Any
    basis: Any = None
    undo: "Action | None" = None
    irreversible: str = ""
    lock: str = ""
    estimate: Estimate | None = None
    timeout: Seconds = Seconds(3600)
    name: str = ""
    answers: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.subject))
        if self.undo is None and not self.irreversible:
            # An undo action is itself never undone; it says so to be allowed to exist.
            object.__setattr__(self, "irreversible", "it takes another action back")

    @property
    def sealed(self) -> dict[str, Any]:
        """What the digest covers: everything but the estimates."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        plain.pop("estimate")
        plain["undo"] = self.undo.sealed if self.undo else None
        return plain


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server and database a plan is for. `system_identifier` is PostgreSQL's own (`pg_control_system`)."""

    target: str
    system_identifier: str
    database: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, to what, resting on which facts (each action's basis).

    `without` names actions that were left out: refused on the copy, or by the person who asked.
    """

    runbook: str
    source: str
    identity: Identity
    parameters: dict[str, Any]
    actions: tuple[Action, ...]
    without: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of everything an approval has to cover; estimates and moving facts are not in it."""
        plain = msgspec.to_builtins(self)
        plain["actions"] = [action.sealed for action in self.actions]
        return digest(plain)

    def excluding(self, names: Iterable[str]) -> "Plan":
        """The same plan without the named actions."""
        left_out = tuple(sorted({*self.without, *names}))
        return replace(self, actions=tuple(a for a in self.actions if a.name not in left_out), without=left_out)


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan as it is kept until somebody approves it: with the moving facts it was made from.

    An approval names the digest. After `expires` the moving facts are too old and a new plan is due. `accepted` names
    actions that were left out because a waiver accepts what they would repair, `omitted` what the runbook left out by
    itself, with the reason.
    """

    plan: Plan
    digest: str
    created: datetime
    expires: datetime
    by: str
    moving: dict[str, Any] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    omitted: dict[str, str] = field(default_factory=dict)
