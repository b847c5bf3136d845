"""The promises that every runbook makes, held against one on real servers."""

import ast
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aiprod_ops.domain.findings import Status, worst
from aiprod_ops.engine.journal import Journal
from aiprod_ops.engine.operations import undo_draft
from aiprod_ops.errors import Exit, Refused
from aiprod_ops.lab import traces
from aiprod_ops.lab.bench import Bench, require, said
from aiprod_ops.lab.kills import (
    killed_at_every_record,
    killed_inside_an_action,
    killed_while_proving,
    two_runners_and_one_lease,
)
from aiprod_ops.lab.promises import NotApplicable, Promise, Result, hold
from aiprod_ops.lab.secrecy import no_secret_in_any_output

PROBE = "aiprod_probe"
_SEEDS = ("0", "1", "4242")  #: of other processes; sets have another order in each


def probe_writes_nothing(bench: Bench) -> str:
    """The probe writes nothing, and could not.

    Facts, judge, plan, guard and verify run with the probe identity; before and after, the server looks the same, and
    the probe's role has sent nothing but reading.
    """
    book, context, params = bench.entry.book, bench.world.context, bench.params
    server = context.db.server()
    require(not (server.can_write or server.is_superuser), f"the role {server.role} may write")
    powers = traces.powers(bench.lab, PROBE)
    require(not powers, f"the role {PROBE} is a member of {', '.join(powers)}")
    plans = "plan" in book.phases
    with bench.problem() if plans else bench.provoked() as draft:
        before, sent = traces.look(bench.lab), traces.acts(bench.lab, PROBE)
        facts = book.phases["facts"](context, params)
        read = ["judge", "plan"] if plans else ["judge"]
        for phase in read:
            list(book.phases[phase](facts, params))
        for phase in ("guard", "watch", "verify"):
            if draft is not None and phase in book.phases:
                list(book.phases[phase](context, draft.plan, params))
                read.append(phase)
        more = traces.acts(bench.lab, PROBE) - sent
        require(not more, f"the probe sent: {'; '.join(more)}")
        bench.require_same(before, "reading")
    return f"facts, {', '.join(read)}: the server looks the same, {PROBE} sent only reading and has no write right"


def plan_is_deterministic(bench: Bench) -> str:
    """The same facts give the same plan: twice, and in processes with other hash seeds."""
    with bench.problem() as draft:
        bench.require_undone(draft, "planning again")
        for seed in _SEEDS:  # a dry run plans again from the moving facts as they were, and refuses another digest
            bench.expect(0, *bench.applying(draft), "--dry-run", env={"PYTHONHASHSEED": seed})
    return f"{2 + len(_SEEDS)} plans, {len(_SEEDS)} hash seeds, 1 digest: {draft.digest[:12]}"


def dry_run_sends_no_change(bench: Bench) -> str:
    """A dry run sends no change, and without an approval nothing is applied."""
    nobody = ("--actor-dsn", "postgresql://nobody@127.0.0.1:1/nothing")  # whoever connects with it fails
    with bench.problem() as draft:
        before, sent = traces.look(bench.lab), bench.acts()
        shown = bench.expect(0, "run", *bench.words, "--dry-run", *nobody)
        require("digest" in shown, "the dry run shows no digest")
        bench.expect(0, *bench.applying(draft), "--dry-run", *nobody)
        bench.expect(Exit.NOT_APPROVED, "run", *bench.words, *nobody)
        bench.expect(Exit.NOT_APPROVED, "run", *bench.words, "-o", "json", *nobody)
        bench.require_same(before, "a dry run")
        require(bench.acts() == sent, "the actor sent something")
    return "--dry-run ends 0, without approval 12; the server looks the same, no actor connected"


def apply_does_it_once(bench: Bench) -> str:
    """Applying does it; applying again is nothing to do."""
    with bench.problem() as draft:
        first = json.loads(bench.expect(0, *bench.applying(draft)))
        bench.require_done(draft, first["run"])
        done, count, before = bench.acts(), len(bench.runs()), traces.look(bench.lab)
        again = json.loads(bench.expect(0, *bench.applying(draft)))
        require(again["run"] == "" and len(bench.runs()) == count, f"applied twice there are two runs: {again['run']}")
        require(bench.acts() == done, "the actor sent something when there was nothing to do")
        bench.require_same(before, "applying again")
    return f"{len(draft.plan.actions)} actions, verified; again: {again['reason']}"


