"""`plan`, `prove`, `run`, `drill`: from facts to a verified change."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.checks import known
from aiprod_ops.cli.deliveries import Deliveries, deliver, deliveries
from aiprod_ops.cli.gate import ask, confirmed, is_attended, signals
from aiprod_ops.cli.options import Where, repeated
from aiprod_ops.cli.proofs import tell_proof, verdict
from aiprod_ops.errors import OpsError, UsageError

_book = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="ID [--OPTION VALUE]…",
                       shell_complete=options.complete_runbook)  # fmt: skip
_without = click.option("--without", multiple=True, metavar="ACTION", help="Leave an action out; may be repeated.")
_why = click.option("--why", default="", metavar="TEXT", help="The reason, kept in the evidence (a ticket, an alert).")


def _pick(words: tuple[str, ...], where: Where) -> tuple[Any, dict[str, str]]:
    from aiprod_ops.cli.world import entries_of
    from aiprod_ops.engine import registry

    entries = entries_of(where)
    names, given = options.split_params(words, entries)
    if len(names) != 1:
        raise click.UsageError(f"expected one runbook, got {len(names)}; there are: {', '.join(sorted(entries))}")
    entry = registry.pick(entries, names[0])
    return entry, known(entry, given)


@click.command("plan", context_settings=options.PASS_THROUGH)
@_book
@_without
@click.option("--exit-code", is_flag=True, help="Answer 1 when there is work to do.")
@options.output("text", "json")
@options.where
def plan_command(words: tuple[str, ...], without: tuple[str, ...], exit_code: bool, output: str, where: Where) -> int:
    """Show what would be done to the target, and the digest that approves exactly that. Changes nothing."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import open_world
    from aiprod_ops.engine.planning import draft, keep

    entry, given = _pick(words, where)
    with open_world(where, quiet=output != "text") as world:
        params = entry.read_params(given, world.context.promises)
        made = draft(entry, world.context, params, by=world.by, without=without)
        keep(world.store, made)
        render.plan(entry, made, output, _following(entry, made, where, given), where)
        _name_unfinished(world, made, where)
        if made.plan.actions and not world.context.target.actor and "prove" not in entry.book.phases:
            click.echo(
                f"{world.context.target.name} has no actor identity yet, which whoever runs this plan needs", err=True
            )
    return int(exit_code and bool(made.plan.actions))


def _following(entry: Any, made: Any, where: Where, given: dict[str, str]) -> str:
    """The command after a plan."""
    if not made.plan.actions:
        return f"aiprod-ops check {entry.id}{options.spelled(given)}{repeated(where)}"
    if "prove" not in entry.book.phases:
        return options.applying(entry, made.plan, where)
    return f"aiprod-ops prove {entry.id} --plan {made.digest[:12]}{repeated(where)}"


def _name_unfinished(world: Any, made: Any, where: Where) -> None:
    """A run that was interrupted on the same instance comes first: say so."""
    from aiprod_ops.engine.journal import unfinished

    for journal in unfinished(world.store, world.context.clock, made.plan.identity.system_identifier):
        if world.store.is_locked(f"run-{journal.run}"):
            click.echo(f"running on this instance: {journal.run}, by {journal.opening['by']}", err=True)
        else:
            click.echo(f"unfinished on this instance: aiprod-ops resume {journal.run}{repeated(where)}", err=True)


