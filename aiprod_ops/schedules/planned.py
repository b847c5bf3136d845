"""Which jobs follow from the runbooks, the instances and the promises."""

from collections.abc import Iterable
from datetime import date

from aiprod_ops.config import Promises, Target
from aiprod_ops.domain.approvals import StandingApproval, standing
from aiprod_ops.domain.schedules import Interval, Job, Place, Terms, jobs
from aiprod_ops.engine.registry import Entry
from aiprod_ops.errors import ConfigurationError, NotApproved
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
                period = seconds(every) if every else None
            except ValueError as error:
                raise ConfigurationError(f"{entry.path}: {work}_every: {error}") from error
            if period is not None:
                alert, on_evidence = next(iter(book.alerts), ""), work != "check" or book.on_evidence
                found.append(Interval(entry.id, work, period, alert, on_evidence, book.on_backups))
    return found


def planned(
    targets: Iterable[Target],
    wanted: Iterable[Interval],
    promises: Promises,
    options: tuple[str, ...],
    approvals: Iterable[StandingApproval] = (),
    *,
    today: date,
) -> tuple[list[Job], list[str]]:
    """The jobs of all targets, in the order of their names, and why a run is none. `options` end each command line.

    Drills only where things may be broken, runs only where a standing approval covers them today: elsewhere the
    commands refuse themselves.
    """
    approvals, unapproved = tuple(approvals), []
    terms = Terms(seconds(promises.get("schedule.slack")), seconds(promises.get("schedule.longest")))
    every = list(wanted)
    made: list[Job] = []
    for target in targets:
        for wish in every:
            if wish.work == "drill" and not target.is_for_drills:
                continue
            if wish.work == "run":
                try:  # a severe runbook has no `run_every`
                    standing(approvals, wish.runbook, "", target.name, today)
                except NotApproved as error:
                    unapproved.append(
                        f"not scheduled: run {wish.runbook} on {target.name}: {error}\n  next: {error.hint}"
                    )
                    continue
            place = Place(target.name, target.environment, target.variables(acts=wish.work in ("drill", "run")))
            made += jobs([wish], [place], terms, options)
    return sorted(made, key=lambda job: job.name), unapproved
