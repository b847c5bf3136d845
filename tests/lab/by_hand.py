"""The runbook's own prove for indexes that nobody advised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiprod_ops.runbooks import add_missing_index as runbook

from aiprod_ops import api
from aiprod_ops.adapters.clock import SystemClock
from aiprod_ops.adapters.files import FolderStore
from aiprod_ops.adapters.local.platform import LocalPlatform
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.config import Settings, Target
from aiprod_ops.domain.plans import Identity
from aiprod_ops.engine.history import history_of
from aiprod_ops.engine.runbook import Context, Copy


def proven(server: Any, name: str, indexes: Mapping[api.NewIndex, str], **more: Any) -> api.Proof:
    """What a copy of one database says of these indexes; each is for the statements that hold its words."""
    folder = server.data.parent / name
    platform = LocalPlatform(lambda: server.dsn("postgres", name), folder / "copies", _on_copy)
    with PostgresDatabase(server.dsn("probe", name), writes=False, application_name="aiprod-ops") as source:
        statements = source.workload().statements
        actions = []
        for index, words in indexes.items():
            build = api.Build(index, tuple((s.query_id, s.text) for s in statements if words in s.text))
            actions.append(api.Action("create-index", build, undo=api.Action("drop-index", api.Build(index))))
        identity = Identity("here", "0", name)
        plan = api.Plan(runbook="by-hand", source="", identity=identity, parameters={}, actions=tuple(actions))
        promises = Settings(state=Path("/"), targets={}).promises
        with platform.copy("by-hand") as (database, restored):
            history = history_of(FolderStore(folder / "history"), "here", promises)
            context = Context(database, Target("here", ""), platform, SystemClock(), promises, lambda _: None, history)
            copy = Copy(database, source, restored, context, runbook.book.kinds)
            params = runbook.Params(api.Milliseconds(0.2), api.Ratio(0.01), api.Ratio(0.1), **more)
            proof: api.Proof = runbook.prove(copy, plan, params)
            return proof


def _on_copy(dsn: str) -> PostgresDatabase:
    return PostgresDatabase(dsn, writes=True, application_name="aiprod-ops copy")
