"""How a run ends: its files are written and delivered, those of one that was taken back are withdrawn, all is told."""

from dataclasses import dataclass
from typing import Any

from aiprod_ops.domain.plans import Action, Plan
from aiprod_ops.domain.runs import Progress
from aiprod_ops.engine.journal import Journal
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.world import World
from aiprod_ops.errors import PartlyApplied


@dataclass(frozen=True)
class Sealing:
    """What is sealed of a run, from its journal."""

    world: World
    entry: Entry
    params: Any
    plan: Plan
    journal: Journal

    def body(self, progress: Progress) -> dict[str, Any]:
        """The record of a run that has come to its end; its files are written first. Raises PartlyApplied where one
        cannot be delivered."""
        files = self._files() if not progress.abandoned else {}
        withdrawn = self._withdrawn() if not progress.abandoned else {}
        context = self.world.context
        records = self.journal.records
        return {
            **self.journal.opening,
            "run": self.journal.run,
            "environment": context.target.environment,
            "version": self.world.version,
            "started": records[0].at,
            "ended": context.clock.now().isoformat(),
            "exit": int(progress.exit_code),
            "reason": progress.abandoned,
            "parameters": self.plan.parameters,
            "lease": [record.data for record in records if record.kind == "leased"],
            "steps": [
                {"at": record.at, "kind": record.kind, **record.data}
                for record in records
                if record.kind in ("intended", "operation", "outcome", "undoing", "abandoned", "compared")
            ],
            "actions": [
                {
                    "kind": a.kind,
                    "name": a.name,
                    "state": state,
                    "shown": self._shown(a),
                    **({"irreversible": a.irreversible} if a.irreversible else {}),
                }
                for a, state in zip(self.plan.actions, progress.steps, strict=True)
            ],
            "verification": [f for record in records if record.kind == "verified" for f in record.data["findings"]],
            "files": files,
            "withdrawn": withdrawn,
            "journal": records[-1].seal,
        }

    def _files(self) -> dict[str, str]:
        """Write what belongs to a verified run beside its journal, and where the configuration wants it.

        Answers where each file is: a path, or its name in the store.
        """
        if "files" not in self.entry.book.phases or "of" in self.journal.opening:
            return {}
        placed: dict[str, str] = {}
        for name, text in self.entry.book.phases["files"](self.plan, self.params).items():
            kept = f"runs/{self.journal.run}/files/{name}"
            self.world.store.put(kept, text.encode())
            placed[name] = self._delivered(name, text) or kept
        return placed

    def _delivered(self, name: str, text: str) -> str:
        if self.world.delivery is None:
            return ""
        try:
            return self.world.delivery.deliver(name, text)
        except OSError as error:
            raise PartlyApplied(
                f"all is done and verified, but {name} cannot be written ({error.strerror}: {error.filename})",
                hint=f"make room there, then: aiprod-ops resume {self.journal.run}",
            ) from error

    def _withdrawn(self) -> dict[str, str]:
        """Files of the run that is taken back, and what became of each where it had been delivered."""
        of = self.journal.opening.get("of", "")
        if self.world.delivery is None or not of:
            return {}
        prefix = f"runs/{of}/files/"
        names = [name.removeprefix(prefix) for name in self.world.store.names(prefix)]
        texts = {name: (self.world.store.get(f"{prefix}{name}") or b"").decode() for name in names}
        return {name: self.world.delivery.withdraw(name, text) for name, text in texts.items()}

    def _shown(self, action: Action) -> str:
        kind = self.entry.book.kinds[action.kind]
        return kind.text(kind.subject(action))
