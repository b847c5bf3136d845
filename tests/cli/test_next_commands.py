"""The `next:` line of a command repeats the runbook's own options."""

from types import SimpleNamespace

import pytest

from aiprod_ops.cli.options import Where
from aiprod_ops.cli.plans import _following
from aiprod_ops.cli.proofs import tell_proof


def test_a_plan_that_has_nothing_to_do_is_followed_by_the_same_check() -> None:
    entry, made = SimpleNamespace(id="a"), SimpleNamespace(plan=SimpleNamespace(actions=()))
    following = _following(entry, made, Where(target="t"), {"keep_daily": "0 d"})
    assert following == "aiprod-ops check a --keep-daily '0 d' --target t"


def test_a_proof_that_refused_is_followed_by_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    entry = SimpleNamespace(id="a", book=SimpleNamespace(phases=("prove",)))
    proof = SimpleNamespace(comparisons=(), worth=(), findings=(), notes=(), refused={"x": "no"}, untold={})
    proven = SimpleNamespace(
        restored={"size": 1, "seconds": 1.0, "backup": "", "checks": []},
        proof=proof,
        draft=None,
        evidence=SimpleNamespace(n=1, seal="0" * 64, body={"exit": 10}),
    )
    assert tell_proof(entry, proven, "text", Where(target="t"), {"rto": "1ms", "wait": "0s"}, every=False) == 10
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "next: aiprod-ops evidence show 1 --target t", "a command that can be pasted"
    assert told[-2] == "when that is mended: aiprod-ops prove a --rto 1ms --wait 0s --target t"
