"""Which jobs follow from the runbooks, the instances and the promises."""

from collections.abc import Iterable

from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.approvals import StandingApproval
from aiprod_ops.domain.schedules import Interval, Job, Place, Terms, jobs
from aiprod_ops.engine.registry import Entry
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import seconds


def wishes(entries: Iterable[Entry]) -> list[Interval]:
    """What the runbooks want. A drill that a runbook has no hook for is none. Raises ConfigurationError."""
    found = []
    for entry in entries:
        book = entry.book
        drills = book.drill_every if "inject" in book.phases else ""
        wanted = (
            ("check", book.check_every), ("prove", book.prove_every), ("run", book.run_every), ("drill", drills),
        )  # fmt: skip
        for work, every in wanted:
            try:
                alert, on_evidence = next(iter(book.alerts), ""), work != "check" or book.on_evidence
                found += [Interval(entry.id, work, seconds(every), alert, on_evidence)] if every else []
            except ValueError as error:
                raise ConfigurationError(f"{entry.path}: {work}_every: {error}") from error
    return found


def planned(
    targets: Iterable[Target],
    wanted: Iterable[Interval],
    promises: Promises,
    options: tuple[str, ...],
    approvals: Iterable[StandingApproval] = (),
) -> list[Job]:
    """The jobs of all targets, in the order of their names. `options` end each command line.

    Drills only where things may be broken, runs only where a standing approval names them: elsewhere the commands
    refuse themselves. An approval that has expired keeps its job: then that says so.
    """
    acting = {(each.runbook, each.target) for each in approvals}
    terms = Terms(seconds(promises.get("schedule.slack")), seconds(promises.get("schedule.longest")))
    every = list(wanted)
    made: list[Job] = []
    for target in targets:
        for wish in every:
            if wish.work == "drill" and not target.is_for_drills:
                continue
            if wish.work == "run" and (wish.runbook, target.name) not in acting:
                continue
            place = Place(target.name, target.environment, target.variables(acts=wish.work in ("drill", "run")))
            made += jobs([wish], [place], terms, options)
    return sorted(made, key=lambda job: job.name)
