"""What a copy refused is kept for the checks: they only read, and cannot try it themselves."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import msgspec

from aiprod_ops.actions.index_builds import Build
from aiprod_ops.domain.advice.refusals import Refusal, fresh
from aiprod_ops.domain.schema import Schema
from aiprod_ops.engine.runbook import Context
from aiprod_ops.units import seconds

_REFUSED = "refused-indexes"  #: name in the history


def keep_refusals(context: Context, tried: Iterable[Build], reasons: Mapping[str, str], schema: Schema) -> None:
    """Keep what was refused now, by the build's name, in the place of what was said of the same indexes before."""
    now = context.clock.now()
    known = known_refusals(context)
    left, new = list(known), []
    for build in tried:
        index, table = build.index, schema.table(build.index.table.schema, build.index.table.name)
        left = [each for each in left if not each.is_of(index, table)]
        if table is not None and str(build) in reasons:
            new.append(Refusal.of(index, table, reasons[str(build)], now))
    if new or len(left) < len(known):
        context.history.keep(_REFUSED, now, [*left, *new])


def known_refusals(context: Context) -> tuple[Refusal, ...]:
    """What copies refused, where that is not older than a proof may be."""
    last = context.history.last(_REFUSED)
    if last is None:
        return ()
    age = timedelta(seconds=seconds(context.promises.get("evidence.max_age")))
    return fresh(msgspec.convert(last.value, tuple[Refusal, ...]), context.clock.now(), age)
