"""What a proof found on its copy, for people and for machines."""

from typing import Any

from aiprod_ops.cli.options import Where, applying, pasteable, repeated, spelled


def tell_proof(entry: Any, proven: Any, output: str, where: Where, given: dict[str, str], *, every: bool) -> int:
    """Print what a copy measured and said, and the next command; answers the exit code."""
    from aiprod_ops.cli import render, verdicts
    from aiprod_ops.units import show

    if output == "json":
        render.as_json({**proven.evidence.body, "evidence": proven.evidence.n, "seal": proven.evidence.seal})
        return int(proven.evidence.body["exit"])
    copy = proven.restored
    size, took = show(copy["size"], "B"), show(copy["seconds"], "s")
    source = f" of {copy['backup']}" if copy["backup"] else ""
    made = f"{size}, restored in {took}" if copy["checks"] else f"given up after {took}"
    render.say(f"Copy{source}: {'; '.join([made, *copy['checks']])}")
    render.say()
    if proven.proof.comparisons:
        render.comparisons(proven.proof.comparisons, every=every)
        render.say()
    for line in render.table(proven.proof.worth):
        render.say(f"  {line}")
    for finding in proven.proof.findings:
        render.say(f"  {pasteable(verdicts.line(finding), where)}")
    if proven.proof.worth or proven.proof.findings:
        render.say()
    for note in proven.proof.notes:
        render.say(f"  note: {pasteable(note, where)}")
    for name, reason in sorted(proven.proof.refused.items()):
        render.say(f"  REFUSED {name}: {pasteable(reason, where)}")
    render.say(verdict(proven))
    if not proven.draft:
        step = "plan" if "plan" in entry.book.phases else "prove"
        render.say(f"when that is mended: aiprod-ops {step} {entry.id}{spelled(given)}{repeated(where)}")
        render.say(f"next: aiprod-ops evidence show {proven.evidence.n}{repeated(where)}")
    elif proven.draft.plan.actions:
        render.say(f"next: {applying(entry, proven.draft.plan, where)}")
    return int(proven.evidence.body["exit"])


def verdict(proven: Any) -> str:
    """What the copy said, in a word, and where it is kept."""
    said = (
        f"NOT PROVEN, for want of what could not be looked at ({', '.join(proven.proof.untold)})"
        if proven.proof.untold and not proven.proof.refused
        else "EXAMINED, nothing is planned"
        if proven.draft and not proven.draft.plan.actions
        else "PROVEN"
        if not proven.proof.refused
        else "PROVEN IN PART"
        if proven.draft
        else "DISPROVED"
    )
    return f"{said}: evidence {proven.evidence.n}, seal {proven.evidence.seal[:12]}"