def undo_restores(bench: Bench) -> str:
    """Rolling back gives the same plan again; what is irreversible is refused, and nothing is changed."""
    with bench.problem() as draft:
        before = traces.look(bench.lab)
        run = json.loads(bench.expect(0, *bench.applying(draft)))["run"]
        lasting = [action.name for action in draft.plan.actions if action.undo is None]
        after = traces.look(bench.lab)
        if lasting:
            bench.expect(Exit.REFUSED, "rollback", run)
            bench.require_same(after, "a refused rollback")
            raise NotApplicable(f"irreversible: {', '.join(lasting)}; rollback is refused with 10, nothing changed")
        bench.expect(Exit.NOT_APPROVED, "rollback", run)
        undo = undo_draft(bench.world, bench.entry, Journal.of(bench.world.store, bench.world.context.clock, run))
        bench.expect(0, "rollback", run, "--apply", undo.digest)
        if partly := [action.name for action in draft.plan.actions if action.irreversible]:
            raise NotApplicable(f"only a part of it comes back: {', '.join(partly)}; rollback takes that and ends 0")
        bench.require_undone(draft, "the rollback")
        # Where rows are what is changed, putting them back is writing again; that they are as before, the plan tells.
        rows = any(change.startswith("rows written") for change in before.changes(after))
        bench.require_same(before, "applying and rolling back", worked=rows, restored=True)
        bench.expect(Exit.REFUSED, "rollback", bench.runs("rollback")[-1])
    return "the same plan follows from the facts again, and the server looks as before"


def exit_codes(bench: Bench) -> str:
    """Exit codes say what was found: 0 to 3 as the findings are, 3 for an error; severe risk wants a confirmation."""
    seen = [_checked(bench)]
    if "inject" in bench.entry.book.phases:
        plans = "plan" in bench.entry.book.phases
        with bench.problem() if plans else bench.provoked() as draft:
            seen.append(_checked(bench))
            require(seen[-1] != Status.OK, "the problem is there, and check says OK")
            if draft is not None and bench.entry.book.risk == "severe":
                bench.expect(Exit.NOT_APPROVED, "run", bench.entry.id, "--apply", draft.digest)
                bench.expect(Exit.NOT_APPROVED, "run", bench.entry.id, "--apply", draft.digest, "--confirm", "other")
    bench.expect(Status.UNKNOWN, "check", *bench.words, "--dsn", "postgresql://aiprod_probe@127.0.0.1:1/aiprod")
    bench.expect(Status.UNKNOWN, "check", *bench.words, "--no-such-option", "1")
    return f"check: {', '.join(f'{status.name} {status.value}' for status in seen)}, no server 3, usage 3"


def _checked(bench: Bench) -> Status:
    """What `check` says, when its exit code, its JSON and its line for a monitor all say the same."""
    done = bench.call("check", *bench.words, "-o", "json")
    require('"checks"' in done.stdout, f"check ended {done.returncode}: {said(done)}")
    found = json.loads(done.stdout)["checks"][0]
    status = worst(Status[finding["status"]] for finding in found["findings"])
    require(done.returncode == status, f"check ended {done.returncode}, its findings are {status.name}")
    require(found["status"] == status.name, f"check says {found['status']}, its findings are {status.name}")
    line = bench.call("check", *bench.words, "-o", "nagios")
    code = Status[line.stdout.split(" ")[0]]
    require(line.returncode == code, f"the monitor's line says {code.name}, the exit code is {line.returncode}")
    return status


def imports_only_the_api(bench: Bench) -> str:
    """It imports the standard library and `aiprod_ops.api`, nothing else."""
    strange = sorted(set(_strange(bench.entry.path)))
    require(not strange, f"it imports {', '.join(strange)}")
    return "as promised"


def _strange(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=None):
                found = ["a module beside it"]
            case ast.ImportFrom("aiprod_ops", names):
                found = [f"aiprod_ops.{alias.name}" for alias in names]
            case ast.ImportFrom(str(module), _, 0):
                found = [module]
            case ast.ImportFrom(str(module)):
                found = [f".{module}"]
            case _:
                continue
        yield from (n for n in found if n != "aiprod_ops.api" and n.split(".")[0] not in sys.stdlib_module_names)


PROMISES = (
    Promise("probe-writes-nothing", probe_writes_nothing, needs_plan=False),
    Promise("deterministic", plan_is_deterministic),
    Promise("dry-run", dry_run_sends_no_change),
    Promise("apply-once", apply_does_it_once),
    Promise("undo", undo_restores),
    Promise("killed-at-records", killed_at_every_record),
    Promise("killed-in-action", killed_inside_an_action),
    Promise("killed-while-proving", killed_while_proving),
    Promise("one-lease", two_runners_and_one_lease),
    Promise("no-secret", no_secret_in_any_output, needs_plan=False),
    Promise("exit-codes", exit_codes, needs_problem=False, needs_plan=False),
    Promise("imports", imports_only_the_api, needs_problem=False, needs_plan=False),
)


def conform(
    bench: Bench, report: Callable[[str], Any] = lambda _: None, promises: Sequence[Promise] = PROMISES
) -> Iterator[Result]:
    """Hold the promises against the runbook, one after the other. Raises Refused on a lab where others work."""
    writers = traces.writers(bench.lab)
    if writers:
        raise Refused(
            f"others work on this lab ({', '.join(writers)}): what they write and what the runbook does look the same",
            hint="aiprod-ops lab up --no-workload --folder DIR, then conform with --lab DIR; or without --lab",
        )
    for promise in promises:
        report(promise.text)
        yield hold(bench, promise)
