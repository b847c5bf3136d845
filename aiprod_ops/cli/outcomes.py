"""How a run ended, for people and for machines."""

from collections.abc import Iterator
from typing import Any

from aiprod_ops.cli.options import Where, pasteable
from aiprod_ops.errors import Exit


def tell_outcome(world: Any, outcome: Any, output: str, where: Where) -> int:
    """Print how a run ended, what is changed, and the next command; answers the exit code."""
    from aiprod_ops.cli import render

    code, words = int(outcome.exit), _WORDS.get(outcome.exit, outcome.exit.name)
    if outcome.kind == "prove":
        words = _OF_PROOF.get(outcome.exit, words)
    if output == "json":
        render.as_json({"run": outcome.run, "exit": code, "outcome": words, "reason": outcome.reason})
        return code
    if outcome.exit is Exit.DONE and not outcome.run:
        render.say(f"Nothing was changed: {outcome.reason}.")
        return code
    reason = pasteable(outcome.reason, where)
    render.say(f"{words}{f': {reason}' if reason else ''}")
    for line in _summary(world, outcome.run):
        render.say(f"  {line}")
    follow = f"aiprod-ops runs show {outcome.run}"
    if outcome.exit is Exit.PARTLY:  # what is sealed so nothing can take back: another run has to go on from there
        follow = f"page the owner; {follow}"
    render.say(f"next: {pasteable(follow, where)}")
    return code


_WORDS = {
    Exit.DONE: "DONE and verified",
    Exit.REFUSED: "REFUSED, nothing was changed",
    Exit.HELD: "HELD by another run, nothing was changed",
    Exit.UNDONE: "FAILED and undone; the facts equal those from before",
    Exit.PARTLY: "FAILED, and partly applied",
    Exit.UNKNOWN: "UNKNOWN",
    Exit.INTERRUPTED: "STOPPED before the first action, nothing was changed",
    Exit.TERMINATED: "STOPPED before the first action, nothing was changed",
}


#: A proof changes nothing: with the words of a run, "done" would be a lie.
_OF_PROOF = {Exit.DONE: "PROVEN, nothing was changed", Exit.REFUSED: "NOT PROVEN, nothing was changed"}


def _summary(world: Any, run: str) -> Iterator[str]:
    from aiprod_ops.cli import verdicts
    from aiprod_ops.domain.findings import Finding, Status
    from aiprod_ops.engine.evidence import Archive

    archive = Archive(world.store)
    for record in archive.bodies(run=run):
        if proof := next((each for each in archive.bodies(kind="prove") if each.n == record.body.get("proof")), None):
            yield f"{'proven':<12} evidence {proof.n}, seal {proof.seal[:12]}{_gains(proof.body['comparisons'])}"
        became = {each["step"]: each.get("became", "") for each in record.body.get("steps", []) if "state" in each}
        for step, action in enumerate(record.body.get("actions", [])):
            yield f"{action['state']:<12} {action['kind']} {action['name']}"
            if became.get(step):
                yield f"{'':<12} {became[step]}"
            if action["state"] == "changed" and action.get("irreversible"):
                yield f"{'':<12} {action['irreversible']}"
        for name, place in record.body.get("files", {}).items():
            there = _there(world, place)
            yield f"{'written':<12} {name}: {there}"
            if name.endswith(".py"):
                yield f"{'':<12} `alembic upgrade head` records it, and changes nothing here"
        for name, became in record.body.get("withdrawn", {}).items():
            yield f"{'withdrawn':<12} {name}: {became}"
        for finding in (Finding(**each) for each in record.body.get("verification", [])):
            if finding.status is not Status.OK:
                yield f"{'verified':<12} {verdicts.line(finding)}"
        yield f"{'evidence':<12} {record.n}, seal {record.seal[:12]}"
        return


def _gains(comparisons: list[dict[str, Any]]) -> str:
    """What the proof measured, by the unit that decides: the one that gained least, and the one that gained most."""
    from aiprod_ops.units import show

    gains = [each["gain"] for each in comparisons if each["unit"] == "buffers"]
    return f": {len(gains)} cases, {show(min(gains), '×')} to {show(max(gains), '×')} fewer buffers" if gains else ""


def _there(world: Any, place: str) -> str:
    """Where a person finds a file that evidence names: in the target's migrations, or in the store."""
    from aiprod_ops.adapters.local.delivery import PLACE

    folder = world.context.target.migrations
    if place.startswith(PLACE) and folder:
        return f"{folder}/{place.removeprefix(PLACE)}"
    return str(world.store.where(place))
