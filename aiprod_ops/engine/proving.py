"""Proving a plan on a restored, disposable copy. Production is only read."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from aiprod_ops.domain.backups import Origin, successful
from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.plans import Draft
from aiprod_ops.domain.proofs import Proof
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal
from aiprod_ops.engine.last_proofs import keep_last
from aiprod_ops.engine.planning import keep
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.runbook import Copy
from aiprod_ops.engine.world import World
from aiprod_ops.errors import (
    Broken,
    Exit,
    Failed,
    Held,
    OpsError,
    Refused,
    TimedOut,
    Untried,
    UsageError,
    before_acting,
    is_full,
)
from aiprod_ops.ports import Restored, Server, Store
from aiprod_ops.units import Bytes, Seconds, seconds

_NO_ROOM = os.strerror(errno.ENOSPC)  #: what programs say of a full disk, in the C locale


@dataclass(frozen=True)
class Proven:
    """What a copy said: the proof, its seal, and the draft that holds: without what was refused, None if all was."""

    draft: Draft | None
    proof: Proof
    evidence: Sealed
    restored: dict[str, Any]


def prove(world: World, entry: Entry, params: Any, draft: Draft, run: str) -> Proven:
    """Restore a copy, let the runbook measure before and after on it, seal what it said, destroy the copy.

    Repeatable: a process killed in here leaves a copy that the next proof sweeps away, and nothing in production.
    Raises Refused when no copy can be made, UsageError when the runbook proves nothing.
    """
    if "prove" not in entry.book.phases:
        raise UsageError(f"{entry.id} has nothing to prove on a copy")
    context = world.context
    journal = Journal(world.store, context.clock, run)
    with _room(journal), world.store.lock(f"run-{run}", world.by):
        journal.recover()
        if not journal.records:
            journal.write("opened", **opening(world, entry, draft, "prove"))
        with _ending(journal), world.journalled(journal):
            if "origin" in entry.book.phases:
                proof, restored, is_newest = _examined(world, entry, params, draft, run)
            else:
                (proof, restored), is_newest = _tried(world, entry, params, draft, run), False
        left = _holding(draft, proof)
        if left is not None:
            keep(world.store, left)
        body = _body(journal, world, draft, left, proof, asdict(restored))
        sealed = Archive(world.store).seal(body)
        journal.write("ended", exit=body["exit"], seal=sealed.seal)
        # That an older backup holds says nothing of the newest.
        if "origin" in entry.book.phases and (is_newest or body["exit"] != Exit.DONE):
            keep_last(context, sealed)
    return Proven(left, proof, sealed, asdict(restored))


def _examined(world: World, entry: Entry, params: Any, draft: Draft, run: str) -> tuple[Proof, Restored, bool]:
    """A copy from a stored backup: that it cannot be restored, or not be read, is what the proof tells. What hindered
    the proof itself disproves nothing (`Untried`, and all that is no answer): no evidence is sealed, and what the last
    proof said stays. Answers, too, whether it was of the newest, as far as its WAL reaches."""
    clock = world.context.clock
    with entry.book.phases["origin"](world.context, params) as origin:
        started, label = clock.monotonic(), origin.backup or (_newest(world) if origin.is_newest else "")
        try:
            return *_tried(world, entry, params, draft, run, origin), origin.is_newest
        except Untried:
            raise
        except (Failed, TimedOut, AnotherSystem) as error:
            if _NO_ROOM in error.message:
                hint = "make room where copies are restored, then prove again"
                raise Refused(f"the copy did not find room: {error.message}", hint=hint) from error
            took = Seconds(clock.monotonic() - started)
            restored = Restored(run, took, Bytes(0), (), label)
            return Proof((), {f"backup {label}".strip(): error.message}), restored, origin.is_newest


def _newest(world: World) -> str:
    """The id of the backup that is restored where none is named, for the day when it cannot be."""
    return next((each.id for each in reversed(successful(world.context.platform.backups.listed()))), "")


def _tried(
    world: World, entry: Entry, params: Any, draft: Draft, run: str, origin: Origin | None = None
) -> tuple[Proof, Restored]:
    context = world.context
    for name in context.platform.sweep(lambda name: False if name == run else _is_alive(world.store, name)):
        context.report(f"removed the copy of the run {name}, which is no more")
        if name != run:  # that one goes on
            _end_killed(world, name)
    with context.platform.copy(run, context.report, origin) as (database, restored):
        _refuse_another(database.server(), draft)
        copy = Copy(database, context.db, restored, replace(context, db=database), entry.book.kinds, origin)
        proof: Proof = entry.book.phases["prove"](copy, draft.plan, params)
        # A plan is not applied while something is unknown of the copy; that speaks against no backup.
        return replace(proof, refused=proof.against if origin else proof.against | proof.untold), restored


class AnotherSystem(Refused):
    """The copy is not one of the target."""


def _end_killed(world: World, run: str) -> None:
    """A proof that was killed, and whose copy is gone, ends: nothing is left of it to resume. One that somebody holds
    again ends by itself."""
    with suppress(Held, Broken), world.store.lock(f"run-{run}", world.by):
        journal = Journal(world.store, world.context.clock, run)
        journal.recover()
        if journal.records and journal.ended is None and journal.opening["kind"] == "prove":
            journal.write("ended", exit=int(Exit.REFUSED), error="it was killed; a later proof has removed its copy")


def _refuse_another(server: Server, draft: Draft) -> None:
    """A backup DSN that leads elsewhere would prove the plan on other data. Raises AnotherSystem."""
    planned = draft.plan.identity
    if (server.system_identifier, server.database) != (planned.system_identifier, planned.database):
        raise AnotherSystem(
            f"the copy is of the database {server.database} of system {server.system_identifier}, "
            f"the plan is for {planned.database} of system {planned.system_identifier}",
            hint="mend the backup DSN",
        )


@contextmanager
def _room(journal: Journal) -> Iterator[None]:
    """Where the journal, too, is on a full disk, a proof that has begun waits for `resume`."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        again = f"aiprod-ops resume {journal.run}" if journal.records else "try again"
        raise _no_room(error, again) from error


