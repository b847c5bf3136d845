"""Promises about bad moments: `kill -9` at every record, inside actions and proofs, and two runners at once."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable

from aiprod_ops.domain.plans import Draft
from aiprod_ops.errors import Exit
from aiprod_ops.lab import traces
from aiprod_ops.lab.bench import KILLED, Bench, require, said
from aiprod_ops.lab.promises import NotApplicable
from aiprod_ops.units import Seconds

DELAYS = (Seconds(0), Seconds(0.02), Seconds(0.1))  #: after an intent is durable: the action is in flight
_PATIENCE = Seconds(60)


def killed_at_every_record(bench: Bench) -> str:
    """Killed right after any record of the journal and resumed, it ends as if nothing had happened."""
    clean, records = _undisturbed(bench)
    for number in range(1, records + 1):
        _killed_and_resumed(bench, "after", number, clean)
    with bench.problem() as draft:
        done = bench.crash("after", records + 1, *bench.applying(draft))
        require(done.returncode == 0, f"a run of {records} records ended {done.returncode}: {said(done)}")
    return f"{records} records, each survived; nothing done twice, nothing left behind"


def killed_inside_an_action(bench: Bench) -> str:
    """Killed while an action is in flight, or before its outcome is on record, and resumed, it ends right."""
    with bench.problem() as draft:
        run = json.loads(bench.expect(0, *bench.applying(draft)))["run"]
        outcomes = [record.n for record in bench.journal(run) if record.kind == "outcome"]
    for number in outcomes:
        _killed_and_resumed(bench, "before", number)
    _killed_and_resumed(bench, "torn", outcomes[0])
    hits = sum(_killed_in_flight(bench, delay) for delay in DELAYS)
    return f"{len(outcomes)} × before the outcome, 1 × in the middle of its record, {hits} × in flight"


def killed_while_proving(bench: Bench) -> str:
    """Killed while it proves, and resumed, the same proof is made; no copy and no server stays behind."""
    if not bench.proves:
        raise NotApplicable("it proves nothing on a copy")
    before = traces.look(bench.lab)
    with bench.problem() as draft:
        words = ("prove", bench.entry.id, "--plan", draft.digest, "-o", "json")
        for record in (1, 2):
            done = bench.crash("after", record, *words)
            require(done.returncode == KILLED, f"prove was to be killed at record {record}: {said(done)}")
            _proof_resumed(bench)
        child = bench.start(*words)
        copies = bench.lab.folder / "copies"
        _until(lambda: any(copies.iterdir()), child)
        time.sleep(0.5)
        _kill(child)
        _proof_resumed(bench)
    bench.require_same(before, "a killed proof", worked=True)
    return "killed at 2 records and with a copy at work: resumed, swept away"


def two_runners_and_one_lease(bench: Bench) -> str:
    """Of two runners at the same moment one acts; the other is held, and changes nothing."""
    with bench.problem() as draft:
        before, name = traces.look(bench.lab), draft.plan.identity.system_identifier
        with bench.world.store.lock(name, "another runner"):
            bench.expect(Exit.HELD, *bench.applying(draft))
        with bench.lab.connect("aiprod_actor") as other:
            require(other.hold(f"aiprod-ops:{name}"), "the lock in the server is taken by somebody else")
            bench.expect(Exit.HELD, *bench.applying(draft))
        bench.require_same(before, "a runner that was held")
        known = set(bench.runs())
        pair = [bench.start(*bench.applying(draft)) for _ in range(2)]
        ended = [child.communicate(timeout=_PATIENCE) for child in pair]
        codes = sorted(child.returncode for child in pair)
        answers = [json.loads(out) for out, _ in ended]
        # 0: nothing to do, 10: the plan is stale: it came when the first had ended, maybe after its journal was opened.
        acted = [answer["run"] for answer in answers if answer.get("run") and answer["exit"] == Exit.DONE]
        fine = codes[0] == Exit.DONE and codes[1] in (Exit.DONE, Exit.REFUSED, Exit.HELD)
        require(fine and len(acted) == 1, f"they ended {codes}: {answers}")
        bench.require_done(draft, acted[0])
    journals = len(set(bench.runs()) - known)
    return f"held by a file's lock: 11, by a lock in the server: 11, two at once: {codes}, {journals} journals"


def _undisturbed(bench: Bench) -> tuple[int, int]:
    """A run that nobody kills: how many statements act in it, and how many records its journal has."""
    with bench.problem() as draft:
        before = bench.acts()
        run = json.loads(bench.expect(0, *bench.applying(draft)))["run"]
        bench.require_done(draft, run)
        return (bench.acts() - before).total(), len(bench.journal(run))


def _killed_and_resumed(bench: Bench, moment: str, record: int, clean: int | None = None) -> None:
    """`clean` is how many statements act in a run that nobody kills; None where a second attempt is allowed."""
    before = traces.look(bench.lab)
    with bench.problem() as draft:
        sent = bench.acts()
        done = bench.crash(moment, record, *bench.applying(draft))
        require(done.returncode == KILLED, f"it was to be killed {moment} record {record}: {said(done)}")
        _resumed(bench, draft, f"{moment} record {record}")
        acted: Counter[str] = bench.acts() - sent
        require(clean in (None, acted.total()), f"killed {moment} record {record} it did {dict(acted)}")
    bench.require_same(before, f"a run killed {moment} record {record}", worked=True)


def _resumed(bench: Bench, draft: Draft, killed: str) -> None:
    run = bench.runs()[-1]
    done = bench.call("resume", run, "-o", "json")
    require(done.returncode == 0, f"killed {killed}, resume ended {done.returncode}: {said(done)}")
    bench.require_done(draft, run)


def _killed_in_flight(bench: Bench, delay: Seconds) -> bool:
    """Kill a run so long after its first intent; whether it was still at work then."""
    before, known = traces.look(bench.lab), set(bench.runs())
    with bench.problem() as draft:
        child = bench.start(*bench.applying(draft))
        _until(lambda: _has_intent(bench, known), child)
        time.sleep(delay)
        was_at_work = _kill(child)
        _resumed(bench, draft, f"{delay:g} s after an intent")
    bench.require_same(before, "a run killed in flight", worked=True)
    return was_at_work


def _has_intent(bench: Bench, known: set[str]) -> bool:
    return any(r.kind == "intended" for run in set(bench.runs()) - known for r in bench.journal(run))


def _proof_resumed(bench: Bench) -> None:
    run = bench.runs("prove")[-1]
    done = bench.call("resume", run)
    require(done.returncode == 0, f"the proof {run}, resumed, ended {done.returncode}: {said(done)}")
    bench.require_clean(run)


def _until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    """Wait for a condition while the child is at work."""
    deadline = time.monotonic() + _PATIENCE
    while not condition() and child.poll() is None:
        require(time.monotonic() < deadline, f"nothing happens within {_PATIENCE:.0f} s")
        time.sleep(0.002)


def _kill(child: "subprocess.Popen[str]") -> bool:
    """Kill -9; whether it was still at work."""
    child.kill()
    child.communicate()
    return child.returncode == KILLED
