"""What a runbook is made of: plain functions registered on one object, and the kinds of action it may plan."""

import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec

from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.backups import Origin
from aiprod_ops.domain.findings import Finding, Waiver
from aiprod_ops.domain.plans import Action, Plan
from aiprod_ops.domain.proofs import Proof
from aiprod_ops.engine.history import History
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.ports import Clock, Database, Endpoint, Platform, Restored
from aiprod_ops.units import Seconds

T = TypeVar("T")
_MOVING = "moving"

Moving = Annotated[T, _MOVING]
"""Marks a field of the facts that moves all the time (figures, ages). It is kept with the plan and never read again for
the digest; what must be fresh right before the action is a guard."""


@dataclass(frozen=True)
class Context:
    """What a runbook's functions reach the world through. `db` has the probe identity everywhere but in an action.

    `history` holds what former checks of this target kept; `replicas` are its other nodes by name, to be read only, and
    `nodes` all of them, where the configuration names each; `endpoint` is how the application finds the primary.
    `run` is the run whose effects are made or taken back, '' where nothing acts.
    Where `wants_moving` is false only the stable facts will be looked at: what is costly to count can be left empty.
    """

    db: Database
    target: Target
    platform: Platform
    clock: Clock
    promises: Promises
    report: Callable[[str], None]  #: one line of progress for people
    history: History
    replicas: Mapping[str, Database] = field(default_factory=dict)
    nodes: Mapping[str, Database] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    waivers: tuple[Waiver, ...] = ()
    run: str = ""
    wants_moving: bool = True


@dataclass(frozen=True)
class Copy:
    """A restored, disposable copy of the target. `source` reads the target itself, with the probe identity; `origin` is
    the stored backup that it was restored from, where it was."""

    db: Database
    source: Database
    restored: Restored
    context: Context
    kinds: "Mapping[str, Kind[Any]]"
    origin: Origin | None = None

    def apply(self, actions: Iterable[Action]) -> None:
        """Do the actions on the copy, exactly as they would be done on the target."""
        for action in actions:
            kind = self.kinds[action.kind]
            kind.do(self.context, kind.subject(action))


@dataclass(frozen=True)
class Measured:
    """What a drill's hook measured: figures by their names (`write_stop_ms`, `lost_writes`, `rpo_s` …), and files."""

    figures: Mapping[str, float | None]
    files: Mapping[str, bytes] = field(default_factory=dict)


class Lab(Protocol):
    """The lab, as a drill's hook reaches it."""

    def connect(self, role: str) -> AbstractContextManager[Database]:
        """A session that may write, as `aiprod_app` (the application), `aiprod_actor` or `postgres`.

        `begin` and `commit` are statements like any other; the session may be ended by others.
        """

    def work(self, rounds: int) -> None:
        """Send each of the application's statements so many times, one after the other."""

    def backup(self, label: str) -> str:
        """Take a backup of the lab into its own repository; answers its id."""

    def under_writes(self) -> AbstractContextManager[Callable[[], Measured]]:
        """Writers in other processes, which follow whoever takes writes; what it gives ends them, and tells what was
        lost and how long writes stopped. Afterwards each server has the role that it had."""

    def lose_primary(self) -> None:
        """Kill the primary with all its processes."""


Injection = Callable[[Lab, Any], AbstractContextManager[Callable[[], Measured] | None]]


@dataclass(frozen=True, slots=True)
class Amount:
    """How far an action has come: `done` of `total` in words of `phase`; a total of 0 means nobody knows."""

    phase: str
    done: float
    total: float


class Kind(Generic[T]):
    """A kind of action: how it is done to a subject, how one sees that it is done, and how it is shown.

    `do` acts and returns when the change is to be seen; `done` looks, and answers True, False, or None when nobody can
    tell. `shows` is what a dry run prints, usually the SQL. `amount` tells progress while it runs; `report` in words
    what came of it, done or undone, where the action's name does not. Calling the kind with a subject plans an action:
    `terminate(session, irreversible="…")`.
    """

    def __init__(self, name: str, subject: type[T]) -> None:
        self.name = name
        self.type = subject
        self.do: Callable[[Context, T], None]
        self.done: Callable[[Context, T], bool | None]
        self.text: Callable[[T], str] = str
        self.check: Callable[[Context, T], None] = lambda _context, _subject: None
        self.amount: Callable[[Context, T], Amount | None] = lambda _context, _subject: None
        self.report: Callable[[Context, T], str] = lambda _context, _subject: ""

    def does(self, function: Callable[[Context, T], None]) -> Callable[[Context, T], None]:
        self.do = function
        return function

    def is_done(self, function: Callable[[Context, T], bool | None]) -> Callable[[Context, T], bool | None]:
        self.done = function
        return function

    def needs(self, function: Callable[[Context, T], None]) -> Callable[[Context, T], None]:
        """Looks with the actor's session before anything is done; raises PermissionMissing with the SQL that helps."""
        self.check = function
        return function

    def shows(self, function: Callable[[T], str]) -> Callable[[T], str]:
        self.text = function
        return function

    def progress(self, function: Callable[[Context, T], Amount | None]) -> Callable[[Context, T], Amount | None]:
        self.amount = function
        return function

    def reports(self, function: Callable[[Context, T], str]) -> Callable[[Context, T], str]:
        self.report = function
        return function

    def __call__(self, subject: T, **details: Any) -> Action:
        """An action of this kind; `details` are those of Action (basis, undo, irreversible, lock, estimate, …)."""
        return Action(self.name, subject, **details)

    def subject(self, action: Action) -> T:
        """The action's subject as its type, also when the plan was read back from JSON."""
        if isinstance(action.subject, self.type):
            return action.subject
        return msgspec.convert(action.subject, self.type)


