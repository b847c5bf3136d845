"""Sealing evidence, and reading it back."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from aiprod_ops.domain import evidence
from aiprod_ops.domain.evidence import Sealed
from aiprod_ops.domain.plans import canonical
from aiprod_ops.domain.runs import read_journal
from aiprod_ops.errors import Broken
from aiprod_ops.ports import Store

_HEAD = "evidence/HEAD"


@dataclass(frozen=True, slots=True)
class Archive:
    """The chain of sealed evidence in a store."""

    store: Store

    def seal(self, body: dict[str, Any]) -> Sealed:
        """Append one record. A run that already sealed the same body is answered with that record."""
        with self.store.lock("evidence", str(body.get("run", "?")), wait=True):
            chain = [record for _, record in self.read() if record is not None]
            last = chain[-1] if chain else None
            plain = json.loads(canonical(body))
            # A process that died between sealing and its journal's next record comes back with the same run.
            sealed = next((r for r in chain if (r.run, r.body["kind"]) == (plain["run"], plain["kind"])), None)
            if sealed is None:
                last = sealed = Sealed.following(last, plain)
                self.store.put(f"evidence/{sealed.n:06d}-{sealed.run}.json", canonical(sealed) + b"\n")
            if last is not None:
                self.store.put(_HEAD, canonical({"n": last.n, "seal": last.seal}))
            return sealed

    def read(self) -> list[tuple[str, Sealed | None]]:
        """Every record by its file's name, in order; None for what cannot be read as one."""
        names = [name for name in self.store.names("evidence/") if name.endswith(".json")]
        return [(name.removeprefix("evidence/"), self._record(name)) for name in sorted(names)]

    def _record(self, name: str) -> Sealed | None:
        try:
            return msgspec.json.decode(self.store.get(name) or b"", type=Sealed)
        except msgspec.DecodeError:
            return None

    def faults(self) -> list[str]:
        """What is wrong with the chain; nothing when it holds."""
        head = self.store.get(_HEAD)
        try:
            mark = json.loads(head) if head else None
            mark = {"n": mark["n"], "seal": mark["seal"]} if mark else None
        except (ValueError, KeyError, TypeError):
            return ["evidence: the head mark cannot be read"]
        chain = self.read()
        return [*evidence.faults(chain, mark), *self._gone({record.seal for _, record in chain if record})]

    def _gone(self, seals: set[str]) -> list[str]:
        """Records that a journal says were sealed, and that are not here."""
        found: list[str] = []
        for name in self.store.names("runs/"):
            if not name.endswith("journal.jsonl"):
                continue
            try:
                records, _ = read_journal(self.store.get(name) or b"")
            except Broken as error:
                found.append(f"{name}: {error.message}")
                continue
            sealed = [record for record in records if "seal" in record.data]
            found += [f"{name}: its evidence is gone" for record in sealed if record.data["seal"] not in seals]
        return list(dict.fromkeys(found))

    def bodies(self, **wanted: str | int) -> list[Sealed]:
        """Records that hold and whose body has these values, newest first."""
        good = [record for _, record in self.read() if record is not None and record.holds]
        return [r for r in reversed(good) if all(r.body.get(key) == value for key, value in wanted.items())]
