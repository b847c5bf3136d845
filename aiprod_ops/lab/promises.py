"""What a promise is, and how it is held against a runbook."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from subprocess import TimeoutExpired

from aiprod_ops.errors import OpsError
from aiprod_ops.lab.bench import Bench, NotKept


class Verdict(StrEnum):
    """What became of a promise."""

    HOLDS = "holds"
    BROKEN = "does not hold"
    NOT_APPLICABLE = "not applicable"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that every runbook promises. `check` answers what was seen, or raises NotKept."""

    id: str
    check: Callable[[Bench], str]
    needs_problem: bool = True  #: a plan is needed, and there is none before the problem is there
    needs_plan: bool = True  #: it is about changes, so a runbook that only checks has nothing to do with it

    @property
    def text(self) -> str:
        """The promise in one sentence: the first line of the check's docstring."""
        return (self.check.__doc__ or "").strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Result:
    """A promise, what became of it, and what was seen."""

    promise: str
    text: str
    verdict: Verdict
    seen: str


class NotApplicable(Exception):
    """The promise has no meaning for this runbook; the text says why."""


def hold(bench: Bench, promise: Promise) -> Result:
    """Hold one promise against the runbook on the bench."""
    phases = bench.entry.book.phases
    try:
        if promise.needs_plan and "plan" not in phases:
            raise NotApplicable("it only checks")
        if promise.needs_problem and "plan" in phases and "inject" not in phases:
            return Result(promise.id, promise.text, Verdict.NOT_CHECKED, "no inject: nothing provokes the problem")
        verdict, seen = Verdict.HOLDS, promise.check(bench)
    except NotApplicable as reason:
        verdict, seen = Verdict.NOT_APPLICABLE, str(reason)
    except NotKept as reason:
        verdict, seen = Verdict.BROKEN, str(reason)
    except OpsError as error:
        verdict, seen = Verdict.BROKEN, error.told
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError) as error:
        verdict, seen = Verdict.BROKEN, f"a bug in {bench.entry.path.name}? {type(error).__name__}: {error}"
    except TimeoutExpired as error:
        verdict, seen = Verdict.BROKEN, f"no end within {error.timeout:.0f} s: {' '.join(map(str, error.cmd[4:8]))}"
    return Result(promise.id, promise.text, verdict, seen)


def exit_code(results: Sequence[Result]) -> int:
    """0 when all hold, 1 when some could not be checked, 2 when one does not hold."""
    verdicts = {result.verdict for result in results}
    return 2 if Verdict.BROKEN in verdicts else int(Verdict.NOT_CHECKED in verdicts)