@click.command("prove", context_settings=options.PASS_THROUGH)
@_book
@click.option("--plan", "digest", default="", metavar="DIGEST", help="A plan made before; otherwise one is made now.")
@click.option("--every", is_flag=True, help="Print every measurement.")
@_without
@_why
@options.output("text", "json", "prom")
@deliveries
@options.where
def prove_command(
    words: tuple[str, ...], digest: str, every: bool, without: tuple[str, ...], why: str, output: str, to: Deliveries,
    where: Where,
) -> int:  # fmt: skip
    """Restore a disposable copy, try the plan there, measure before and after. Production is only read."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.world import open_world
    from aiprod_ops.engine.operations import new_run
    from aiprod_ops.engine.planning import approved, draft, keep, typed_params
    from aiprod_ops.engine.proving import prove

    entry, given = _pick(words, where)
    with open_world(where, why=why, quiet=output != "text") as world:
        params = entry.read_params(given, world.context.promises)
        made = _for(entry, approved(world.store, world.context, digest)) if digest else None
        if made is not None:
            params = typed_params(entry, made.plan.parameters)
        with _proof_delivered(to, world, entry, params, output):
            if made is None:
                made = draft(entry, world.context, params, by=world.by, without=without)
                keep(world.store, made)
            if not made.plan.actions and not entry.book.examines:
                if output != "prom":
                    click.echo(f"Nothing to prove: {entry.id} plans no change.")
                    render.left_out(made, where)
                return 0
            proven = prove(world, entry, params, made, new_run(world.context.clock, entry.id))
    if output == "prom":
        return int(proven.evidence.body["exit"])
    return tell_proof(entry, proven, output, where, given, every=every)


@contextmanager
def _proof_delivered(to: Deliveries, world: Any, entry: Any, params: Any, output: str) -> Iterator[None]:
    """Hand over how the proof ended, also where it could not be made; `-o prom` prints just that."""
    from aiprod_ops.cli.verdicts import prometheus
    from aiprod_ops.engine.results import failed_proof, last_proof
    from aiprod_ops.units import Seconds

    clock, parameters = world.context.clock, asdict(params)
    began = clock.monotonic()
    try:
        yield
    except OpsError:
        took = Seconds(round(clock.monotonic() - began, 3))
        results = [failed_proof(world, entry.id, parameters, took)]
        deliver(to, results)
        if output == "prom":
            prometheus(results)
        raise
    last = last_proof(world.store, world.context.target, entry.id, parameters, entry.book.exports)
    deliver(to, [last] if last else [])
    if output == "prom":
        prometheus([last] if last else [])


@click.command("run", context_settings=options.PASS_THROUGH)
@_book
@click.option(
    "--apply",
    "digest",
    default="",
    callback=options.not_empty,
    metavar="DIGEST",
    help="Approve and apply exactly this plan.",
)
@click.option("--confirm", default="", metavar="NAME", help="The target's name, for a runbook of severe risk.")
@click.option("--dry-run", is_flag=True, help="Only read: show the plan, or whether the one of --apply still holds.")
@click.option("--standing", is_flag=True, help="Plan and apply, as a [[standing_approvals]] of the configuration says.")
@_without
@_why
@options.output("text", "json")
@options.where
def run_command(
    words: tuple[str, ...], digest: str, confirm: str, dry_run: bool, standing: bool, without: tuple[str, ...],
    why: str, output: str, where: Where,
) -> int:  # fmt: skip
    """Apply an approved plan: facts and guards are read again, the change is watched, verified and sealed.

    Without --apply it plans, proves, and asks on a terminal; elsewhere it ends with 12 and names the digest.
    """
    from aiprod_ops.cli import render
    from aiprod_ops.cli.outcomes import tell_outcome
    from aiprod_ops.cli.world import open_world
    from aiprod_ops.engine.operations import apply, ensure_proven, is_wanted
    from aiprod_ops.engine.planning import approved, draft, keep, typed_params

    entry, given = _pick(words, where)
    if "prove" in entry.book.phases and "plan" not in entry.book.phases:
        raise UsageError(
            f"{entry.id} changes nothing on the target: it examines a disposable copy, and that takes no approval",
            hint=f"aiprod-ops prove {entry.id}{repeated(where)}",
        )
    if standing:
        if digest or confirm or dry_run or without or given:
            raise UsageError(
                "--standing applies what the runbook plans by itself: it takes no other plan, and no option of its own",
                hint=f"aiprod-ops run {entry.id} --standing{repeated(where)}",
            )
        return _run_standing(entry, why, output, where)
    with open_world(where, why=why, quiet=output != "text") as world:
        if digest:
            made = _for(entry, approved(world.store, world.context, digest))
            if dry_run:
                wanted = is_wanted(world, entry, typed_params(entry, made.plan.parameters), made)
                left = made if wanted else replace(made, plan=replace(made.plan, actions=()))
                again = options.applying(entry, made.plan, where)
                render.plan(entry, left, output, again, where)
                return 0
        else:
            params = entry.read_params(given, world.context.promises)
            made = draft(entry, world.context, params, by=world.by, without=without)
            keep(world.store, made)
            if output == "text" or dry_run or not made.plan.actions:
                render.plan(entry, made, output, _following(entry, made, where, given), where)
            if dry_run or not made.plan.actions:
                return 0
            if is_attended():
                proven = ensure_proven(world, entry, typed_params(entry, made.plan.parameters), made)
                if proven is not None and output == "text":
                    render.say(verdict(proven))
            ask(made.digest, options.applying(entry, made.plan, where))
        confirmed(entry, world.context.target.name, confirm)
        with signals(world.stop):
            outcome = apply(world, entry, made, f"--apply {digest}" if digest else "typed on the terminal")
        return tell_outcome(world, outcome, output, where)


def _run_standing(entry: Any, why: str, output: str, where: Where) -> int:
    """Plan, and apply exactly that, where an approval stands."""
    from aiprod_ops.cli import render
    from aiprod_ops.cli.outcomes import tell_outcome
    from aiprod_ops.cli.world import open_world, settings_of
    from aiprod_ops.domain.approvals import standing
    from aiprod_ops.engine.operations import apply
    from aiprod_ops.engine.planning import draft, keep
    from aiprod_ops.engine.results import keep_run
    from aiprod_ops.errors import Exit
    from aiprod_ops.units import Seconds

    with open_world(where, why=why, trigger="standing approval", quiet=output != "text") as world:
        clock, target = world.context.clock, world.context.target.name
        approval = standing(
            settings_of(where).standing_approvals, entry.id, entry.book.risk, target, clock.now().date()
        )
        began, code = clock.monotonic(), Exit.BUG
        try:
            made = draft(entry, world.context, entry.read_params({}, world.context.promises), by=world.by)
            if not made.plan.actions:
                code = Exit.DONE
                render.plan(entry, made, output, _following(entry, made, where, {}), where)
                return int(code)
            keep(world.store, made)
            with signals(world.stop):
                outcome = apply(world, entry, made, str(approval))
            code = outcome.exit
            return tell_outcome(world, outcome, output, where)
        except OpsError as error:
            code = error.exit_code
            raise
        finally:
            keep_run(world.context, entry.id, code, Seconds(round(clock.monotonic() - began, 3)))


def _for(entry: Any, made: Any) -> Any:
    if made.plan.runbook != entry.id:
        raise UsageError(f"the plan {made.digest[:12]} is one of {made.plan.runbook}, not of {entry.id}")
    return made


def _to_the_lab(where: Where) -> str:
    """How a drill gets to the lab: it is up, or has to be started."""
    from aiprod_ops import config

    if config.load_lab() is None:
        return "aiprod-ops lab up"
    given = [f"--{name}" for name in ("config", "target", "dsn") if getattr(where, name)]
    return f"the lab is up: add --target lab{f' in place of {given[0]}' if given else ''}"


_STOPS, _WRITES = ("write_stop_ms", "write_stop_median_ms"), ("lost_writes", "acknowledged_writes")


@click.command("drill", context_settings=options.PASS_THROUGH)
@_book
@options.output("text", "json")
@deliveries
@options.where
def drill_command(words: tuple[str, ...], output: str, to: Deliveries, where: Where) -> int:
    """Provoke the problem in the lab, run the runbook against it, measure the time to recovery."""
    from aiprod_ops.cli.outcomes import tell_outcome
    from aiprod_ops.cli.world import open_world, settings_of
    from aiprod_ops.engine.operations import drill
    from aiprod_ops.engine.results import failed_drill, last_drill
    from aiprod_ops.lab.known import of_config
    from aiprod_ops.units import Milliseconds, Seconds, show

    entry, given = _pick(words, where)
    with open_world(where, trigger="drill", quiet=output != "text") as world:
        if not world.context.target.is_for_drills:
            raise UsageError(f"{world.context.target.name} is no lab; a drill breaks things", hint=_to_the_lab(where))
        params = entry.read_params({**entry.book.drill_with, **given}, world.context.promises)
        began = world.context.clock.monotonic()
        try:
            with signals(world.stop):
                drilled = drill(world, entry, params, of_config(settings_of(where)))
        except OpsError:
            deliver(to, [failed_drill(world, entry.id, Seconds(world.context.clock.monotonic() - began))])
            raise
        last = last_drill(world.store, world.context.target, entry.id)
        deliver(to, [last] if last else [])
        if output == "json":
            from aiprod_ops.cli.render import as_json

            outcome = {**asdict(drilled.outcome), "exit": int(drilled.outcome.exit)}
            as_json({**outcome, **drilled.figures, "phases": drilled.phases})
            return int(drilled.outcome.exit)
        until = (
            "from the fault to the verified end" if "plan" in entry.book.phases else "of a restore to its first answer"
        )
        for figure, said in ((drilled.figures["rto_s"], f"RTO {{}} {until}"), (drilled.figures["rpo_s"], "RPO {}")):
            if figure is not None:
                click.echo(said.format(show(figure, "s")))
        for phase, took in drilled.phases.items():
            click.echo(f"{show(Seconds(took), 's')} of that: {phase}")
        if drilled.figures["write_stop_ms"] is not None:
            stop, median = (Milliseconds(drilled.figures[name] or 0) for name in _STOPS)
            lost, all_of_them = (f"{drilled.figures[name] or 0:,.0f}" for name in _WRITES)
            click.echo(f"writes stopped for {show(stop, 'ms')} (median of the writers {show(median, 'ms')})")
            click.echo(f"lost {lost} of {all_of_them} acknowledged writes")
        return tell_outcome(world, drilled.outcome, output, where)
