"""How a proof ended, as monitoring is told: from sealed evidence, for the same options on the same target."""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest
from memory_world import Bench

from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.proofs import Proof
from aiprod_ops.engine import planning
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.operations import new_run
from aiprod_ops.engine.proving import prove
from aiprod_ops.engine.results import failed_proof, keep_run, last_proof, last_run
from aiprod_ops.errors import Exit
from aiprod_ops.units import Seconds

EXPORTS = ("data age",)


def proven(bench: Bench, *findings: Finding, **given: str) -> dict[str, Any]:
    """Prove once, and let the copy find this; the parameters."""
    world = bench.world()
    params = bench.entry.read_params(given, world.context.promises)
    bench.entry.book.phases["prove"] = lambda *_: Proof((), findings=findings)
    made = planning.draft(bench.entry, world.context, params, by="tester")
    prove(world, bench.entry, params, made, new_run(bench.clock, bench.entry.id))
    return asdict(params)


def told(bench: Bench, parameters: dict[str, Any], target: str = "lab") -> Any:
    place = replace(bench.world().context.target, name=target)
    return last_proof(bench.store, place, bench.entry.id, parameters, EXPORTS)


def test_before_the_first_there_is_nothing_to_tell(bench: Bench) -> None:
    assert told(bench, {}) is None


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ((), Status.OK),
        ((Finding("data age", 5.0, "s"),), Status.OK),
        ((Finding("data age", 5.0, "s", warn=1),), Status.WARNING),
        ((Finding("data age", 5.0, "s", crit=1),), Status.CRITICAL),
        ((Finding("data age", None, "s"),), Status.CRITICAL),  # it disproves
    ],
)
def test_the_worst_finding_is_how_it_ended(bench: Bench, findings: tuple[Finding, ...], status: Status) -> None:
    result = told(bench, proven(bench, *findings))
    assert (result.work, result.status) == ("proof", status)
    assert sum(result.counts.values()) == len(findings)
    assert result.measured == ({"aiprod_ops_data_age_seconds": 5.0} if findings and findings[0].value else {})
    assert result.took > 0
    assert result.succeeded == (None if status is Status.CRITICAL else result.ended)


def test_a_failure_keeps_the_last_success(bench: Bench) -> None:
    good = told(bench, proven(bench))
    parameters = proven(bench, Finding("damage", 1, crit=1))
    bad = told(bench, parameters)
    assert (bad.status, bad.succeeded) == (Status.CRITICAL, good.ended)
    unmade = failed_proof(bench.world(), bench.entry.id, parameters, Seconds(3))
    assert (unmade.status, unmade.succeeded) == (Status.UNKNOWN, good.ended)
    assert unmade.ended > bad.ended


def test_other_options_and_other_targets_renew_nothing(bench: Bench) -> None:
    parameters = proven(bench, Finding("damage", 1, crit=1))
    proven(bench, limit="5")
    assert told(bench, parameters).succeeded is None
    assert told(bench, parameters, "another") is None


def test_altered_evidence_is_no_success(bench: Bench) -> None:
    parameters = proven(bench)
    (name,) = [name for name in bench.store.names("evidence/") if name.endswith(".json")]
    bench.store.content[name] = bench.store.content[name].replace(b'"exit":0', b'"exit":7')
    assert Archive(bench.store).faults()
    assert told(bench, parameters) is None


def test_a_run_that_found_nothing_to_do_is_a_success(bench: Bench) -> None:
    context = bench.world().context
    assert last_run(context.history, context.target, "take-backup") is None
    keep_run(context, "take-backup", Exit.DONE, Seconds(2))
    good = last_run(context.history, context.target, "take-backup")
    bench.clock.sleep(Seconds(timedelta(days=1).total_seconds()))
    keep_run(context, "take-backup", Exit.UNDONE, Seconds(2))
    bad = last_run(context.history, context.target, "take-backup")
    assert good is not None
    assert bad is not None
    assert (good.status, bad.status, bad.succeeded) == (Status.OK, Status.CRITICAL, good.ended)