@dataclass(frozen=True)
class NoParams:
    """For runbooks without parameters."""


def promise(path: str, *, least: float | None = None, most: float | None = None) -> Any:
    """Default of a parameter, taken from `service.toml`: `limit: Milliseconds = promise("database.statement_mean")`.

    What is read, there or from the command line, may be no smaller than `least` and no larger than `most`.
    """
    return field(default=None, metadata={"promise": path, "least": least, "most": most})


def limited(default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A parameter that may not be set to every value of its type: `regression: float = limited(2.0, least=1)`."""
    return field(default=default, metadata={"least": least, "most": most})


Findings = Iterable[Finding]


class Runbook:
    """One procedure. The module's docstring is its page, `params` its options, the functions its phases.

    `risk` is low, moderate or severe; severe asks for the target's name as a confirmation. `settle` is how long the
    verification must hold. `check_every`, `prove_every` (of one that examines), `run_every` (where a standing approval
    lets it act) and `drill_every` are schedules, `alerts` the alerts that lead here, `drill_with` the parameters of a
    drill (a limit of 5 minutes cannot be waited for). `examines` says that its proof tells something of the copy even
    where nothing is planned. `on_evidence` says that its check judges sealed evidence: without any it tells nothing, or
    raises a false alarm. `on_backups` says that it reads or writes stored backups: no container has those of a folder.
    `exports` are findings by their metric ("data age") whose largest value monitoring gets, one sample each; the
    metric's name follows from it and from the unit. `without_primary` is for a runbook that has to work where the
    target itself is lost: who it is, is then asked of its other nodes.
    """

    def __init__(
        self,
        *,
        symptom: str,
        owner: str,
        risk: str = "moderate",
        params: type = NoParams,
        actions: Iterable[Kind[Any]] = (),
        settle: Seconds = Seconds(0),
        check_every: str = "",
        prove_every: str = "",
        run_every: str = "",
        drill_every: str = "",
        drill_with: Mapping[str, str] | None = None,
        alerts: tuple[str, ...] = (),
        examines: bool = False,
        on_evidence: bool = False,
        on_backups: bool = False,
        exports: tuple[str, ...] = (),
        without_primary: bool = False,
    ) -> None:
        if risk not in ("low", "moderate", "severe"):
            raise ConfigurationError(f"risk is {risk!r}, expected low, moderate or severe")
        self.symptom, self.owner, self.risk, self.params = symptom, owner, risk, params
        self.kinds = {kind.name: kind for kind in actions}
        self._examines, self.on_evidence, self.on_backups = examines, on_evidence, on_backups
        self.settle, self.alerts = settle, alerts
        self.check_every, self.prove_every, self.run_every, self.drill_every = (
            check_every, prove_every, run_every, drill_every,
        )  # fmt: skip
        self.drill_with = dict(drill_with or {})
        self.exports = exports
        self.without_primary = without_primary
        self.phases: dict[str, Callable[..., Any]] = {}
        self.facts_type: type = dict

    @property
    def examines(self) -> bool:
        """Whether its proof tells something where nothing is planned: so it said, or it never plans anything."""
        return self._examines or ("prove" in self.phases and "plan" not in self.phases)

    def _register(self, phase: str, function: Callable[..., T]) -> Callable[..., T]:
        if phase in self.phases:
            raise ConfigurationError(f"the runbook registers {phase} twice")
        self.phases[phase] = function
        return function

    def facts(self, function: Callable[[Context, Any], T]) -> Callable[[Context, Any], T]:
        """Reads, with the probe identity; returns a frozen dataclass whose changing fields are marked `Moving`."""
        self.facts_type = typing.get_type_hints(function, include_extras=True)["return"]
        return self._register("facts", function)

    def judge(self, function: Callable[[Any, Any], Findings]) -> Callable[[Any, Any], Findings]:
        """Pure: findings from facts."""
        return self._register("judge", function)

    def keep(self, function: Callable[[Any, Any], Mapping[str, Any]]) -> Callable[[Any, Any], Mapping[str, Any]]:
        """Optional, pure: what of the facts the next checks need to know, by name (`Context.history`)."""
        return self._register("keep", function)

    def plan(self, function: Callable[[Any, Any], Iterable[Action]]) -> Callable[[Any, Any], Iterable[Action]]:
        """Pure: actions from facts. The same facts must give the same actions, in the same order."""
        return self._register("plan", function)

    def bears(self, function: Callable[[Plan, Plan, Any], bool]) -> Callable[[Plan, Plan, Any], bool]:
        """Optional, pure: whether an approved plan may be applied though by now another one follows from the facts:
        only for actions that leave alone by themselves whatever is not as it was planned. Without it the plan is stale.
        """
        return self._register("bears", function)

    def omits(self, function: Callable[[Any, Any], Mapping[str, str]]) -> Callable[[Any, Any], Mapping[str, str]]:
        """Optional, pure: what the plan leaves out by itself though something speaks for it, by name, with the reason.
        People see it beside the plan; it is no part of what is approved."""
        return self._register("omits", function)

    def origin(
        self, function: Callable[[Context, Any], AbstractContextManager[Origin]]
    ) -> Callable[[Context, Any], AbstractContextManager[Origin]]:
        """Optional, reads: which stored backup the copy is restored from. Without it, it is made of the target itself.

        A context manager, so that something can be read from the source meanwhile: what it yields is `Copy.origin`. A
        backup that cannot be restored is then what the proof tells, not a reason for having none.
        """
        return self._register("origin", function)

    def prove(self, function: Callable[[Copy, Plan, Any], Proof]) -> Callable[[Copy, Plan, Any], Proof]:
        """Optional: applies the plan to a disposable copy and measures before and after. Where nothing is planned it
        examines the copy."""
        return self._register("prove", function)

    def guard(self, function: Callable[[Context, Plan, Any], Findings]) -> Callable[[Context, Plan, Any], Findings]:
        """Optional: read again right before acting; anything CRITICAL or UNKNOWN refuses, and nothing was changed."""
        return self._register("guard", function)

    def watch(self, function: Callable[[Context, Plan, Any], Findings]) -> Callable[[Context, Plan, Any], Findings]:
        """Optional: invariants, read every second while acting; anything CRITICAL stops the action and undoes."""
        return self._register("watch", function)

    def verify(self, function: Callable[[Context, Plan, Any], Findings]) -> Callable[[Context, Plan, Any], Findings]:
        """Reads; anything CRITICAL or UNKNOWN undoes the run. Must hold for `settle` seconds."""
        return self._register("verify", function)

    def files(self, function: Callable[[Plan, Any], Mapping[str, str]]) -> Callable[[Plan, Any], Mapping[str, str]]:
        """Optional, pure: files that belong to a verified run (a migration), by name."""
        return self._register("files", function)

    def inject(self, function: Injection) -> Injection:
        """Optional: a context manager over a lab that provokes the problem, for drills; it leaves the lab as it was.
        It may give a function that tells what was measured, which is called when the run has ended."""
        return self._register("inject", function)

    def check_complete(self) -> None:
        """Raises ConfigurationError naming what is missing."""
        missing = [phase for phase in ("facts", "judge") if phase not in self.phases]
        if "plan" in self.phases and "verify" not in self.phases:
            missing.append("verify")
        if missing:
            raise ConfigurationError(f"the runbook has no {' and no '.join(missing)} function")
        if self.prove_every and not self.examines:
            raise ConfigurationError("prove_every is for a runbook that examines a copy: others prove what they plan")
        if self.run_every and ("plan" not in self.phases or self.risk == "severe"):
            raise ConfigurationError("run_every is for a runbook that plans, and never for a severe one")
        for kind in self.kinds.values():
            if not hasattr(kind, "do") or not hasattr(kind, "done"):
                raise ConfigurationError(f"action {kind.name!r} needs both @does and @is_done")

    def split(self, facts: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Facts as plain data: (stable, moving)."""
        hints = typing.get_type_hints(self.facts_type, include_extras=True)
        moving = {name for name, hint in hints.items() if _MOVING in getattr(hint, "__metadata__", ())}
        plain: dict[str, Any] = msgspec.to_builtins(facts)
        return (
            {name: value for name, value in plain.items() if name not in moving},
            {name: value for name, value in plain.items() if name in moving},
        )

    def join(self, stable: Mapping[str, Any], moving: Mapping[str, Any]) -> Any:
        """Facts again, from plain data."""
        return msgspec.convert({**stable, **moving}, self.facts_type)