def _no_room(error: OSError, again: str) -> Refused:
    place = error.filename or "the state folder"
    return Refused(f"{place}: {error.strerror}; nothing was changed", hint=f"make room there, then: {again}")


@contextmanager
def _ending(journal: Journal) -> Iterator[None]:
    """A proof that cannot be made, or is stopped, ends: nothing is left of it, and it can be made again at any time."""
    try:
        yield
    except KeyboardInterrupt:
        journal.write("ended", exit=int(Exit.INTERRUPTED))
        raise
    except OpsError as error:
        journal.write("ended", exit=int(before_acting(error)), error=error.message)
        if before_acting(error) is error.exit_code:
            raise
        raise Refused(f"the plan cannot be tried on a copy: {error.message}", hint=error.hint) from error
    except OSError as error:  # of the copy; where the journal is on the same disk, this write fails as well
        if not is_full(error):
            raise
        journal.write("ended", exit=int(Exit.REFUSED), error=str(error.strerror))
        raise _no_room(error, "try again") from error


def opening(world: World, entry: Entry, draft: Draft, kind: str, **more: Any) -> dict[str, Any]:
    """The first record of every journal, and the head of every record of evidence."""
    return {
        "kind": kind,
        "runbook": entry.id,
        "source": entry.source,
        "target": asdict(draft.plan.identity),
        "digest": draft.digest,
        "by": world.by,
        "why": world.why,
        "trigger": world.trigger,
        **more,
    }


def abandon(world: World, run: str) -> None:
    """End a proof that was killed: its copy is destroyed, nothing else is left of it. Raises Held while it lives."""
    journal = Journal(world.store, world.context.clock, run)
    with world.store.lock(f"run-{run}", world.by):
        journal.recover()
        with world.journalled(journal):
            world.context.platform.sweep(lambda name: name != run)
        if journal.ended is None:
            journal.write("ended", exit=int(Exit.REFUSED))


def proof_of(world: World, digest: str) -> Sealed | None:
    """The newest sealed proof that holds for a plan and is not older than the promise allows."""
    valid_for = timedelta(seconds=seconds(world.context.promises.get("approval.valid_for")))
    oldest = (world.context.clock.now() - valid_for).isoformat()
    found = Archive(world.store).bodies(kind="prove", proves=digest)
    return found[0] if found and found[0].body["ended"] >= oldest else None


def disproof_of(world: World, digest: str) -> Sealed | None:
    """The newest sealed proof of this plan, if it refused a part of it, or all."""
    found = Archive(world.store).bodies(kind="prove", digest=digest)
    return found[0] if found and found[0].body["refused"] else None


def _holding(draft: Draft, proof: Proof) -> Draft | None:
    if not proof.refused:
        return draft
    if any(each.status in (Status.CRITICAL, Status.UNKNOWN) for each in proof.findings):
        return None  # the copy itself is not what it should be
    plan = draft.plan.excluding(proof.refused)
    return replace(draft, plan=plan, digest=plan.digest) if plan.actions else None


def _body(
    journal: Journal, world: World, draft: Draft, left: Draft | None, proof: Proof, restored: dict[str, Any]
) -> dict[str, Any]:
    return {
        **journal.opening,
        "run": journal.run,
        "environment": world.context.target.environment,
        "version": world.version,
        "started": journal.records[0].at,
        "ended": world.context.clock.now().isoformat(),
        "exit": int(Exit.DONE if left is not None and not proof.refused and not proof.untold else Exit.REFUSED),
        "parameters": draft.plan.parameters,
        "proves": left.digest if left else "",
        "refused": proof.refused,
        "comparisons": [{**asdict(c), "gain": c.gain} for c in proof.comparisons],
        "notes": list(proof.notes),
        "worth": list(proof.worth),
        "findings": [{**asdict(each), "status": each.status.name} for each in proof.findings],
        "copy": restored,
    }


def _is_alive(store: Store, run: str) -> bool | None:
    """Whether a process works on this run now: then its lock is held. None for one that has no journal here."""
    return None if store.get(f"runs/{run}/journal.jsonl") is None else store.is_locked(f"run-{run}")


def require(world: World, entry: Entry, draft: Draft) -> None:
    """Raises Refused when a copy has refused this plan, or a part of it."""
    if (refusal := disproof_of(world, draft.digest)) is not None:
        reasons = "; ".join(f"{name}: {why}" for name, why in refusal.body["refused"].items())
        other = refusal.body["proves"]
        hint = f"what holds is: aiprod-ops run {entry.id} --apply {other[:12]}" if other else "nothing of it holds"
        raise Refused(f"disproved on the copy: {reasons}", hint=hint)
